/**
 * What one timeline has done, in plain fields: read when metrics are scraped, gone with the timeline. Of a timeline at rest, of which
 * there may be thousands, nothing is made but this object.
 */
import { Histogram } from "../../observability/metric-values.ts";
import { BATCH_SIZES_OF_TIMELINE, CRITICAL_SECONDS, LAYERS_OF_TIMELINE } from "./bounds.ts";

/** The peer's names of what storage does. */
export const STORAGE_OPERATIONS = ["layer flush", "layer flush delay", "compact", "create images", "logical size", "load layer map", "gc", "find gc cutoffs"] as const;
export type StorageOperation = (typeof STORAGE_OPERATIONS)[number];

/** Why a batch of page requests ended, in the peer's words. */
export const BATCH_BREAKS = ["batch_full", "non_batchable_request", "non_uniform_lsn", "non_uniform_timeline", "executor_steal"] as const;
export type BatchBreak = (typeof BATCH_BREAKS)[number];

export function noBreaks(): Record<BatchBreak, number> {
  return { batch_full: 0, non_batchable_request: 0, non_uniform_lsn: 0, non_uniform_timeline: 0, executor_steal: 0 };
}

/** Page requests of a timeline. */
export class PagestreamCounts {
  started = 0;
  flushMs = 0;
  readonly seconds = new Histogram(CRITICAL_SECONDS);
  readonly batchWait = new Histogram(CRITICAL_SECONDS);
  readonly batches = new Histogram(BATCH_SIZES_OF_TIMELINE);
  readonly breaks = noBreaks();
}

export interface OperationCount {
  count: number;
  durationMs: number;
  /** Under way now. */
  active: number;
}

/** Calls to object storage for one kind of file. */
export interface RemoteCount {
  readonly fileKind: "layer" | "index";
  readonly kind: "upload" | "download" | "delete";
  callsStarted: number;
  callsFinished: number;
  bytesStarted: number;
  bytesFinished: number;
}

/** Throttled or not, page requests pass the throttle. */
export class ThrottleCounts {
  started = 0;
  finished = 0;
  throttled = 0;
  waitedMs = 0;
}

export class TimelineCounts {
  #pagestream: PagestreamCounts | null = null;
  #layers: Histogram | null = null;
  #operations: Map<StorageOperation, OperationCount> | null = null;
  #remote: Map<string, RemoteCount> | null = null;
  /** Of waits for on-demand downloads, by who waits. */
  #downloadWaits: Map<string, number> | null = null;
  recordsReceived = 0;
  /** Times its logical size came to be known. */
  sizesCounted = 0;
  waitsStarted = 0;
  waitsFinished = 0;
  waitedMs = 0;
  evictions = 0;
  lowResidenceEvictions = 0;
  /** What standbys still need, as the broker told last; 0: none. */
  standbyHorizon = 0;
  /** Of layers that history alone keeps, when they were looked at last. */
  invisibleBytes = 0;
  /** Its tenant's. */
  throttle: ThrottleCounts | null = null;

  get pagestream(): PagestreamCounts {
    return (this.#pagestream ??= new PagestreamCounts());
  }
  /** Null: nobody has asked for a page. */
  get knownPagestream(): PagestreamCounts | null {
    return this.#pagestream;
  }

  /** Layers that reads looked into, of each key. */
  get layers(): Histogram {
    return (this.#layers ??= new Histogram(LAYERS_OF_TIMELINE));
  }
  get knownLayers(): Histogram | null {
    return this.#layers;
  }

  operation(name: StorageOperation): OperationCount {
    this.#operations ??= new Map();
    let known = this.#operations.get(name);
    if (known === undefined) {
      known = { count: 0, durationMs: 0, active: 0 };
      this.#operations.set(name, known);
    }
    return known;
  }
  get operations(): Iterable<readonly [StorageOperation, OperationCount]> {
    return this.#operations ?? [];
  }

  remote(fileKind: RemoteCount["fileKind"], kind: RemoteCount["kind"]): RemoteCount {
    this.#remote ??= new Map();
    const key = `${fileKind} ${kind}`;
    let known = this.#remote.get(key);
    if (known === undefined) {
      known = { fileKind, kind, callsStarted: 0, callsFinished: 0, bytesStarted: 0, bytesFinished: 0 };
      this.#remote.set(key, known);
    }
    return known;
  }
  get remotes(): Iterable<RemoteCount> {
    return this.#remote?.values() ?? [];
  }

  waitedForDownload(taskKind: string, durationMs: number): void {
    this.#downloadWaits ??= new Map();
    this.#downloadWaits.set(taskKind, (this.#downloadWaits.get(taskKind) ?? 0) + durationMs);
  }
  get downloadWaits(): Iterable<readonly [string, number]> {
    return this.#downloadWaits ?? [];
  }
}
