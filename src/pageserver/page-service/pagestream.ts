/**
 * One pagestream: requests come in one after the other and are answered in that order. Page requests that need no waiting are
 * answered at once (quick-pages.ts). From one that does on, what has already arrived is taken together, and neighbouring page
 * requests of one LSN become one vectored read. An error answers its own
 * request; the stream goes on.
 */
import { Cancelled, describeError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { relBlockKey, relSizeKey } from "../../keyspace/mapping.ts";
import { DEFAULT_TABLESPACE_OID, PAGE_SIZE } from "../../keyspace/relation.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { ServedCopyStream } from "../../wire/pg-session.ts";
import { Pacer } from "../layers/pacer.ts";
import { decodeRequest, encodeResult, errorParts, type PagestreamRequest, type PagestreamVersion } from "../api/pagestream.ts";
import { effectiveLsn } from "./effective-lsn.ts";
import type { PagestreamMetrics } from "./pagestream-metrics.ts";
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
  readonly metrics: PagestreamMetrics;
  readonly clock: Clock;
}

type Prepared = { readonly request: PagestreamRequest } & ({ readonly timeline: ServedTimeline; readonly lsn: Lsn } | { readonly error: unknown });

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
      if (copy.bufferedBytes > 0) await copy.drained();
      // Who sends without end must not keep others from being served.
      const pause = copy.pending > 0 ? pacer.pause() : undefined;
      if (pause !== undefined) await pause;
    }
  } finally {
    copy.onArrival(null);
  }
  copy.done();
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

  constructor(copy: ServedCopyStream, target: PagestreamTarget, options: PagestreamOptions) {
    this.#copy = copy;
    this.#target = target;
    this.#options = options;
  }

  get version(): PagestreamVersion {
    return this.#target.version;
  }

  async answer(batch: readonly PagestreamRequest[]): Promise<void> {
    this.#options.metrics.batch(batch.length);
    const prepared = await Promise.all(batch.map((request) => this.#prepare(request)));
    for (let at = 0; at < prepared.length; ) {
      const end = sameReadEnd(prepared, at);
      await this.#answerGroup(prepared.slice(at, end));
      at = end;
    }
  }

  async #prepare(request: PagestreamRequest): Promise<Prepared> {
    try {
      const timeline = await this.#options.finder.find(this.#target, selectorOf(request));
      return { request, timeline, lsn: await effectiveLsn(timeline, request, this.#options.signal) };
    } catch (error) {
      return { request, error };
    }
  }

  async #answerGroup(group: readonly Prepared[]): Promise<void> {
    const [first] = group;
    if ("error" in first) return this.#fail(first.request, first.error);
    const { timeline, lsn, request } = first;
    await timeline.throttle?.take(group.length, this.#options.signal);
    const reader = timeline.datadir.at(lsn, { task: "page-service", signal: this.#options.signal, cachePages: true });
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
    }
  }

  #succeed(request: PagestreamRequest, result: boolean | number | Uint8Array): void {
    this.#options.metrics.answered(request.kind, false);
    this.#copy.write(...encodeResult(request, result));
  }

  #fail(request: PagestreamRequest, error: unknown): void {
    if (error instanceof Cancelled || this.#options.signal.aborted) throw error;
    this.#options.metrics.answered(request.kind, true);
    this.#options.log.info("page request failed", { request: request.kind, error });
    this.#copy.write(...errorParts(request, describeError(error)));
  }
}

function selectorOf(request: PagestreamRequest): ShardSelector {
  if (request.kind === "getpage") return { kind: "holds", key: relBlockKey(request.rel, request.block) };
  if (request.kind === "exists" || request.kind === "nblocks") return { kind: "holds", key: relSizeKey(request.rel) };
  return { kind: "zero" };
}

/** End of the run of page requests that one vectored read can answer. */
function sameReadEnd(prepared: readonly Prepared[], start: number): number {
  const first = prepared[start];
  let end = start + 1;
  if ("error" in first || first.request.kind !== "getpage") return end;
  for (; end < prepared.length; end++) {
    const next = prepared[end];
    if ("error" in next || next.request.kind !== "getpage" || next.timeline !== first.timeline || next.lsn !== first.lsn) break;
  }
  return end;
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
