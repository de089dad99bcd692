/**
 * Redo of hash index records.
 *
 * | info | record | main data | blocks |
 * | --- | --- | --- | --- |
 * | 00 | init meta page | f64 tuples, u32 procedure, u16 fill factor | 0 meta (init) |
 * | 10 | init bitmap page | u16 bitmap bytes | 0 bitmap (init), 1 meta |
 * | 20 | insert | u16 offset number | 0 tuple's page (data: the tuple), 1 meta |
 * | 30 | add overflow page | u16 bitmap bytes, u8 free bit found | 0 new (init, u32 bucket), 1 left, 2 bitmap (u32 bit), 3 new bitmap (init), 4 meta (u32 first free) |
 * | 40 | split: allocate page | u32 new bucket, u16 old flags, u16 new flags, u8 meta changes | 0 old, 1 new (init), 2 meta |
 * | 50 | split: page | – | 0 new page, always an image |
 * | 60 | split: complete | u16 old flags, u16 new flags | 0 old, 1 new |
 * | 70 | move page contents | u16 tuples, u8 | 0 bucket (only locked), 1 written to (offset numbers, tuples), 2 taken from (offset numbers) |
 * | 80 | squeeze page | u32 previous, u32 next, u16 tuples, u8, u8 written to is previous | 0 bucket (only locked), 1 written to, 2 freed, 3 previous, 4 next, 5 bitmap (u32 bit), 6 meta (u32 first free) |
 * | 90 | delete | u8 clear dead marking, u8 | 0 bucket (only locked), 1 page (offset numbers) |
 * | a0 | split: clean up | – | 0 bucket |
 * | b0 | update meta page | f64 tuples | 0 meta |
 * | c0 | vacuum one page | u32 horizon, 14–15: i32 count, 16 on: u16 count, u8; offset numbers from byte 8 | 0 page, 1 meta |
 *
 * Source: PostgreSQL access/hash/hash_xlog.c, include/access/hash_xlog.h.
 */
import { deleteItems } from "../../page/items.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockData, blockDataLength, blockRef, corruptRecord, hasBlock, mainData, unsupportedRedo } from "../handler.ts";
import { INVALID_BLOCK, indexTupleSize, insertFromRecord, mainDataEnd, needBytes, offsetNumbers, readOffsetNumbers } from "../index-tuples.ts";
import {
  LH_BUCKET_NEEDS_SPLIT_CLEANUP, LH_OVERFLOW_PAGE, LH_PAGE_HAS_DEAD_TUPLES, LH_UNUSED_PAGE, META, OPAQUE_NEXT, OPAQUE_PREVIOUS,
  addBitmapBlock, bitmapWordAt, getFlags, initBitmapPage, initHashPage, initMetaPage, opaqueOffset, setFlags, sparesAt,
} from "./page.ts";

const SPLIT_UPDATES_MASKS = 1;
const SPLIT_UPDATES_SPLIT_POINT = 2;

function redoHash(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & RMGR_INFO_MASK) {
    case 0x00: return initMeta(page, view, record, blockId);
    case 0x10: return initBitmap(page, view, record, blockId);
    case 0x20: return insert(page, view, record, blockId);
    case 0x30: return addOverflowPage(page, view, record, blockId);
    case 0x40: return splitAllocatePage(page, view, record, blockId);
    case 0x50: return corruptRecord("hash split record without an image of its page");
    case 0x60: return splitComplete(view, record, blockId);
    case 0x70: return movePageContents(page, view, record, blockId);
    case 0x80: return squeezePage(page, view, record, blockId);
    case 0x90: return deleteTuples(page, view, record, blockId);
    case 0xa0: return setFlags(view, getFlags(view) & ~LH_BUCKET_NEEDS_SPLIT_CLEANUP);
    case 0xb0: return view.setFloat64(META.TUPLES, record.view.getFloat64(mainData(record, 8), true), true);
    case 0xc0: return vacuumOnePage(page, view, record, blockId);
    default: return unsupportedRedo(record, blockId);
  }
}

