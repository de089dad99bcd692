/**
 * The common records, taken without waiting and without an object a value: changes of pages that exist, visibility-map bits they
 * clear, and plain commits and aborts. Everything else, and whatever needs a look at storage first, is left to `WalIngest.ingest`,
 * which does the same for any record.
 *
 * Invariant: `take` does all of a record, or nothing and returns false.
 */
import type { WalEffect } from "../../postgres/effects/effect.ts";
import { decodeEffect } from "../../postgres/effects/effect.ts";
import type { ClearVisibilityMap } from "../../postgres/effects/heap-visibility.ts";
import type { XactFinish } from "../../postgres/effects/xact.ts";
import { RMGR } from "../../postgres/wal/constants.ts";
import type { WalRecord } from "../../postgres/wal/record.ts";
import { CLOG_XACTS_PER_PAGE } from "../../interpret/apply-neon-record.ts";
import { VM_FORK } from "../../keyspace/relation.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";
import type { CheckpointTracker } from "./checkpoint-tracker.ts";
import type { CommitTimestamps } from "./commit-timestamps.ts";
import { clearVisibilityMapOf } from "./truncate-and-visibility.ts";

const FIRST_NORMAL_XID = 3;

export class QuickIngest {
  readonly #modification: DatadirModification;
  readonly #checkpoint: CheckpointTracker;
  readonly #commitTs: CommitTimestamps;

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
    const effect = decodeEffect(record);
    if (!this.#knowsPages(record) || (effect !== null && !this.#knowsEffect(effect))) return false;
    const modification = this.#modification;
    modification.beginRecord(record.lsn, record.endLsn);
    if (effect !== null) this.#apply(effect);
    if (record.blockCount > 0) this.#putPages(record);
    this.#checkpoint.seenXid(record.xid);
    const checkpoint = this.#checkpoint.takeChanged();
    if (checkpoint !== null) modification.putCheckpoint(checkpoint);
    return true;
  }

  /** Whether every page the record names lies within its fork's known size, here. */
  #knowsPages(record: WalRecord): boolean {
    const { datadir } = this.#modification;
    // Images by themselves are stored as pages; of several shards each has its part.
    if (record.blockCount > 0 && (record.rmid === RMGR.XLOG || datadir.shard.count > 1)) return false;
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const size = datadir.sizes.latest(ref);
      // NO_RELATION is below any block too.
      if (size === undefined || ref.blockNumber >= size) return false;
    }
    return true;
  }

  #knowsEffect(effect: WalEffect): boolean {
    switch (effect.kind) {
      case "clear-visibility-map":
        return this.#modification.datadir.shard.count < 2 && this.#mapSize(effect) !== undefined;
      case "xact-commit":
      case "xact-abort":
        return this.#isPlain(effect) && this.#modification.slrus.hasPageNow("clog", clogPage(effect));
      default:
        return false;
    }
  }

  #isPlain(effect: XactFinish): boolean {
    return effect.subxids.length === 0 && effect.droppedRelations.length === 0 && !effect.prepared && effect.origin === null && !this.#commitTs.isActive;
  }

  #mapSize(effect: ClearVisibilityMap): number | undefined {
    return this.#modification.datadir.sizes.latest({ ...effect.relation, fork: VM_FORK });
  }

  #apply(effect: WalEffect): void {
    if (effect.kind === "clear-visibility-map") {
      clearVisibilityMapOf(this.#modification, effect, this.#mapSize(effect) ?? 0);
    } else if ((effect.kind === "xact-commit" || effect.kind === "xact-abort") && effect.xid >= FIRST_NORMAL_XID) {
      this.#checkpoint.seenXid(effect.xid);
      const xids = [effect.xid];
      const record = effect.kind === "xact-commit" ? ({ type: "clog-set-committed", xids, timestamp: effect.time } as const) : ({ type: "clog-set-aborted", xids } as const);
      this.#modification.slrus.putRecordNow("clog", clogPage(effect), record);
    }
  }

  /** The record is stored once for all its pages, or twice where it starts some anew and changes others. */
  #putPages(record: WalRecord): void {
    const { batch } = this.#modification;
    let initOffset = -1;
    let changeOffset = -1;
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const willInit = ref.willInit || (ref.hasImage && ref.applyImage);
      if (willInit && initOffset < 0) initOffset = batch.appendRecord(record, true);
      if (!willInit && changeOffset < 0) changeOffset = batch.appendRecord(record, false);
      batch.addPage(ref, ref.blockNumber, record.endLsn, willInit ? initOffset : changeOffset, willInit);
    }
  }
}

function clogPage(effect: XactFinish): number {
  return Math.floor(effect.xid / CLOG_XACTS_PER_PAGE);
}
