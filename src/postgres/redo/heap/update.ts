/**
 * Update, within a page or across two.
 *
 * | offset in main data | type | field |
 * | --- | --- | --- |
 * | 0 | u32 | old xmax |
 * | 4 | u16 | old offset number |
 * | 6 | u8 | old infobits |
 * | 7 | u8 | flags: 1 old page's all-visible cleared, 2 new page's, 32 prefix from the old tuple, 64 suffix |
 * | 8 | u32 | new xmax (command id first where records have one) |
 * | 12 | u16 | new offset number |
 *
 * Block 0 data, the new page: u16 prefix length and u16 suffix length as flagged, tuple header, null bitmap, the bytes
 * between prefix and suffix. Block 1: the old page, when it is another.
 *
 * Source: PostgreSQL access/heap/heapam.c heap_xlog_update.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { placeItemSpace } from "../../page/items.ts";
import { PD_ALL_VISIBLE, clearPageFlag, initPage, lineLength, lineWord } from "../../page/page-layout.ts";
import { FORK_MAIN } from "../../wal/constants.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord, hasBlock, mainData, unsupportedRedo } from "../handler.ts";
import { clearComboId, writeTupleHeader } from "./insert.ts";
import {
  ALL_VISIBLE_CLEARED, HEAP_INIT_PAGE, type HeapDialect, NEW_ALL_VISIBLE_CLEARED, TUPLE_HEADER_SIZE, T_HOFF, T_XMAX, commandIdAt,
  replaceXmaxBits, setCommandId, setCtid, setHotUpdated, setPrunable, tupleOffset,
} from "./layout.ts";
import { VISIBILITY_BITS, clearIfCovered } from "./visibility-map.ts";

const PREFIX_FROM_OLD = 32;
const SUFFIX_FROM_OLD = 64;

/** Whether the old tuple lies on another page, block 1. */
function isAcrossPages(record: WalRecord): boolean {
  return hasBlock(record, 1) && record.blocks[1].fork === FORK_MAIN;
}

function redoOldTuple(view: DataView, record: WalRecord, dialect: HeapDialect, isHot: boolean): void {
  const main = record.mainDataOffset;
  const tuple = tupleOffset(view, record.view.getUint16(main + 4, true));
  replaceXmaxBits(view, tuple, record.view.getUint8(main + 6), dialect.comboInInfobits);
  setHotUpdated(view, tuple, isHot);
  view.setUint32(tuple + T_XMAX, record.view.getUint32(main, true), true);
  setCommandId(view, tuple, commandIdAt(record, main, dialect.updateCid), dialect.comboInInfobits);
  setCtid(view, tuple, blockRef(record, 0).blockNumber, record.view.getUint16(main + dialect.updateNewOffset, true));
  setPrunable(view, record.xid);
  if ((record.view.getUint8(main + 7) & ALL_VISIBLE_CLEARED) !== 0) clearPageFlag(view, PD_ALL_VISIBLE);
}

/** Lengths of the parts of the new tuple that are copied from the old one. */
const shared = { prefix: 0, suffix: 0, headerAt: 0 };

function readSharedLengths(record: WalRecord, flags: number, from: number, end: number): void {
  let at = from;
  shared.prefix = 0;
  shared.suffix = 0;
  if ((flags & PREFIX_FROM_OLD) !== 0 && at + 2 <= end) {
    shared.prefix = record.view.getUint16(at, true);
    at += 2;
  }
  if ((flags & SUFFIX_FROM_OLD) !== 0 && at + 2 <= end) {
    shared.suffix = record.view.getUint16(at, true);
    at += 2;
  }
  shared.headerAt = at;
}

