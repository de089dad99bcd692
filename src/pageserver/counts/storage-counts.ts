/**
 * What a whole pageserver has done, in plain fields that cost an addition to keep: told by its parts, read by register-*.ts when
 * metrics are scraped. What belongs to one timeline as well is kept there too (timeline-counts.ts).
 */
import { Histogram } from "../../observability/metric-values.ts";
import type { Clock } from "../../platform/clock.ts";
import type { SlotWatch } from "../timeline/work-slots.ts";
import { BATCH_SIZES, CRITICAL_SECONDS, DEFAULT_SECONDS, DOWNLOAD_WAIT_SECONDS, REDOWNLOAD_SECONDS, SMGR_SECONDS, STARTUP_SECONDS, STORAGE_OPERATION_SECONDS } from "./bounds.ts";
import { IoCounts } from "./io-counts.ts";
import { ReadCounts, taskKindOf } from "./read-counts.ts";
import { type BatchBreak, noBreaks, type RemoteCount, STORAGE_OPERATIONS, type StorageOperation, ThrottleCounts, type TimelineCounts } from "./timeline-counts.ts";

/** The peer's words for the kinds of requests. */
export const SMGR_NAMES = { exists: "get_rel_exists", nblocks: "get_rel_size", getpage: "get_page_at_lsn", dbsize: "get_db_size", "slru-segment": "get_slru_segment" } as const;
export type SmgrKind = keyof typeof SMGR_NAMES;

class SmgrCount {
  started = 0;
  readonly seconds = new Histogram(SMGR_SECONDS);
}

/** Page requests of all timelines. */
export class PagestreamTotals {
  readonly kinds: Readonly<Record<SmgrKind, SmgrCount>> = { exists: new SmgrCount(), nblocks: new SmgrCount(), getpage: new SmgrCount(), dbsize: new SmgrCount(), "slru-segment": new SmgrCount() };
  readonly results = { success: 0, internal_error: 0, other_error: 0 };
  readonly batches = new Histogram(BATCH_SIZES);
  readonly batchWait = new Histogram(SMGR_SECONDS);
  readonly breaks = noBreaks();
  flushMs = 0;
  misrouted = 0;
  /** Flushes that somebody waits for: told while they last. */
  readonly flushing = new Set<{ readonly counts: TimelineCounts; sinceMs: number }>();
}

/** A key of labels joined by spaces, each with what was counted. */
export class Labelled<T> {
  readonly all = new Map<string, T>();
  readonly #make: () => T;

  constructor(make: () => T) {
    this.#make = make;
  }

  of(...labels: readonly string[]): T {
    const key = labels.join(" ");
    let known = this.all.get(key);
    if (known === undefined) {
      known = this.#make();
      this.all.set(key, known);
    }
    return known;
  }
}

export interface CompressionCounts {
  inBytes: number;
  consideredBytes: number;
  chosenBytes: number;
  outBytes: number;
}

/** Background work of one kind, in front of its places. */
export class SlotCount {
  started = 0;
  finished = 0;
  running = 0;
  readonly seconds = new Histogram(STORAGE_OPERATION_SECONDS);

  /** A wait for a place begins. */
  waits(clock: Clock): SlotWatch {
    const startMs = clock.monotonicMs();
    this.started++;
    return {
      waited: (hasPlace) => {
        this.finished++;
        if (hasPlace) this.running++;
        this.seconds.recordMs(clock.monotonicMs() - startMs);
      },
      ended: () => void this.running--,
    };
  }
}

