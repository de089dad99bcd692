/**
 * How far the timeline's pageservers are, from the feedback that safekeepers pass on, and how far commits may get ahead of them.
 * Pure.
 *
 * Of each shard the newest word counts: a safekeeper that the pageserver has left repeats its last one for ever. The timeline is
 * where its last shard is; shard 0 alone knows its size.
 *
 * Source: the peer (neondatabase/neon) pgxn/neon/walproposer_pg.c (backpressure_lag_impl), walproposer.c
 * (RecordAppendResponse); the limits are its GUCs max_replication_write_lag, max_replication_flush_lag, max_replication_apply_lag.
 */
import type { Lsn } from "../../kit/lsn.ts";
import type { PageserverFeedback } from "../../safekeeper/api/pageserver-feedback.ts";

/** Bytes of WAL; null: no limit. */
export interface LagLimits {
  /** Behind what a pageserver has received. */
  readonly writeBytes: number | null;
  /** Behind what it has on disk. */
  readonly flushBytes: number | null;
  /** Behind what it has in object storage. */
  readonly applyBytes: number | null;
}

export const NO_LAG_LIMITS: LagLimits = { writeBytes: null, flushBytes: null, applyBytes: null };

/** A tenant has at most so many shards; a number beyond is a mistake and is not kept. */
const SHARDS_MAX = 256;

export class PageserverPositions {
  readonly #newest = new Map<number, PageserverFeedback>();

  /** False when it is no news. */
  heard(feedback: PageserverFeedback): boolean {
    const known = this.#newest.get(feedback.shardNumber);
    if (known === undefined ? this.#newest.size >= SHARDS_MAX || feedback.replyTimestamp === 0n : feedback.replyTimestamp <= known.replyTimestamp) return false;
    this.#newest.set(feedback.shardNumber, feedback);
    return true;
  }

  get known(): boolean {
    return this.#newest.size > 0;
  }

  /** 0 while nothing is known. */
  get lastReceivedLsn(): Lsn {
    return this.#least((feedback) => feedback.lastReceivedLsn);
  }
  get diskConsistentLsn(): Lsn {
    return this.#least((feedback) => feedback.diskConsistentLsn);
  }
  get remoteConsistentLsn(): Lsn {
    return this.#least((feedback) => feedback.remoteConsistentLsn);
  }

  /** Logical size of the timeline; null while it is not known. */
  get sizeBytes(): number | null {
    return this.#newest.get(0)?.currentTimelineSizeBytes ?? null;
  }

  /** How far commits may be acknowledged; infinite without limits, and while no pageserver has spoken. */
  ceiling(limits: LagLimits): Lsn {
    const bounds = [[this.lastReceivedLsn, limits.writeBytes], [this.diskConsistentLsn, limits.flushBytes], [this.remoteConsistentLsn, limits.applyBytes]] as const;
    return bounds.reduce((lowest, [lsn, bytes]) => (lsn === 0 || bytes === null ? lowest : Math.min(lowest, lsn + bytes)), Number.POSITIVE_INFINITY);
  }

  #least(of: (feedback: PageserverFeedback) => Lsn): Lsn {
    let least = Number.POSITIVE_INFINITY;
    for (const feedback of this.#newest.values()) least = Math.min(least, of(feedback));
    return least === Number.POSITIVE_INFINITY ? 0 : least;
  }
}
