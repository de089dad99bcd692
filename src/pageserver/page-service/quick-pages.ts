/**
 * Page requests answered at once: those whose LSN has come, whose timeline is ready and whose page is in the page cache, or
 * can be made of layers without waiting. From the received bytes to the socket there is no promise, and no object for a
 * request: answers are put together in one buffer, which goes out in one write. What is not so simple, or wrong, is left to
 * the ordinary way (pagestream.ts), which begins anew with that request: so errors are told in one place.
 */
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { LSN_INVALID } from "../../kit/lsn.ts";
import { relBlockKey } from "../../keyspace/mapping.ts";
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import type { Clock } from "../../platform/clock.ts";
import { COPY_DATA_HEADER_SIZE, putCopyDataHeader } from "../../wire/message-writer.ts";
import type { ServedCopyStream, Span } from "../../wire/pg-session.ts";
import { GetPageFields, pageHeaderSize, type PagestreamVersion, putPageHeader } from "../api/pagestream.ts";
import type { PageTarget } from "../timeline/timeline-store.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import type { BatchBreak, TimelineCounts } from "../counts/timeline-counts.ts";
import { effectiveLsnNow } from "./effective-lsn.ts";
import type { ServedTimeline, TimelineFinder } from "./served-timeline.ts";

/** Answers in one write. */
const ANSWERS_MAX = 32;
/** Making pages of layers may take long: then others have their turn. */
const SLICE_MS = 2;
/** Answers between two looks at the clock, all of them pages of the cache. */
const CLOCK_EVERY = 8;
const HEADER_MAX_BYTES = COPY_DATA_HEADER_SIZE + pageHeaderSize(3);
/** Of all connections: it is filled and sent without waiting in between. */
const output = new Uint8Array(ANSWERS_MAX * (HEADER_MAX_BYTES + PAGE_SIZE));
const target: PageTarget = { bytes: output, at: 0 };
const fields = new GetPageFields();

export interface QuickPagesOptions {
  readonly target: { readonly tenantId: TenantId; readonly timelineId: TimelineId; readonly version: PagestreamVersion };
  readonly finder: TimelineFinder;
  readonly counts: StorageCounts;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Why it stopped: nothing is here any more, the next request is not for here, or it is time for others. */
export type QuickOutcome = "empty" | "stuck" | "slice";

export class QuickPages {
  readonly #copy: ServedCopyStream;
  readonly #options: QuickPagesOptions;
  readonly #headerSize: number;
  #timeline: ServedTimeline | null = null;
  #served: TimelineCounts | null = null;
  /** Pages of the batch under way, of a tenant whose shards are here side by side. */
  readonly #ofShards = new Map<TimelineCounts, number>();

  constructor(copy: ServedCopyStream, options: QuickPagesOptions) {
    this.#copy = copy;
    this.#options = options;
    this.#headerSize = pageHeaderSize(options.target.version);
  }

  /** Answers what has arrived, as far as it can and for a short while. */
  answer(): QuickOutcome {
    const { clock, signal } = this.#options;
    const startMs = clock.monotonicMs();
    this.#timeline = null;
    let batchMs = startMs;
    for (;;) {
      if (signal.aborted || this.#copy.bufferedBytes > 0) return "stuck";
      const outcome = this.#answerBatch(batchMs);
      if (outcome !== null) return outcome;
      batchMs = clock.monotonicMs();
      if (batchMs - startMs >= SLICE_MS) return "slice";
    }
  }

  /** Null: the output was full, there may be more. */
  #answerBatch(startMs: number): QuickOutcome | null {
    const { clock, counts: { reads } } = this.#options;
    const madeBefore = reads.pagesMade;
    let count = 0;
    let why: BatchBreak = "executor_steal";
    target.at = 0;
    try {
      while (count < ANSWERS_MAX) {
        const message = this.#copy.peek();
        if (message === null) return "empty";
        if (!this.#put(message)) {
          why = "non_batchable_request";
          return "stuck";
        }
        this.#copy.skip();
        count++;
        if (count % CLOCK_EVERY === 0 && clock.monotonicMs() - startMs >= SLICE_MS) return null;
      }
      why = "batch_full";
      return null;
    } finally {
      // What came before a message that cannot be read is answered all the same.
      if (count > 0) {
        const writeMs = clock.monotonicMs();
        this.#copy.writeFramed(output.subarray(0, target.at));
        reads.pagesFound(count - (reads.pagesMade - madeBefore));
        this.#tell(count, why, { executionMs: writeMs - startMs, flushMs: clock.monotonicMs() - writeMs });
      }
    }
  }

  #tell(pages: number, why: BatchBreak, took: { readonly executionMs: number; readonly flushMs: number }): void {
    const { counts } = this.#options;
    const only = this.#served;
    if (only === null) return;
    counts.batchEnded(only, why);
    if (this.#ofShards.size === 0) return counts.answeredQuickly(only, pages, took);
    for (const [one, some] of this.#ofShards) counts.answeredQuickly(one, some, { ...took, flushMs: (took.flushMs * some) / pages });
    this.#ofShards.clear();
  }

  /** Who was asked last. */
  get served(): TimelineCounts | null {
    return this.#served;
  }

  /** Where the page is to be looked for; of an unsharded tenant that is always the same. */
  #timelineOf(): ServedTimeline | null {
    const before = this.#timeline;
    if (before !== null && before.datadir.shard.count < 2) return before;
    this.#timeline = this.#options.finder.findNow(this.#options.target, { kind: "holds", key: relBlockKey(fields.rel, fields.block) });
    return this.#timeline;
  }

  /** Appends the answer to a message; false when there is none to be had here. */
  #put(message: Span): boolean {
    if (!fields.decode(message, this.#options.target.version)) return false;
    const timeline = this.#timelineOf();
    // One that is throttled waits in the ordinary way.
    if (timeline === null || timeline.throttle !== null) return false;
    const lsn = effectiveLsnNow(timeline, fields.requestLsn, fields.notModifiedSince);
    if (lsn === LSN_INVALID) return false;
    const { store, sizes } = timeline.datadir;
    const blocks = sizes.get(fields.rel, lsn);
    // Past the end (or not known, or none) is not for here.
    if (blocks === undefined || fields.block >= blocks) return false;
    const start = target.at;
    const headerSize = this.#headerSize;
    target.at = start + COPY_DATA_HEADER_SIZE + headerSize;
    if (!store.readPageNow(relBlockKey(fields.rel, fields.block), lsn, target)) {
      target.at = start;
      return false;
    }
    const end = target.at + PAGE_SIZE;
    putCopyDataHeader(output, start, headerSize + PAGE_SIZE);
    target.at = start + COPY_DATA_HEADER_SIZE;
    putPageHeader(target, message, headerSize);
    target.at = end;
    this.#served = timeline.counts;
    if (timeline.datadir.shard.count > 1) this.#ofShards.set(timeline.counts, (this.#ofShards.get(timeline.counts) ?? 0) + 1);
    return true;
  }
}