export class StorageCounts {
  readonly reads = new ReadCounts();
  readonly io = new IoCounts();
  readonly pagestream = new PagestreamTotals();
  readonly throttle = new ThrottleCounts();
  readonly operations: ReadonlyMap<StorageOperation, Histogram> = new Map(STORAGE_OPERATIONS.map((name) => [name, new Histogram(STORAGE_OPERATION_SECONDS)]));
  readonly lsnWaits = { seconds: new Histogram(CRITICAL_SECONDS), timeouts: 0, waitedMs: 0 };
  readonly downloads = { layers: 0, bytes: 0, waits: new Labelled(() => new Histogram(DOWNLOAD_WAIT_SECONDS)), layersByTask: new Labelled(() => ({ layers: 0, bytes: 0 })) };
  readonly remoteSeconds = new Labelled(() => new Histogram(DEFAULT_SECONDS));
  readonly layers = { evictionsStarted: 0, evictionsCompleted: 0, evictionsCancelled: new Map<string, number>(), deletesStarted: 0, deletesCompleted: 0, redownloadedAfter: new Histogram(REDOWNLOAD_SECONDS), writtenL0: 0, writtenImages: 0, collected: 0 };
  readonly compression: CompressionCounts = { inBytes: 0, consideredBytes: 0, chosenBytes: 0, outBytes: 0 };
  readonly logicalSizes = { started: new Map<string, number>(), droppedFirst: 0, droppedRetry: 0, finished: 0, droppedFinished: 0 };
  readonly relationSizes = { hits: 0, misses: 0, missesOld: 0 };
  readonly ingest = { bytesReceived: 0, recordsReceived: 0, recordsObserved: 0, recordsCommitted: 0, recordsFiltered: 0, gapBlocks: 0, unknownMapRelations: 0, unknownNewPages: 0, unknownOldPages: 0, dataImages: 0, dataDeltas: 0, metadataImages: 0, metadataDeltas: 0 };
  readonly walReceivers = { startedConnections: 0, activeManagers: 0, switches: new Map<string, number>(), brokerUpdates: 0, candidatesAdded: 0, candidatesRemoved: 0 };
  readonly slots = new Labelled(() => new SlotCount());
  readonly tenants = {
    activation: new Histogram(CRITICAL_SECONDS), preload: new Histogram(CRITICAL_SECONDS), attach: new Histogram(CRITICAL_SECONDS),
    startupScheduled: 0, startupComplete: 0, slotWrites: 0, unexpectedErrors: 0, tasksStarted: 0, tasksStopped: 0,
  };
  readonly heatmaps = { uploaded: 0, errors: 0, seconds: new Histogram(DEFAULT_SECONDS) };
  readonly initdb = { seconds: new Histogram(STORAGE_OPERATION_SECONDS), running: 0 };
  readonly connections = { started: 0, finished: 0, commands: new Map<string, number>(), backups: new Labelled(() => new Histogram(STARTUP_SECONDS)) };
  /** Seconds from the start of the process to the end of each phase. */
  readonly startupSeconds = new Map<string, number>();

  // ---- What storage does

  /** Does `work`, and counts how long it took; one that failed as well. */
  async timed<T>(operation: StorageOperation, at: { readonly counts: TimelineCounts; readonly clock: Clock }, work: () => Promise<T>): Promise<T> {
    const startMs = at.clock.monotonicMs();
    const count = at.counts.operation(operation);
    count.active++;
    try {
      return await work();
    } finally {
      count.active--;
      this.took(operation, at.counts, at.clock.monotonicMs() - startMs);
    }
  }

  took(operation: StorageOperation, counts: TimelineCounts, durationMs: number): void {
    const count = counts.operation(operation);
    count.count++;
    count.durationMs += durationMs;
    this.operations.get(operation)?.recordMs(durationMs);
  }

  /** Somebody waited for WAL. */
  lsnWaited(counts: TimelineCounts, durationMs: number, timedOut: boolean): void {
    counts.waitsFinished++;
    counts.waitedMs += durationMs;
    this.lsnWaits.waitedMs += durationMs;
    this.lsnWaits.seconds.recordMs(durationMs);
    if (timedOut) this.lsnWaits.timeouts++;
  }

  downloaded(sizeBytes: number): void {
    this.downloads.layers++;
    this.downloads.bytes += sizeBytes;
  }

  /** A read waited for a layer to come. */
  downloadWaited(counts: TimelineCounts, task: string, durationMs: number): void {
    const kind = task === "page-service" || task === "basebackup" || task === "ingest" ? taskKindOf(task) : "unknown";
    this.downloads.waits.of(kind).recordMs(durationMs);
    counts.waitedForDownload(kind, durationMs);
  }

