/**
 * One pagestream: requests come in one after the other and are answered in that order. What has already arrived is
 * taken together, and neighbouring page requests of one LSN become one vectored read. An error answers its own
 * request; the stream goes on.
 */
import { Cancelled, describeError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { relBlockKey, relSizeKey } from "../../keyspace/mapping.ts";
import { DEFAULT_TABLESPACE_OID, PAGE_SIZE } from "../../keyspace/relation.ts";
import type { Logger } from "../../observability/log.ts";
import type { CopyStream } from "../../wire/pg-session.ts";
import { decodeRequest, encodeResult, errorParts, type PagestreamRequest, type PagestreamVersion } from "../api/pagestream.ts";
import { effectiveLsn } from "./effective-lsn.ts";
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
}

export interface PagestreamMetrics {
  batch(requests: number): void;
  answered(kind: PagestreamRequest["kind"], failed: boolean): void;
}

type Prepared = { readonly request: PagestreamRequest } & ({ readonly timeline: ServedTimeline; readonly lsn: Lsn } | { readonly error: unknown });

export async function servePagestream(copy: CopyStream, target: PagestreamTarget, options: PagestreamOptions): Promise<void> {
  const stream = new Pagestream(copy, target, options);
  for (;;) {
    const { batch, end } = await readBatch(copy, target.version);
    if (batch.length > 0) await stream.answer(batch);
    await copy.drained();
    if (end === null) continue;
    if ("error" in end) throw end.error;
    break;
  }
  copy.done();
}

interface Batch {
  readonly batch: readonly PagestreamRequest[];
  /** Null: more may come. What came before an unreadable message is answered all the same. */
  readonly end: { readonly done: true } | { readonly error: unknown } | null;
}

/** Waits for a request, and takes with it what has already arrived. */
async function readBatch(copy: CopyStream, version: PagestreamVersion): Promise<Batch> {
  const batch: PagestreamRequest[] = [];
  try {
    do {
      const message = await copy.read();
      if (message === null) return { batch, end: { done: true } };
      batch.push(decodeRequest(message, version));
    } while (copy.pending > 0 && batch.length < MAX_BATCH_REQUESTS);
    return { batch, end: null };
  } catch (error) {
    return { batch, end: { error } };
  }
}

class Pagestream {
  readonly #copy: CopyStream;
  readonly #target: PagestreamTarget;
  readonly #options: PagestreamOptions;

  constructor(copy: CopyStream, target: PagestreamTarget, options: PagestreamOptions) {
    this.#copy = copy;
    this.#target = target;
    this.#options = options;
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
    const reader = timeline.datadir.at(lsn, { task: "page-service", signal: this.#options.signal });
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
