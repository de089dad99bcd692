/**
 * Redo of GiST index records.
 *
 * | info | record | main data | blocks |
 * | --- | --- | --- | --- |
 * | 00 | page update | u16 deleted, u16 inserted | 0 page (data: offset numbers, tuples), 1 left half of the split this finishes |
 * | 10 | delete | u32 horizon, u16 count, 16 on: u8; offset numbers from byte 6 (14–15) or 8 | 0 leaf |
 * | 20 | page reuse | conflict information only | – |
 * | 30 | page split | u32 right link, u64 NSN, u8 was leaf, at 18 u16 pages, u8 mark follow-right | 0 left half of the split this finishes, 1… pages (init; data: i32 count, tuples) |
 * | 60 | page delete | u64 xid, u16 downlink's offset number | 0 leaf, 1 parent |
 * | 70 | assign LSN | – | – |
 *
 * Special area, 16 bytes:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u32 high, u32 low | NSN: LSN of the page's last split |
 * | 8 | u32 | right neighbour's block |
 * | 12 | u16 | flags: 1 leaf, 2 deleted, 4 tuples deleted, 8 right neighbour has no downlink yet, 0x10 has garbage |
 * | 14 | u16 | 0xff81 |
 *
 * Source: PostgreSQL access/gist/gistxlog.c, include/access/gistxlog.h, include/access/gist.h.
 */
import { copyBytes } from "../../kit/copy.ts";
import { lsnHigh, lsnLow } from "../../kit/lsn.ts";
import { deleteItem, deleteItems, resizeItemSpace } from "../page/items.ts";
import { PAGE_HEADER_SIZE, PAGE_SIZE, initPage, setPageLower, specialOffset } from "../page/page-layout.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockData, blockDataLength, blockRef, corruptRecord, mainData, unsupportedRedo } from "./handler.ts";
import { INVALID_BLOCK, appendTuples, indexTupleSize, mainDataEnd, offsetNumbers, readOffsetNumbers } from "./index-tuples.ts";

const GIST_OPAQUE_SIZE = 16;
const OPAQUE_RIGHT_LINK = 8;
const OPAQUE_FLAGS = 12;
const OPAQUE_PAGE_ID = 14;
const GIST_PAGE_ID = 0xff81;
const GIST_ROOT_BLOCK = 0;

const F_LEAF = 1;
const F_DELETED = 2;
const F_TUPLES_DELETED = 4;
const F_FOLLOW_RIGHT = 8;
const F_HAS_GARBAGE = 0x10;

/** Offsets into a page split's main data. */
const SPLIT = { RIGHT_LINK: 0, NSN: 8, WAS_LEAF: 16, PAGES: 18, MARK_FOLLOW_RIGHT: 20, SIZE: 21 } as const;

function redoGist(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & RMGR_INFO_MASK) {
    case 0x00: return pageUpdate(page, view, record, blockId);
    case 0x10: return deleteTuples(page, view, record, blockId);
    case 0x30: return pageSplit(page, view, record, blockId);
    case 0x60: return pageDelete(page, view, record, blockId);
    default: return unsupportedRedo(record, blockId);
  }
}

/** The left half of a finished split gets its NSN, the record's own LSN, only after its image was taken. */
function afterImage(_page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const kind = record.info & RMGR_INFO_MASK;
  if ((kind === 0x00 && blockId === 1) || (kind === 0x30 && blockId === 0)) finishSplitOf(view, record);
}

export const gistManager: RedoManager = {
  name: "gist",
  redo: redoGist,
  afterImage,
  supports: (info) => {
    const kind = info & RMGR_INFO_MASK;
    return kind === 0x00 || kind === 0x10 || kind === 0x30 || kind === 0x60;
  },
};

/** A block the record kind does not have. */
function noSuchBlock(record: WalRecord, blockId: number): never {
  corruptRecord(`GiST record ${(record.info & RMGR_INFO_MASK).toString(16)} with block ${blockId}`);
}

function opaqueOffset(view: DataView): number {
  return specialOffset(view, GIST_OPAQUE_SIZE);
}

function changeFlags(view: DataView, set: number, clear: number): void {
  const at = opaqueOffset(view) + OPAQUE_FLAGS;
  view.setUint16(at, (view.getUint16(at, true) & ~clear) | set, true);
}

/** The downlink of the right half is in place now. */
function finishSplitOf(view: DataView, record: WalRecord): void {
  const at = opaqueOffset(view);
  view.setUint32(at, lsnHigh(record.endLsn), true);
  view.setUint32(at + 4, lsnLow(record.endLsn), true);
  changeFlags(view, 0, F_FOLLOW_RIGHT);
}

