/**
 * Heap records that clear bits of the visibility map without naming its page as a block.
 *
 * Each such record has a flags byte in its main data; where it stands:
 *
 * | record | manager, info | flags at | in the 14 and 15 patched by the peer | manager 134 (16, 17) |
 * | --- | --- | --- | --- | --- |
 * | insert | heap 0x00 | 2 | 2 | 0x00: 2 |
 * | delete | heap 0x10 | 7 | 13 | 0x10: 7 |
 * | update, HOT update | heap 0x20, 0x40 | 7 | 7 | 0x20, 0x30: 7 |
 * | lock | heap 0x60 | 7 | 13 | 0x40: 11 |
 * | multi-insert | heap2 0x50 | 0 | 0 | 0x50: 0 |
 * | lock updated | heap2 0x60 | 7 | 7 | – |
 *
 * Newer minor releases name the map's page as a block of the record; then redo of that block does it and there is no effect
 * here. Source: PostgreSQL access/heapam_xlog.h, access/heap/heapam.c (heap_redo, heap2_redo); the peer
 * (neondatabase/neon) libs/postgres_ffi.
 */
import { FORK_VISIBILITY_MAP, RMGR } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RelationRef, badEffect } from "./reading.ts";

const OPMASK = 0x70;

export const VISIBILITYMAP_ALL_VISIBLE = 1;
export const VISIBILITYMAP_ALL_FROZEN = 2;
export const VISIBILITYMAP_VALID_BITS = 3;

/** Bit 0 of the flags: all-visible cleared (the old page of an update), or all-frozen cleared for locks. */
const FIRST_CLEARED = 1;
/** Bit 1 of an update's flags: all-visible cleared on the new page. */
const UPDATE_NEW_CLEARED = 2;
const DELETE_CONTAINS_OLD = 2 | 4;
const OLD_TUPLE_HEADER_SIZE = 5;

const STOCK_DELETE_SIZE = 8;
const PATCHED_FLAGS_OFFSET = 13;
const PATCHED_DELETE_SIZE = 14;
const PATCHED_LOCK_SIZE = 14;

export interface ClearVisibilityMap {
  readonly kind: "clear-visibility-map";
  readonly relation: RelationRef;
  /** Heap block whose bits go: the page of an insert or delete, the new page of an update. */
  readonly newHeapBlock: number | null;
  /** The old page of an update, or the page of a lock. */
  readonly oldHeapBlock: number | null;
  /** The bits to clear: 3 all, 2 only all-frozen. */
  readonly flags: number;
}

type HeapOperation = "insert" | "delete" | "update" | "lock" | "multi-insert" | "lock-updated";

const OPERATIONS: Readonly<Record<number, Readonly<Record<number, HeapOperation>>>> = {
  [RMGR.HEAP]: { 0x00: "insert", 0x10: "delete", 0x20: "update", 0x40: "update", 0x60: "lock" },
  [RMGR.HEAP2]: { 0x50: "multi-insert", 0x60: "lock-updated" },
  [RMGR.NEON]: { 0x00: "insert", 0x10: "delete", 0x20: "update", 0x30: "update", 0x40: "lock", 0x50: "multi-insert" },
};

/** The same by one number, `operationNumber`: looked up for most records of a log. */
const OPERATION_OF: readonly (HeapOperation | undefined)[] = Array.from({ length: 256 * 8 }, (_, at) => OPERATIONS[at >> 3]?.[(at & 7) << 4]);

function operationNumber(record: WalRecord): number {
  return (record.rmid << 3) | ((record.info & OPMASK) >> 4);
}

/**
 * For a record of the managers heap, heap2 and 134: which bits it clears, or null. Allocates nothing when there are none.
 *
 * @throws StrataError corrupt `wal-bad-effect`
 */
export function decodeHeapVisibility(record: WalRecord): ClearVisibilityMap | null {
  const operation = OPERATION_OF[operationNumber(record)];
  if (operation === undefined) return null;
  const flags = readFlags(record, operation);
  if ((flags & (operation === "update" ? FIRST_CLEARED | UPDATE_NEW_CLEARED : FIRST_CLEARED)) === 0) return null;
  if (record.blockCount === 0 || !record.blocks[0].inUse) throw badEffect(record, "no heap block");
  for (let id = 0; id < record.blockCount; id++) {
    if (record.blocks[id].inUse && record.blocks[id].fork === FORK_VISIBILITY_MAP) return null;
  }
  const { spcOid, dbOid, relNumber, blockNumber } = record.blocks[0];
  const relation = { spcOid, dbOid, relNumber };
  if (operation === "update") {
    const oldBlock = record.blockCount > 1 && record.blocks[1].inUse ? record.blocks[1].blockNumber : blockNumber;
    return {
      kind: "clear-visibility-map",
      relation,
      newHeapBlock: (flags & UPDATE_NEW_CLEARED) !== 0 ? blockNumber : null,
      oldHeapBlock: (flags & FIRST_CLEARED) !== 0 ? oldBlock : null,
      flags: VISIBILITYMAP_VALID_BITS,
    };
  }
  if (operation === "lock" || operation === "lock-updated") {
    return { kind: "clear-visibility-map", relation, newHeapBlock: null, oldHeapBlock: blockNumber, flags: VISIBILITYMAP_ALL_FROZEN };
  }
  return { kind: "clear-visibility-map", relation, newHeapBlock: blockNumber, oldHeapBlock: null, flags: VISIBILITYMAP_VALID_BITS };
}

function readFlags(record: WalRecord, operation: HeapOperation): number {
  const offset = flagsOffset(record, operation);
  if (offset >= record.mainDataLength) throw badEffect(record, `main data of ${record.mainDataLength} bytes`);
  return record.bytes[record.mainDataOffset + offset];
}

function flagsOffset(record: WalRecord, operation: HeapOperation): number {
  const patchable = record.version <= 15;
  switch (operation) {
    case "insert":
      return 2;
    case "multi-insert":
      return 0;
    case "delete":
      return patchable && isPatchedDelete(record) ? PATCHED_FLAGS_OFFSET : 7;
    case "lock":
      if (record.rmid === RMGR.NEON) return 11;
      return patchable && record.mainDataLength === PATCHED_LOCK_SIZE ? PATCHED_FLAGS_OFFSET : 7;
    default:
      return 7;
  }
}

/**
 * Whether a delete of 14 or 15 has the peer's layout, six bytes longer. Its length alone does not tell, since the old tuple
 * may follow; but an old tuple (a header of five bytes and more) is there exactly if the flags say so, and that cannot hold
 * for both layouts unless padding looks like flags: then it is taken for stock.
 */
function isPatchedDelete(record: WalRecord): boolean {
  return !deleteFits(record, 7, STOCK_DELETE_SIZE) && deleteFits(record, PATCHED_FLAGS_OFFSET, PATCHED_DELETE_SIZE);
}

function deleteFits(record: WalRecord, flagsAt: number, size: number): boolean {
  const length = record.mainDataLength;
  if (length < size) return false;
  const hasOld = (record.bytes[record.mainDataOffset + flagsAt] & DELETE_CONTAINS_OLD) !== 0;
  return hasOld ? length > size + OLD_TUPLE_HEADER_SIZE : length === size;
}
