/**
 * The common records, taken without waiting and without an object a value: changes of pages that exist or of a relation's next page,
 * visibility-map bits they clear, and plain commits and aborts. Everything else, and whatever needs a look at storage first, is left to
 * `WalIngest.ingest`, which does the same for any record.
 *
 * Invariant: `take` does all of a record, or nothing and returns false.
 */
import type { WalEffect } from "../../postgres/effects/effect.ts";
import { decodeEffect } from "../../postgres/effects/effect.ts";
import type { ClearVisibilityMap } from "../../postgres/effects/heap-visibility.ts";
import { plainXactEnd } from "../../postgres/effects/xact.ts";
import { RMGR } from "../../postgres/wal/constants.ts";
import type { BlockRef, WalRecord } from "../../postgres/wal/record.ts";
import { CLOG_XACTS_PER_PAGE } from "../../interpret/apply-neon-record.ts";
import type { Key } from "../../keyspace/key.ts";
import { VM_FORK } from "../../keyspace/relation.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";
import type { CheckpointTracker } from "./checkpoint-tracker.ts";
import type { CommitTimestamps } from "./commit-timestamps.ts";
import { clearVisibilityMapOf } from "./truncate-and-visibility.ts";

const FIRST_NORMAL_XID = 3;
/** Instead of a block's id. */
const NONE = -1;

export class QuickIngest {
  readonly #modification: DatadirModification;
  readonly #checkpoint: CheckpointTracker;
  readonly #commitTs: CommitTimestamps;
  /** Of the record looked at: the block that is its fork's next one, if one is. */
  #growing = NONE;
  /** The page of the commit log asked for last, its key, and until when that is known to exist. */
  #clogPage = NONE;
  #clogKey: Key | null = null;
  #clogDrops = 0;

  constructor(parts: { readonly modification: DatadirModification; readonly checkpoint: CheckpointTracker; readonly commitTs: CommitTimestamps }) {
    this.#modification = parts.modification;
    this.#checkpoint = parts.checkpoint;
    this.#commitTs = parts.commitTs;
  }

  /**
   * False: nothing was done, the record is one for `WalIngest.ingest`. Nothing put borrows the record.
   * @throws StrataError corrupt, from the decoders of effects; `lsn-order`
   */
  take(record: WalRecord): boolean {
    if (record.rmid === RMGR.XACT) return this.#takeXactEnd(record);
    const effect = decodeEffect(record);
    if (!this.#knowsPages(record) || (effect !== null && !this.#knowsEffect(effect))) return false;
    const modification = this.#modification;
    modification.beginRecord(record.lsn, record.endLsn);
    if (effect?.kind === "clear-visibility-map") clearVisibilityMapOf(modification, effect, this.#mapSize(effect) ?? 0);
    if (record.blockCount > 0) this.#putPages(record);
    this.#seenXid(record.xid);
    return true;
  }

  #seenXid(xid: number): void {
    this.#checkpoint.seenXid(xid);
    const checkpoint = this.#checkpoint.takeChanged();
    if (checkpoint !== null) this.#modification.putCheckpoint(checkpoint);
  }

  // ---- The ends of transactions

  #takeXactEnd(record: WalRecord): boolean {
    const kind = plainXactEnd(record);
    if (kind === null || record.blockCount > 0 || this.#commitTs.isActive || !this.#knowsClogPage(Math.floor(record.xid / CLOG_XACTS_PER_PAGE))) return false;
    const { xid } = record;
    const modification = this.#modification;
    modification.beginRecord(record.lsn, record.endLsn);
    if (xid >= FIRST_NORMAL_XID && this.#clogKey !== null) {
      modification.batch.addXactEnd(this.#clogKey, modification.lsn, xid, kind === "xact-commit" ? { bytes: record.bytes, at: record.mainDataOffset } : null);
    }
    this.#seenXid(xid);
    return true;
  }

  #knowsClogPage(page: number): boolean {
    const { slrus } = this.#modification;
    if (page === this.#clogPage && slrus.drops === this.#clogDrops) return true;
    if (!slrus.hasPageNow("clog", page)) return false;
    this.#clogPage = page;
    this.#clogKey = slrus.keyOfPageNow("clog", page);
    this.#clogDrops = slrus.drops;
    return true;
  }

  // ---- Pages

  /** Whether every page the record names lies within its fork's known size, or one of them is the next of its fork and written whole. */
  #knowsPages(record: WalRecord): boolean {
    this.#growing = NONE;
    if (record.blockCount === 0) return true;
    const { datadir } = this.#modification;
    // Images by themselves are stored as pages; of several shards each has its part.
    if (record.rmid === RMGR.XLOG || datadir.shard.count > 1) return false;
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const size = datadir.sizes.latest(ref);
      // NO_RELATION is below any block too.
      if (size === undefined || ref.blockNumber > size) return false;
      if (ref.blockNumber < size) continue;
      if (this.#growing !== NONE || !startsAnew(ref)) return false;
      this.#growing = id;
    }
    return true;
  }

  #knowsEffect(effect: WalEffect): boolean {
    return effect.kind === "clear-visibility-map" && this.#modification.datadir.shard.count < 2 && this.#mapSize(effect) !== undefined;
  }

  #mapSize(effect: ClearVisibilityMap): number | undefined {
    return this.#modification.datadir.sizes.latest({ ...effect.relation, fork: VM_FORK });
  }

  /** The record is stored once for all its pages, or twice where it starts some anew and changes others. */
  #putPages(record: WalRecord): void {
    const { batch, relations } = this.#modification;
    if (this.#growing !== NONE) {
      const { spcOid, dbOid, relNumber, fork, blockNumber } = record.blocks[this.#growing];
      relations.extendByOne({ spcOid, dbOid, relNumber, fork }, blockNumber);
    }
    let initOffset = NONE;
    let changeOffset = NONE;
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const willInit = startsAnew(ref);
      if (willInit && initOffset < 0) initOffset = batch.appendRecord(record, true);
      if (!willInit && changeOffset < 0) changeOffset = batch.appendRecord(record, false);
      batch.addPage(ref, ref.blockNumber, record.endLsn, willInit ? initOffset : changeOffset, willInit);
    }
  }
}

/** Whether redo of the block needs nothing of what the page was. */
function startsAnew(ref: BlockRef): boolean {
  return ref.willInit || (ref.hasImage && ref.applyImage);
}
