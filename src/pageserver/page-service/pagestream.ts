/**
 * One pagestream: requests come in one after the other and are answered in that order. Page requests that need no waiting are
 * answered at once (quick-pages.ts). From one that does on, what has already arrived is taken together, and neighbouring page
 * requests of one LSN become one vectored read. An error answers its own
 * request; the stream goes on.
 */
import { Cancelled, describeError, isStrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { relBlockKey, relSizeKey } from "../../keyspace/mapping.ts";
import { DEFAULT_TABLESPACE_OID, PAGE_SIZE } from "../../keyspace/relation.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { ServedCopyStream } from "../../wire/pg-session.ts";
import { Pacer } from "../layers/pacer.ts";
import { decodeRequest, encodeResult, errorParts, type PagestreamRequest, type PagestreamVersion } from "../api/pagestream.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import type { BatchBreak, TimelineCounts } from "../counts/timeline-counts.ts";
import { effectiveLsn } from "./effective-lsn.ts";
import { QuickPages } from "./quick-pages.ts";
import type { ServedTimeline, ShardSelector, TimelineFinder } from "./served-timeline.ts";

/** Requests answered together, at most. */
export const MAX_BATCH_REQUESTS = 32;

export interface PagestreamTarget {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly version: PagestreamVersion;
}

export interface PagestreamOptions {
  readonly finder: TimelineFinder;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly counts: StorageCounts;
  readonly clock: Clock;
}

type Prepared = { readonly request: PagestreamRequest } & ({ readonly timeline: ServedTimeline; readonly lsn: Lsn; readonly readyMs: number } | { readonly error: unknown });

export async function servePagestream(copy: ServedCopyStream, target: PagestreamTarget, options: PagestreamOptions): Promise<void> {
  const stream = new Pagestream(copy, target, options);
  const quick = new QuickPages(copy, { ...options, target });
  const pacer = new Pacer(options.clock);
  copy.onArrival(() => void quick.answer());
  try {
    for (;;) {
      const outcome = quick.answer();
      if (outcome !== "slice") {
        const first = copy.take() ?? (await copy.read());
        if (first === null) break;
        await answerBatch(copy, first, stream);
      }
      if (copy.bufferedBytes > 0) await drained(copy, stream.served ?? quick.served, options);
      // Who sends without end must not keep others from being served.
      const pause = copy.pending > 0 ? pacer.pause() : undefined;
      if (pause !== undefined) await pause;
    }
  } finally {
    copy.onArrival(null);
  }
  copy.done();
}

async function drained(copy: ServedCopyStream, served: TimelineCounts | null, { counts, clock }: PagestreamOptions): Promise<void> {
  if (served === null) await copy.drained();
  else await counts.flushing(served, clock, copy.drained());
}

async function answerBatch(copy: ServedCopyStream, first: Uint8Array, stream: Pagestream): Promise<void> {
  const { batch, error } = takeBatch(copy, first, stream.version);
  if (batch.length > 0) await stream.answer(batch);
  if (error !== null) throw error;
}

interface Batch {
  readonly batch: readonly PagestreamRequest[];
  /** Of an unreadable message: what came before it is answered all the same. */
  readonly error: unknown;
}

/** A request and what has already arrived behind it. */
function takeBatch(copy: ServedCopyStream, first: Uint8Array, version: PagestreamVersion): Batch {
  const batch: PagestreamRequest[] = [];
  try {
    for (let message: Uint8Array | null = first; message !== null; message = batch.length < MAX_BATCH_REQUESTS ? copy.take() : null) batch.push(decodeRequest(message, version));
    return { batch, error: null };
  } catch (error) {
    return { batch, error };
  }
}

class Pagestream {
  readonly #copy: ServedCopyStream;
  readonly #target: PagestreamTarget;
  readonly #options: PagestreamOptions;
  /** Who was asked last. */
  served: TimelineCounts | null = null;

  constructor(copy: ServedCopyStream, target: PagestreamTarget, options: PagestreamOptions) {
    this.#copy = copy;
    this.#target = target;
    this.#options = options;
  }

  get version(): PagestreamVersion {
    return this.#target.version;
  }

  async answer(batch: readonly PagestreamRequest[]): Promise<void> {
    const prepared = await Promise.all(batch.map((request) => this.#prepare(request)));
    for (let at = 0; at < prepared.length; ) {
      const { end, why } = sameReadEnd(prepared, at);
      await this.#answerGroup(prepared.slice(at, end), why);
      at = end;
    }
  }

  async #prepare(request: PagestreamRequest): Promise<Prepared> {
    try {
      const timeline = await this.#options.finder.find(this.#target, selectorOf(request));
      const lsn = await effectiveLsn(timeline, request, this.#options.signal);
      return { request, timeline, lsn, readyMs: this.#options.clock.monotonicMs() };
    } catch (error) {
      return { request, error };
    }
  }

  async #answerGroup(group: readonly Prepared[], why: BatchBreak): Promise<void> {
    const [first] = group;
    if ("error" in first) return this.#fail(first.request, first.error);
    const { timeline, lsn, request } = first;
    const { counts, clock, signal } = this.#options;
    this.served = timeline.counts;
    const throttledMs = await this.#throttle(timeline, group.length);
    const startMs = clock.monotonicMs();
    if (request.kind === "getpage") {
      counts.batchBegins(timeline.counts, group.length, Math.max(0, startMs - first.readyMs - throttledMs));
      counts.batchEnded(timeline.counts, why);
    } else counts.pagestream.kinds[request.kind].started++;
    const reader = timeline.datadir.at(lsn, { task: "page-service", signal, cachePages: true });
    try {
      if (request.kind !== "getpage") return this.#succeed(request, await answerOther(reader, request));
      const pages = await reader.relPages(group.map((entry) => entry.request as Extract<PagestreamRequest, { kind: "getpage" }>));
      group.forEach((entry, index) => {
        const page = pages[index];
        if (page instanceof Error) this.#fail(entry.request, page);
        else this.#succeed(entry.request, page);
      });
    } catch (error) {
      for (const entry of group) this.#fail(entry.request, error);
    } finally {
      counts.executed(timeline.counts, request.kind, { requests: group.length, durationMs: clock.monotonicMs() - startMs });
    }
  }

  /** How long it took, which is no part of what requests are said to take. */
  async #throttle({ throttle, counts }: ServedTimeline, requests: number): Promise<number> {
    if (throttle !== null) return await throttle.take(requests, this.#options.signal);
    this.#options.counts.passedThrottle(counts, requests);
    return 0;
  }

  #succeed(request: PagestreamRequest, result: boolean | number | Uint8Array): void {
    this.#options.counts.pagestream.results.success++;
    this.#copy.write(...encodeResult(request, result));
  }

  #fail(request: PagestreamRequest, error: unknown): void {
    if (error instanceof Cancelled || this.#options.signal.aborted) throw error;
    this.#options.counts.pagestream.results[isOurs(error) ? "internal_error" : "other_error"]++;
    this.#options.log.info("page request failed", { request: request.kind, error });
    this.#copy.write(...errorParts(request, describeError(error)));
  }
}

function selectorOf(request: PagestreamRequest): ShardSelector {
  if (request.kind === "getpage") return { kind: "holds", key: relBlockKey(request.rel, request.block) };
  if (request.kind === "exists" || request.kind === "nblocks") return { kind: "holds", key: relSizeKey(request.rel) };
  return { kind: "zero" };
}

/** Whether storage failed, rather than the request. */
function isOurs(error: unknown): boolean {
  return !isStrataError(error) || error.kind === "corrupt" || error.kind === "retry" || error.code === "missing-key";
}

/** End of the run of page requests that one vectored read can answer, and why it goes no further. */
function sameReadEnd(prepared: readonly Prepared[], start: number): { readonly end: number; readonly why: BatchBreak } {
  const first = prepared[start];
  let end = start + 1;
  if ("error" in first || first.request.kind !== "getpage") return { end, why: "non_batchable_request" };
  for (; end < prepared.length; end++) {
    const next = prepared[end];
    if ("error" in next || next.request.kind !== "getpage") return { end, why: "non_batchable_request" };
    if (next.timeline !== first.timeline) return { end, why: "non_uniform_timeline" };
    if (next.lsn !== first.lsn) return { end, why: "non_uniform_lsn" };
  }
  return { end, why: end === MAX_BATCH_REQUESTS ? "batch_full" : "executor_steal" };
}

async function answerOther(reader: ReturnType<ServedTimeline["datadir"]["at"]>, request: Exclude<PagestreamRequest, { kind: "getpage" }>): Promise<boolean | number | Uint8Array> {
  switch (request.kind) {
    case "exists":
      return reader.relExists(request.rel);
    case "nblocks":
      return reader.relSize(request.rel);
    case "dbsize":
      return (await reader.databaseBlocks(DEFAULT_TABLESPACE_OID, request.dbOid)) * PAGE_SIZE;
    case "slru-segment":
      return reader.slruSegment(request.slru, request.segment);
  }
}
