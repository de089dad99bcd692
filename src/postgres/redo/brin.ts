/**
 * Redo of BRIN index records. Bit 0x80 of info says that the first block starts as an empty page.
 *
 * | info | record | main data | blocks |
 * | --- | --- | --- | --- |
 * | 00 | create index | u32 pages a range, u16 version | 0 meta (init) |
 * | 10 | insert | u32 heap block, u32 pages a range, u16 offset number | 0 page (data: the tuple), 1 range map |
 * | 20 | update | u16 old offset number, at 4 as insert | 0 new page (data: the tuple), 1 range map, 2 old page |
 * | 30 | same-page update | u16 offset number | 0 page (data: the tuple) |
 * | 40 | range map extension | u32 block | 0 meta, 1 new range map page (init) |
 * | 50 | desummarize | u32 pages a range, u32 heap block, u16 offset number | 0 range map, 1 page |
 *
 * Special area, 8 bytes: at 4 u16 flags, at 6 u16 type (0xf091 meta, 0xf092 range map, 0xf093 regular).
 * Metapage, from byte 24: u32 magic, u32 version, u32 pages a range, u32 last range map block.
 * Range map page, from byte 24: 1360 tuple ids, one a range.
 *
 * Source: PostgreSQL access/brin/brin_xlog.c, brin_revmap.c, include/access/brin_xlog.h, brin_page.h.
 */
import { copyBytes } from "../../kit/copy.ts";
import { deleteItemKeepingNumbers, placeItemSpace, resizeItemSpace } from "../page/items.ts";
import { PAGE_HEADER_SIZE, PAGE_SIZE, initPage, setPageLower } from "../page/page-layout.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockData, blockRef, corruptRecord, mainData, unsupportedRedo } from "./handler.ts";
import { INVALID_BLOCK, setTupleId } from "./index-tuples.ts";

const OPERATION_MASK = 0x70;
const INIT_PAGE = 0x80;
const BRIN_OPAQUE_SIZE = 8;
const TYPE_META = 0xf091;
const TYPE_RANGE_MAP = 0xf092;
const TYPE_REGULAR = 0xf093;
const BRIN_META_MAGIC = 0xa810_9cfa;
const META_LAST_RANGE_MAP = PAGE_HEADER_SIZE + 12;
const META_END = PAGE_HEADER_SIZE + 16;
const TUPLE_ID_SIZE = 6;
export const RANGES_PER_MAP_PAGE = 1360;

function redoBrin(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & OPERATION_MASK) {
    case 0x00: return createIndex(page, view, record, blockId);
    case 0x10: return insert(page, view, record, blockId, mainData(record, 10));
    case 0x20: return update(page, view, record, blockId);
    case 0x30: return updateSamePage(page, view, record, blockId);
    case 0x40: return extendRangeMap(page, view, record, blockId);
    case 0x50: return desummarize(page, view, record, blockId);
    default: return unsupportedRedo(record, blockId);
  }
}

export const brinManager: RedoManager = {
  name: "brin",
  redo: redoBrin,
  supports: (info) => (info & OPERATION_MASK) <= 0x50,
};

/** A block the record kind does not have. */
function noSuchBlock(record: WalRecord, blockId: number): never {
  corruptRecord(`BRIN record ${(record.info & RMGR_INFO_MASK).toString(16)} with block ${blockId}`);
}

function initBrinPage(page: Uint8Array, view: DataView, type: number): void {
  initPage(page, view, BRIN_OPAQUE_SIZE);
  view.setUint16(PAGE_SIZE - 2, type, true);
}

function createIndex(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const at = mainData(record, 6);
  initBrinPage(page, view, TYPE_META);
  view.setUint32(PAGE_HEADER_SIZE, BRIN_META_MAGIC, true);
  view.setUint32(PAGE_HEADER_SIZE + 4, record.view.getUint16(at + 4, true), true);
  view.setUint32(PAGE_HEADER_SIZE + 8, record.view.getUint32(at, true), true);
  setPageLower(view, META_END);
}

/** Byte offset in its range map page of the entry for `heapBlock`. @throws StrataError corrupt `corrupt-record` */
export function rangeMapEntryAt(heapBlock: number, pagesPerRange: number): number {
  if (pagesPerRange === 0) corruptRecord("BRIN record with 0 pages a range");
  return PAGE_HEADER_SIZE + (Math.floor(heapBlock / pagesPerRange) % RANGES_PER_MAP_PAGE) * TUPLE_ID_SIZE;
}

/** The part insert and update share; `at` is where the insert's fields are in the record. */
function insert(page: Uint8Array, view: DataView, record: WalRecord, blockId: number, at: number): void {
  const offsetNumber = record.view.getUint16(at + 8, true);
  const ref = blockRef(record, 0);
  if (blockId === 0) {
    if ((record.info & INIT_PAGE) !== 0) initBrinPage(page, view, TYPE_REGULAR);
    const data = blockData(ref, 1);
    copyBytes(record.bytes, data, page, placeItemSpace(view, offsetNumber, ref.dataLength), ref.dataLength);
  } else if (blockId === 1) {
    const entry = rangeMapEntryAt(record.view.getUint32(at, true), record.view.getUint32(at + 4, true));
    setTupleId(view, entry, ref.blockNumber, offsetNumber);
  } else {
    noSuchBlock(record, blockId);
  }
}

function update(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 14);
  if (blockId === 2) return deleteItemKeepingNumbers(page, view, record.view.getUint16(at, true));
  insert(page, view, record, blockId, at + 4);
}

function updateSamePage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const ref = blockRef(record, 0);
  const data = blockData(ref, 1);
  const offsetNumber = record.view.getUint16(mainData(record, 2), true);
  copyBytes(record.bytes, data, page, resizeItemSpace(page, view, offsetNumber, ref.dataLength), ref.dataLength);
}

function extendRangeMap(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 4);
  if (blockId === 0) {
    view.setUint32(META_LAST_RANGE_MAP, record.view.getUint32(at, true), true);
    setPageLower(view, META_END);
  } else if (blockId === 1) {
    initBrinPage(page, view, TYPE_RANGE_MAP);
  } else {
    noSuchBlock(record, blockId);
  }
}

function desummarize(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 10);
  if (blockId === 0) {
    setTupleId(view, rangeMapEntryAt(record.view.getUint32(at + 4, true), record.view.getUint32(at, true)), INVALID_BLOCK, 0);
  } else if (blockId === 1) {
    deleteItemKeepingNumbers(page, view, record.view.getUint16(at + 8, true));
  } else {
    noSuchBlock(record, blockId);
  }
}