  /** An operation on object storage begins; what is returned is to be called once, when it has ended. */
  remote(counts: TimelineCounts, { fileKind, kind, sizeBytes }: { readonly fileKind: RemoteCount["fileKind"]; readonly kind: RemoteCount["kind"]; readonly sizeBytes: number }): (outcome: RemoteOutcome, durationMs: number) => void {
    const count = counts.remote(fileKind, kind);
    count.callsStarted++;
    count.bytesStarted += sizeBytes;
    return (outcome, durationMs) => {
      this.remoteSeconds.of(fileKind, kind, outcome).recordMs(durationMs);
      count.callsFinished++;
      count.bytesFinished += sizeBytes;
    };
  }

  addCompression(written: CompressionCounts): void {
    this.compression.inBytes += written.inBytes;
    this.compression.consideredBytes += written.consideredBytes;
    this.compression.chosenBytes += written.chosenBytes;
    this.compression.outBytes += written.outBytes;
  }

  // ---- Page requests

  /** Page requests answered without waiting: all began when the first did, and none waited for a batch. */
  answeredQuickly(counts: TimelineCounts, pages: number, took: { readonly executionMs: number; readonly flushMs: number }): void {
    const one = counts.pagestream;
    const all = this.pagestream;
    one.started += pages;
    all.kinds.getpage.started += pages;
    one.seconds.recordMs(took.executionMs, pages);
    all.kinds.getpage.seconds.recordMs(took.executionMs, pages);
    all.results.success += pages;
    this.passedThrottle(counts, pages);
    this.#batch(counts, { pages, waitedMs: 0 });
    this.flushed(counts, took.flushMs);
  }

  /** A batch of page requests begins to be executed. @param waitedMs each waited for that, without what the throttle took */
  batchBegins(counts: TimelineCounts, pages: number, waitedMs: number): void {
    counts.pagestream.started += pages;
    this.pagestream.kinds.getpage.started += pages;
    this.#batch(counts, { pages, waitedMs });
  }

  #batch(counts: TimelineCounts, { pages, waitedMs }: { readonly pages: number; readonly waitedMs: number }): void {
    const one = counts.pagestream;
    one.batches.observe(pages);
    this.pagestream.batches.observe(pages);
    one.batchWait.recordMs(waitedMs, pages);
    this.pagestream.batchWait.recordMs(waitedMs, pages);
  }

  batchEnded(counts: TimelineCounts, why: BatchBreak): void {
    counts.pagestream.breaks[why]++;
    this.pagestream.breaks[why]++;
  }

  /** Requests of one kind were executed, whether or not there was an error. */
  executed(counts: TimelineCounts, kind: SmgrKind, { requests, durationMs }: { readonly requests: number; readonly durationMs: number }): void {
    this.pagestream.kinds[kind].seconds.recordMs(durationMs, requests);
    if (kind === "getpage") counts.pagestream.seconds.recordMs(durationMs, requests);
  }

  /** Requests that need not be throttled are accounted for all the same. */
  passedThrottle(counts: TimelineCounts, requests: number): void {
    this.throttle.started += requests;
    this.throttle.finished += requests;
    if (counts.throttle === null) return;
    counts.throttle.started += requests;
    counts.throttle.finished += requests;
  }

  flushed(counts: TimelineCounts, durationMs: number): void {
    counts.pagestream.flushMs += durationMs;
    this.pagestream.flushMs += durationMs;
  }

  /** Waits for a flush: while it lasts, a scrape tells what it has taken so far. */
  async flushing(counts: TimelineCounts, clock: Clock, flush: Promise<void>): Promise<void> {
    const entry = { counts, sinceMs: clock.monotonicMs() };
    this.pagestream.flushing.add(entry);
    try {
      await flush;
    } finally {
      this.pagestream.flushing.delete(entry);
      this.flushed(counts, clock.monotonicMs() - entry.sinceMs);
    }
  }

  /** What flushes under way have taken by now. */
  tellFlushing(nowMs: number): void {
    for (const entry of this.pagestream.flushing) {
      this.flushed(entry.counts, nowMs - entry.sinceMs);
      entry.sinceMs = nowMs;
    }
  }
}

/** How one ended; "cancelled": nobody wanted it any more. */
export type RemoteOutcome = "success" | "failure" | "cancelled";

/** Adds one to an entry. */
export function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