/** Writes the new tuple's bytes after its fixed header: bitmap, prefix, the record's own, suffix. */
function composeTuple(page: Uint8Array, view: DataView, record: WalRecord, target: number, from: number, size: number): void {
  const { prefix, suffix } = shared;
  if (prefix === 0 && suffix === 0) {
    copyBytes(record.bytes, from, page, target, size);
    return;
  }
  const oldNumber = record.view.getUint16(record.mainDataOffset + 4, true);
  const old = tupleOffset(view, oldNumber);
  const oldLength = lineLength(lineWord(view, oldNumber));
  const oldHoff = view.getUint8(old + T_HOFF);
  if (oldHoff + prefix > oldLength || suffix > oldLength) corruptRecord(`prefix ${prefix} and suffix ${suffix} of a tuple of ${oldLength} bytes`);
  let bitmap = 0;
  if (prefix > 0) {
    bitmap = view.getUint8(target - TUPLE_HEADER_SIZE + T_HOFF) - TUPLE_HEADER_SIZE;
    if (bitmap < 0 || bitmap > size) corruptRecord(`a null bitmap of ${bitmap} bytes, ${size} bytes logged`);
    copyBytes(record.bytes, from, page, target, bitmap);
    page.copyWithin(target + bitmap, old + oldHoff, old + oldHoff + prefix);
  }
  copyBytes(record.bytes, from + bitmap, page, target + bitmap + prefix, size - bitmap);
  page.copyWithin(target + prefix + size, old + oldLength - suffix, old + oldLength);
}

function redoNewTuple(page: Uint8Array, view: DataView, record: WalRecord, dialect: HeapDialect, acrossPages: boolean): void {
  const main = record.mainDataOffset;
  const flags = record.view.getUint8(main + 7);
  const offsetNumber = record.view.getUint16(main + dialect.updateNewOffset, true);
  const ref = blockRef(record, 0);
  const start = blockData(ref, 0);
  const end = start + blockDataLength(ref);
  readSharedLengths(record, flags, start, end);
  if (acrossPages && shared.prefix + shared.suffix > 0) corruptRecord("an update across pages cannot share bytes with the old tuple");
  const header = shared.headerAt;
  const from = header + dialect.headerSize;
  const size = end - from;
  if (size < 0) corruptRecord("a tuple header cut short");
  const tuple = placeItemSpace(view, offsetNumber, TUPLE_HEADER_SIZE + size + shared.prefix + shared.suffix);
  writeTupleHeader(view, tuple, record, header, dialect.headerHoff, commandIdAt(record, header, dialect.headerCid));
  if (dialect.headerCid < 0) clearComboId(view, tuple);
  view.setUint32(tuple + T_XMAX, record.view.getUint32(main + dialect.updateNewXmax, true), true);
  setCtid(view, tuple, ref.blockNumber, offsetNumber);
  composeTuple(page, view, record, tuple + TUPLE_HEADER_SIZE, from, size);
  if ((flags & NEW_ALL_VISIBLE_CLEARED) !== 0) clearPageFlag(view, PD_ALL_VISIBLE);
}

export function redoUpdate(page: Uint8Array, view: DataView, record: WalRecord, blockId: number, dialect: HeapDialect, isHot: boolean): void {
  mainData(record, dialect.updateSize);
  const acrossPages = isAcrossPages(record);
  if (blockId === 1 && acrossPages) {
    redoOldTuple(view, record, dialect, isHot);
    return;
  }
  if (blockId !== 0) unsupportedRedo(record, blockId);
  if (!acrossPages) redoOldTuple(view, record, dialect, isHot);
  else if ((record.info & HEAP_INIT_PAGE) !== 0) initPage(page, view, 0);
  redoNewTuple(page, view, record, dialect, acrossPages);
}

/** A page of the visibility map registered with an update: the bits of the old page, the new page, or both. */
export function redoUpdateVisibility(page: Uint8Array, record: WalRecord, blockId: number): void {
  const flags = record.view.getUint8(mainData(record, 8) + 7);
  const mapBlock = record.blocks[blockId].blockNumber;
  const newBlock = blockRef(record, 0).blockNumber;
  const oldBlock = isAcrossPages(record) ? record.blocks[1].blockNumber : newBlock;
  if ((flags & ALL_VISIBLE_CLEARED) !== 0) clearIfCovered(page, mapBlock, oldBlock, VISIBILITY_BITS);
  if ((flags & NEW_ALL_VISIBLE_CLEARED) !== 0) clearIfCovered(page, mapBlock, newBlock, VISIBILITY_BITS);
}
