/**
 * B-tree pages and index tuples, and the pieces of redo the record kinds share.
 *
 * Special area (16 bytes): 0 u32 left sibling · 4 u32 right sibling · 8 u32 level · 12 u16 flags · 14 u16 cycle id.
 * Index tuple: 0 u16 block high · 2 u16 block low · 4 u16 offset number · 6 u16 info (13 bits size, 0x2000 alternative
 * item pointer), then key data. In a posting list tuple the block number is where its item pointers start and the
 * offset number is their count | 0x2000.
 *
 * Source: PostgreSQL access/nbtree.h, access/itup.h, access/nbtree/nbtxlog.c.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { insertItemSpace } from "../../page/items.ts";
import { PAGE_SIZE, initPage, pageSpecial, setPageLower, specialOffset } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord } from "../handler.ts";

export const OPAQUE_SIZE = 16;
export const OPAQUE_PREV = 0;
export const OPAQUE_NEXT = 4;
export const OPAQUE_LEVEL = 8;
export const OPAQUE_FLAGS = 12;
export const OPAQUE_CYCLE_ID = 14;

export const BTP_LEAF = 1;
export const BTP_ROOT = 2;
export const BTP_DELETED = 4;
export const BTP_META = 8;
export const BTP_HALF_DEAD = 16;
export const BTP_SPLIT_END = 32;
export const BTP_HAS_GARBAGE = 64;
export const BTP_INCOMPLETE_SPLIT = 128;
export const BTP_HAS_FULLXID = 256;

export const TUPLE_HEADER_SIZE = 8;
export const TUPLE_SIZE_MASK = 0x1fff;
export const TUPLE_ALT_TID = 0x2000;

const MAGIC = 0x053162;
const META_AT = 24;
const META_SIZE = 48;
const META_RECORD_SIZE = 25;
/** Each tuple takes at least its header and a line pointer. */
const MAX_TUPLES = PAGE_SIZE / TUPLE_HEADER_SIZE;
const restoredAt = new Uint16Array(MAX_TUPLES);

/** Empties the page and gives it a B-tree special area. @returns the special area's offset */
export function initBtreePage(page: Uint8Array, view: DataView): number {
  initPage(page, view, OPAQUE_SIZE);
  return pageSpecial(view);
}

/** Clears `flag` in the special area. @throws StrataError corrupt `corrupt-page` */
export function clearOpaqueFlag(view: DataView, flag: number): void {
  const at = specialOffset(view, OPAQUE_SIZE) + OPAQUE_FLAGS;
  view.setUint16(at, view.getUint16(at, true) & ~flag, true);
}

/** 1 on a rightmost page, 2 where a high key precedes the data (P_FIRSTDATAKEY). */
export function firstDataKey(view: DataView): number {
  return view.getUint32(specialOffset(view, OPAQUE_SIZE) + OPAQUE_NEXT, true) === 0 ? 1 : 2;
}

/** MAXALIGNed size of the index tuple at `at` of the record, checked to end by `end`. @throws StrataError corrupt `corrupt-record` */
export function recordTupleSize(record: WalRecord, at: number, end: number): number {
  if (at + TUPLE_HEADER_SIZE > end) corruptRecord("an index tuple header cut short");
  const size = ((record.view.getUint16(at + 6, true) & TUPLE_SIZE_MASK) + 7) & ~7;
  if (size < TUPLE_HEADER_SIZE || at + size > end) corruptRecord(`an index tuple of ${size} bytes, ${end - at} left`);
  return size;
}

/** Puts back all tuples of a page from block data, where the last one comes first (_bt_restore_page). */
export function restoreTuples(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const ref = blockRef(record, blockId);
  const start = blockData(ref, 0);
  const end = start + blockDataLength(ref);
  if (end - start > PAGE_SIZE) corruptRecord(`tuples of ${end - start} bytes for one page`);
  let count = 0;
  for (let at = start; at < end; count++) {
    restoredAt[count] = at - start;
    at += recordTupleSize(record, at, end);
  }
  for (let i = count - 1; i >= 0; i--) {
    const at = start + restoredAt[i];
    const size = (i === count - 1 ? end : start + restoredAt[i + 1]) - at;
    copyBytes(record.bytes, at, page, insertItemSpace(page, view, count - i, size), size);
  }
}

/**
 * Rebuilds the meta page from block data (_bt_restore_meta): 0 u32 version · 4 root · 8 level · 12 fast root · 16 fast
 * level · 20 deleted pages at the last cleanup · 24 bool all columns equal by image.
 */
export function restoreMeta(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const from = blockData(blockRef(record, blockId), META_RECORD_SIZE);
  const special = initBtreePage(page, view);
  view.setUint32(META_AT, MAGIC, true);
  copyBytes(record.bytes, from, page, META_AT + 4, 24);
  view.setFloat64(META_AT + 32, -1, true);
  page[META_AT + 40] = record.bytes[from + 24];
  view.setUint16(special + OPAQUE_FLAGS, BTP_META, true);
  setPageLower(view, META_AT + META_SIZE);
}