export const hashManager: RedoManager = {
  name: "hash",
  redo: redoHash,
  supports: (info) => (info & RMGR_INFO_MASK) <= 0xc0,
};

/** A block the record kind does not have. */
function noSuchBlock(record: WalRecord, blockId: number): never {
  corruptRecord(`hash record ${(record.info & RMGR_INFO_MASK).toString(16)} with block ${blockId}`);
}

function initMeta(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const at = mainData(record, 14);
  initMetaPage(page, view, record.view.getFloat64(at, true), record.view.getUint32(at + 8, true), record.view.getUint16(at + 12, true));
}

function initBitmap(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId === 0) return initBitmapPage(page, view, record.view.getUint16(mainData(record, 2), true));
  if (blockId !== 1) noSuchBlock(record, blockId);
  addBitmapBlock(view, view.getUint32(META.MAX_BUCKET, true) + 2);
}

function insert(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId === 0) {
    const ref = blockRef(record, 0);
    insertFromRecord(page, view, record.view.getUint16(mainData(record, 2), true), record, blockData(ref, 1), ref.dataLength);
  } else if (blockId === 1) {
    view.setFloat64(META.TUPLES, view.getFloat64(META.TUPLES, true) + 1, true);
  } else {
    noSuchBlock(record, blockId);
  }
}

/** The u32 that is the block's data. */
function blockU32(record: WalRecord, blockId: number): number {
  return record.view.getUint32(blockData(blockRef(record, blockId), 4), true);
}

function addOverflowPage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 3);
  switch (blockId) {
    case 0:
      initHashPage(page, view, blockU32(record, 0), LH_OVERFLOW_PAGE);
      return view.setUint32(opaqueOffset(view) + OPAQUE_PREVIOUS, blockRef(record, 1).blockNumber, true);
    case 1:
      return view.setUint32(opaqueOffset(view) + OPAQUE_NEXT, blockRef(record, 0).blockNumber, true);
    case 2: {
      const bit = blockU32(record, 2);
      const word = bitmapWordAt(bit);
      return view.setUint32(word, (view.getUint32(word, true) | (1 << (bit % 32))) >>> 0, true);
    }
    case 3:
      return initBitmapPage(page, view, record.view.getUint16(at, true));
    case 4:
      return addOverflowToMeta(view, record, record.bytes[at + 2] !== 0);
    default:
      return noSuchBlock(record, blockId);
  }
}

function addOverflowToMeta(view: DataView, record: WalRecord, freeBitFound: boolean): void {
  view.setUint32(META.FIRST_FREE, blockU32(record, 4), true);
  if (freeBitFound) return;
  const spares = sparesAt(view.getUint32(META.OVERFLOW_POINT, true));
  let added = 1;
  if (hasBlock(record, 3)) {
    addBitmapBlock(view, blockRef(record, 3).blockNumber);
    added = 2;
  }
  view.setUint32(spares, view.getUint32(spares, true) + added, true);
}

function splitAllocatePage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 9);
  const newBucket = record.view.getUint32(at, true);
  if (blockId === 0) {
    setFlags(view, record.view.getUint16(at + 4, true));
    view.setUint32(opaqueOffset(view) + OPAQUE_PREVIOUS, newBucket, true);
  } else if (blockId === 1) {
    initHashPage(page, view, newBucket, record.view.getUint16(at + 6, true));
    view.setUint32(opaqueOffset(view) + OPAQUE_PREVIOUS, newBucket, true);
  } else if (blockId === 2) {
    view.setUint32(META.MAX_BUCKET, newBucket, true);
    splitMeta(view, record, record.bytes[at + 8]);
  } else {
    noSuchBlock(record, blockId);
  }
}

function splitMeta(view: DataView, record: WalRecord, changes: number): void {
  const ref = blockRef(record, 2);
  const end = ref.dataOffset + blockDataLength(ref);
  let at = ref.dataOffset;
  if ((changes & SPLIT_UPDATES_MASKS) !== 0) {
    needBytes(at, 8, end);
    view.setUint32(META.LOW_MASK, record.view.getUint32(at, true), true);
    view.setUint32(META.HIGH_MASK, record.view.getUint32(at + 4, true), true);
    at += 8;
  }
  if ((changes & SPLIT_UPDATES_SPLIT_POINT) !== 0) {
    needBytes(at, 8, end);
    const splitPoint = record.view.getUint32(at, true);
    view.setUint32(sparesAt(splitPoint), record.view.getUint32(at + 4, true), true);
    view.setUint32(META.OVERFLOW_POINT, splitPoint, true);
  }
}

