/**
 * One WAL record as one shard of a tenant sees it: values for the pages it changes there, and its effects on what is
 * not a page. Pure: what depends on the present state (relation sizes, directories) is left to ingest.
 *
 * Source: the peer's wal_decoder crate.
 */
import type { Lsn } from "../kit/lsn.ts";
import { relBlockKey } from "../keyspace/mapping.ts";
import { PAGE_SIZE, type RelTag, VM_FORK } from "../keyspace/relation.ts";
import { isKeyLocal, type ShardIdentity } from "../keyspace/shard.ts";
import { dataViewOf } from "../kit/bytes.ts";
import { decodeEffect, type WalEffect } from "../postgres/effects/effect.ts";
import type { ClearVisibilityMap } from "../postgres/effects/heap-visibility.ts";
import { pageIsNew, setPageLsn } from "../postgres/page/page-layout.ts";
import { restoreImage } from "../postgres/page/restore-image.ts";
import { RMGR } from "../postgres/wal/constants.ts";
import type { BlockRef, WalRecord } from "../postgres/wal/record.ts";
import { heapBlockToVmBlock } from "./apply-neon-record.ts";
import type { Value } from "./value.ts";

export interface InterpretedBlock {
  readonly rel: RelTag;
  readonly block: number;
  /** Null when another shard keeps the page: shard 0 still learns of it, for the relation's size. */
  readonly value: Value | null;
}

export interface InterpretedRecord {
  readonly startLsn: Lsn;
  /** Where the record's values are stored. */
  readonly endLsn: Lsn;
  readonly xid: number;
  readonly effect: WalEffect | null;
  readonly blocks: readonly InterpretedBlock[];
}

const NO_BLOCKS: readonly InterpretedBlock[] = [];

/**
 * Nothing in the result borrows the record.
 * @throws StrataError corrupt, from the decoders of effects and images
 */
export function interpretRecord(record: WalRecord, shard: ShardIdentity): InterpretedRecord {
  return {
    startLsn: record.lsn,
    endLsn: record.endLsn,
    xid: record.xid,
    effect: effectForShard(decodeEffect(record), shard),
    blocks: record.blockCount === 0 ? NO_BLOCKS : interpretBlocks(record, shard),
  };
}

/** Whether ingest must have committed everything before, because the record copies pages as they are. */
export function needsCommittedPages(record: InterpretedRecord): boolean {
  return record.effect?.kind === "dbase-create-copy";
}

function interpretBlocks(record: WalRecord, shard: ShardIdentity): InterpretedBlock[] {
  const blocks: InterpretedBlock[] = [];
  // One copy of the record serves all its pages.
  let copy: Uint8Array | null = null;
  for (let id = 0; id < record.blockCount; id++) {
    const ref = record.blocks[id];
    if (!ref.inUse) continue;
    const rel = { spcOid: ref.spcOid, dbOid: ref.dbOid, relNumber: ref.relNumber, fork: ref.fork };
    if (!isKeyLocal(relBlockKey(rel, ref.blockNumber), shard)) {
      if (shard.number === 0) blocks.push({ rel, block: ref.blockNumber, value: null });
    } else if (isWholePage(record, ref)) {
      blocks.push({ rel, block: ref.blockNumber, value: pageImage(record, ref) });
    } else {
      copy ??= record.bytes.slice(record.start, record.start + record.totalLength);
      const willInit = ref.willInit || (ref.hasImage && ref.applyImage);
      blocks.push({ rel, block: ref.blockNumber, value: { kind: "postgres", willInit, record: copy } });
    }
  }
  return blocks;
}

/** Records whose blocks are images and nothing else: stored as such, so that reading them takes no redo. */
function isWholePage(record: WalRecord, ref: BlockRef): boolean {
  return record.rmid === RMGR.XLOG && ref.hasImage && ref.applyImage;
}

function pageImage(record: WalRecord, ref: BlockRef): Value {
  const page = new Uint8Array(PAGE_SIZE);
  restoreImage(record, ref, page);
  const view = dataViewOf(page);
  if (!pageIsNew(view)) setPageLsn(view, record.endLsn);
  return { kind: "image", bytes: page };
}

function effectForShard(effect: WalEffect | null, shard: ShardIdentity): WalEffect | null {
  if (effect === null || shard.count < 2) return effect;
  if (effect.kind === "aux-file") return shard.number === 0 ? effect : null;
  if (effect.kind === "clear-visibility-map") return clearsForShard(effect, shard);
  return effect;
}

function clearsForShard(effect: ClearVisibilityMap, shard: ShardIdentity): ClearVisibilityMap | null {
  const here = (heapBlock: number | null): number | null => {
    if (heapBlock === null) return null;
    const key = relBlockKey({ ...effect.relation, fork: VM_FORK }, heapBlockToVmBlock(heapBlock));
    return isKeyLocal(key, shard) ? heapBlock : null;
  };
  const newHeapBlock = here(effect.newHeapBlock);
  const oldHeapBlock = here(effect.oldHeapBlock);
  return newHeapBlock === null && oldHeapBlock === null ? null : { ...effect, newHeapBlock, oldHeapBlock };
}