function pageUpdate(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const main = mainData(record, 4);
  if (blockId === 1) return finishSplitOf(view, record);
  if (blockId !== 0) noSuchBlock(record, blockId);
  const ref = blockRef(record, 0);
  const end = ref.dataOffset + blockDataLength(ref);
  const deleted = record.view.getUint16(main, true);
  const inserted = record.view.getUint16(main + 2, true);
  if (deleted === 1 && inserted === 1) return replaceTuple(page, view, record, end);
  let at = ref.dataOffset;
  if (deleted > 0) {
    at = readOffsetNumbers(record, at, deleted, end);
    deleteItems(page, view, offsetNumbers, deleted);
    const flagsAt = opaqueOffset(view) + OPAQUE_FLAGS;
    const flags = view.getUint16(flagsAt, true);
    if ((flags & F_LEAF) !== 0) view.setUint16(flagsAt, flags | F_TUPLES_DELETED, true);
  }
  const count = appendTuples(page, view, record, at, end);
  if (count !== inserted) corruptRecord(`${count} tuples for a GiST page, ${inserted} announced`);
}

/** One tuple for one: PostgreSQL overwrites in place then, which leaves the tuples in another order. */
function replaceTuple(page: Uint8Array, view: DataView, record: WalRecord, end: number): void {
  const at = blockData(blockRef(record, 0), 2);
  const size = indexTupleSize(record, at + 2, end);
  if (at + 2 + size !== end) corruptRecord("bytes after the only tuple of a GiST update");
  copyBytes(record.bytes, at + 2, page, resizeItemSpace(page, view, record.view.getUint16(at, true), size), size);
}

function deleteTuples(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const headerSize = record.version < 16 ? 6 : 8;
  const at = mainData(record, headerSize);
  const count = record.view.getUint16(at + 4, true);
  readOffsetNumbers(record, at + headerSize, count, mainDataEnd(record));
  deleteItems(page, view, offsetNumbers, count);
  // PostgreSQL's redo sets "tuples deleted" here, its primary does not, and nothing reads the flag: we follow the primary.
  changeFlags(view, 0, F_HAS_GARBAGE);
}

function pageSplit(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const main = mainData(record, SPLIT.SIZE);
  if (blockId === 0) return finishSplitOf(view, record);
  const pages = record.view.getUint16(main + SPLIT.PAGES, true);
  if (blockId > pages) noSuchBlock(record, blockId);
  const ref = blockRef(record, blockId);
  const data = blockData(ref, 4);
  const isRoot = ref.blockNumber === GIST_ROOT_BLOCK;
  const isLast = blockId === pages;
  initGistPage(page, view, record.bytes[main + SPLIT.WAS_LEAF] !== 0 && !isRoot ? F_LEAF : 0);
  const count = appendTuples(page, view, record, data + 4, data + ref.dataLength);
  if (count !== record.view.getInt32(data, true)) corruptRecord(`${count} tuples for a half of a GiST page, ${record.view.getInt32(data, true)} announced`);
  const opaque = opaqueOffset(view);
  view.setUint32(opaque, record.view.getUint32(main + SPLIT.NSN + 4, true), true);
  view.setUint32(opaque + 4, record.view.getUint32(main + SPLIT.NSN, true), true);
  if (isRoot) return;
  const rightLink = isLast ? record.view.getUint32(main + SPLIT.RIGHT_LINK, true) : blockRef(record, blockId + 1).blockNumber;
  view.setUint32(opaque + OPAQUE_RIGHT_LINK, rightLink, true);
  const rootSplit = blockRef(record, 1).blockNumber === GIST_ROOT_BLOCK;
  if (!isLast && !rootSplit && record.bytes[main + SPLIT.MARK_FOLLOW_RIGHT] !== 0) changeFlags(view, F_FOLLOW_RIGHT, 0);
}

function initGistPage(page: Uint8Array, view: DataView, flags: number): void {
  initPage(page, view, GIST_OPAQUE_SIZE);
  const at = PAGE_SIZE - GIST_OPAQUE_SIZE;
  view.setUint32(at + OPAQUE_RIGHT_LINK, INVALID_BLOCK, true);
  view.setUint16(at + OPAQUE_FLAGS, flags, true);
  view.setUint16(at + OPAQUE_PAGE_ID, GIST_PAGE_ID, true);
}

function pageDelete(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 10);
  if (blockId === 0) {
    changeFlags(view, F_DELETED, 0);
    setPageLower(view, PAGE_HEADER_SIZE + 8);
    copyBytes(record.bytes, at, page, PAGE_HEADER_SIZE, 8);
  } else if (blockId === 1) {
    deleteItem(page, view, record.view.getUint16(at + 8, true));
  } else {
    noSuchBlock(record, blockId);
  }
}