function splitComplete(view: DataView, record: WalRecord, blockId: number): void {
  if (blockId > 1) noSuchBlock(record, blockId);
  setFlags(view, record.view.getUint16(mainData(record, 4) + 2 * blockId, true));
}

/** Adds the tuples of block 1's data: `count` offset numbers, then as many tuples, each padded to 8 bytes. */
function addTuples(page: Uint8Array, view: DataView, record: WalRecord, count: number): void {
  if (count === 0) return;
  const ref = blockRef(record, 1);
  const end = ref.dataOffset + blockDataLength(ref);
  let at = readOffsetNumbers(record, ref.dataOffset, count, end);
  for (let i = 0; i < count; i++) {
    const size = (indexTupleSize(record, at, end) + 7) & ~7;
    needBytes(at, size, end);
    insertFromRecord(page, view, offsetNumbers[i], record, at, size);
    at += size;
  }
  if (at !== end) corruptRecord(`${end - at} bytes after the last of ${count} tuples`);
}

/** Deletes the tuples whose offset numbers are the block's data. */
function deleteListed(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const ref = blockRef(record, blockId);
  const count = blockDataLength(ref) >> 1;
  readOffsetNumbers(record, ref.dataOffset, count, ref.dataOffset + 2 * count);
  deleteItems(page, view, offsetNumbers, count);
}

function movePageContents(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 3);
  if (blockId === 1) addTuples(page, view, record, record.view.getUint16(at, true));
  else if (blockId === 2) deleteListed(page, view, record, 2);
  else if (blockId !== 0) noSuchBlock(record, blockId);
}

function squeezePage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 12);
  const next = record.view.getUint32(at + 4, true);
  switch (blockId) {
    case 0:
      return;
    case 1:
      addTuples(page, view, record, record.view.getUint16(at + 8, true));
      if (record.bytes[at + 11] !== 0) view.setUint32(opaqueOffset(view) + OPAQUE_NEXT, next, true);
      return;
    case 2:
      return initHashPage(page, view, INVALID_BLOCK, LH_UNUSED_PAGE);
    case 3:
      return view.setUint32(opaqueOffset(view) + OPAQUE_NEXT, next, true);
    case 4:
      return view.setUint32(opaqueOffset(view) + OPAQUE_PREVIOUS, record.view.getUint32(at, true), true);
    case 5: {
      const bit = blockU32(record, 5);
      const word = bitmapWordAt(bit);
      return view.setUint32(word, (view.getUint32(word, true) & ~(1 << (bit % 32))) >>> 0, true);
    }
    case 6:
      return view.setUint32(META.FIRST_FREE, blockU32(record, 6), true);
    default:
      return noSuchBlock(record, blockId);
  }
}

function deleteTuples(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 2);
  if (blockId === 0) return;
  if (blockId !== 1) noSuchBlock(record, blockId);
  deleteListed(page, view, record, 1);
  if (record.bytes[at] !== 0) setFlags(view, getFlags(view) & ~LH_PAGE_HAS_DEAD_TUPLES);
}

function vacuumOnePage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 8);
  const count = record.version < 16 ? record.view.getUint32(at + 4, true) : record.view.getUint16(at + 4, true);
  if (blockId === 0) {
    readOffsetNumbers(record, at + 8, count, mainDataEnd(record));
    deleteItems(page, view, offsetNumbers, count);
    setFlags(view, getFlags(view) & ~LH_PAGE_HAS_DEAD_TUPLES);
  } else if (blockId === 1) {
    view.setFloat64(META.TUPLES, view.getFloat64(META.TUPLES, true) - count, true);
  } else {
    noSuchBlock(record, blockId);
  }
}
