/**
 * Posting lists: index tuples that stand for many heap rows with one key. Splitting one for an insert in its middle,
 * merging equal tuples (deduplication), and removing dead rows from one.
 *
 * Source: PostgreSQL access/nbtree/nbtdedup.c, access/nbtree/nbtxlog.c (btree_xlog_dedup, btree_xlog_updates).
 */
import { dataViewOf } from "../../../kit/bytes.ts";
import { copyBytes } from "../../../kit/copy.ts";
import { deleteItems, insertItemSpace, resizeItemSpace } from "../../page/items.ts";
import { PAGE_SIZE, corruptPage, itemOffset, lineCount, lineLength, lineWord, maxAlign } from "../../page/page-layout.ts";
import { oldPage, oldView, startRebuild } from "../../page/rebuild.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord, mainData } from "../handler.ts";
import { BTP_HAS_GARBAGE, TUPLE_ALT_TID, TUPLE_HEADER_SIZE, TUPLE_SIZE_MASK, clearOpaqueFlag, firstDataKey } from "./layout.ts";

const IS_POSTING = 0x2000;
const COUNT_MASK = 0x0fff;
const TID_SIZE = 6;
/** BTMaxItemSize for 8 KiB pages. */
const MAX_POSTING_SIZE = 2704;
const MAX_OFFSETS = 2048;

const tuple = new Uint8Array(PAGE_SIZE);
const tupleView = dataViewOf(tuple);
const tids = new Uint8Array(PAGE_SIZE);
const offsets = new Uint16Array(MAX_OFFSETS);
/** The item pointer a posting list split hands to the inserted tuple. */
export const displacedTid = new Uint8Array(TID_SIZE);

/** Size of the index tuple at `at`, checked to lie in the page. */
function tupleSize(view: DataView, at: number): number {
  const size = view.getUint16(at + 6, true) & TUPLE_SIZE_MASK;
  if (size < TUPLE_HEADER_SIZE || at + size > PAGE_SIZE) corruptPage(`index tuple of ${size} bytes at ${at}`);
  return size;
}

function isPosting(view: DataView, at: number): boolean {
  return (view.getUint16(at + 6, true) & TUPLE_ALT_TID) !== 0 && (view.getUint16(at + 4, true) & IS_POSTING) !== 0;
}

function postingCount(view: DataView, at: number): number {
  return view.getUint16(at + 4, true) & COUNT_MASK;
}

/** Where the item pointers start, relative to the tuple; start and count checked against the tuple's size. */
function postingOffset(view: DataView, at: number): number {
  const size = tupleSize(view, at);
  const offset = view.getUint16(at, true) * 0x10000 + view.getUint16(at + 2, true);
  if (offset < TUPLE_HEADER_SIZE || offset + postingCount(view, at) * TID_SIZE > size) corruptPage(`posting list at ${at}: starts at ${offset}, size ${size}`);
  return offset;
}

/**
 * Splits the posting list of item `offsetNumber` (_bt_swap_posting): the new tuple's item pointer, at `newTuple` of the
 * record, takes place `index`, the ones behind it move up, and the last falls out into `displacedTid`.
 */
export function swapPosting(page: Uint8Array, view: DataView, offsetNumber: number, index: number, record: WalRecord, newTuple: number): void {
  const at = itemOffset(view, offsetNumber, TUPLE_HEADER_SIZE);
  if (!isPosting(view, at)) corruptPage(`item ${offsetNumber} is no posting list`);
  const count = postingCount(view, at);
  if (index < 1 || index >= count) corruptRecord(`a posting list of ${count} cannot be split at ${index}`);
  const list = at + postingOffset(view, at);
  const place = list + index * TID_SIZE;
  const last = list + (count - 1) * TID_SIZE;
  copyBytes(page, last, displacedTid, 0, TID_SIZE);
  page.copyWithin(place + TID_SIZE, place, last);
  copyBytes(record.bytes, newTuple, page, place, TID_SIZE);
}

/** Writes the header of a tuple with `count` heap rows at `at`: a posting list, or a plain tuple when there is but one. */
function finishPosting(target: Uint8Array, view: DataView, at: number, keySize: number, count: number, size: number): void {
  const info = (view.getUint16(at + 6, true) & ~TUPLE_SIZE_MASK) | size;
  if (count > 1) {
    view.setUint16(at + 6, info | TUPLE_ALT_TID, true);
    view.setUint16(at, keySize >>> 16, true);
    view.setUint16(at + 2, keySize & 0xffff, true);
    view.setUint16(at + 4, count | IS_POSTING, true);
    copyBytes(tids, 0, target, at + keySize, count * TID_SIZE);
    target.fill(0, at + keySize + count * TID_SIZE, at + size);
  } else {
    view.setUint16(at + 6, info & ~TUPLE_ALT_TID, true);
    copyBytes(tids, 0, target, at, TID_SIZE);
  }
}

/** Appends the heap rows of the old page's tuple at `at` to `tids`. @returns their new count */
function appendTids(at: number, count: number): number {
  const posting = isPosting(oldView, at);
  const more = posting ? postingCount(oldView, at) : 1;
  if ((count + more) * TID_SIZE > MAX_POSTING_SIZE) corruptRecord(`a merged posting list of ${count + more} rows`);
  copyBytes(oldPage, posting ? at + postingOffset(oldView, at) : at, tids, count * TID_SIZE, more * TID_SIZE);
  return count + more;
}

/** Adds the pending group to the new page: its base tuple as it was, or merged with `items - 1` others. */
function addGroup(page: Uint8Array, view: DataView, base: number, items: number, count: number): void {
  const next = lineCount(view) + 1;
  const baseSize = tupleSize(oldView, base);
  if (items === 1) {
    copyBytes(oldPage, base, page, insertItemSpace(page, view, next, baseSize), baseSize);
    return;
  }
  const keySize = isPosting(oldView, base) ? postingOffset(oldView, base) : baseSize;
  const size = maxAlign(keySize + count * TID_SIZE);
  if (size > MAX_POSTING_SIZE) corruptRecord(`a merged tuple of ${size} bytes`);
  const at = insertItemSpace(page, view, next, size);
  copyBytes(oldPage, base, page, at, keySize);
  finishPosting(page, view, at, keySize, count, size);
}

/** Deduplication: main data u16 number of intervals; block data u16 first item, u16 number of items, for each. */
export function redoDedup(page: Uint8Array, view: DataView, record: WalRecord): void {
  const intervals = record.view.getUint16(mainData(record, 2), true);
  const data = blockData(blockRef(record, 0), intervals * 4);
  const first = firstDataKey(view);
  startRebuild(page, view);
  const last = lineCount(oldView);
  if (first === 2 && last >= 1) {
    const size = lineLength(lineWord(oldView, 1));
    const from = itemOffset(oldView, 1, TUPLE_HEADER_SIZE);
    copyBytes(oldPage, from, page, insertItemSpace(page, view, 1, size), size);
  }
  let interval = 0;
  for (let n = first; n <= last; ) {
    const base = itemOffset(oldView, n, TUPLE_HEADER_SIZE);
    let items = 1;
    let count = 0;
    if (interval < intervals && record.view.getUint16(data + interval * 4, true) === n) {
      const wanted = record.view.getUint16(data + interval * 4 + 2, true);
      count = appendTids(base, 0);
      for (; items < wanted && n + items <= last; items++) count = appendTids(itemOffset(oldView, n + items, TUPLE_HEADER_SIZE), count);
      interval++;
    }
    addGroup(page, view, base, items, count);
    n += items;
  }
  if (interval !== intervals) corruptRecord(`${intervals} intervals, ${interval} of them on the page`);
  clearOpaqueFlag(view, BTP_HAS_GARBAGE);
}

/**
 * Takes dead rows out of the posting list of item `offsetNumber` (_bt_update_posting): `dead` is where the record has
 * their ascending u16 positions, `deadCount` many.
 */
function shrinkPosting(page: Uint8Array, view: DataView, record: WalRecord, offsetNumber: number, dead: number, deadCount: number): void {
  const at = itemOffset(view, offsetNumber, TUPLE_HEADER_SIZE);
  if (!isPosting(view, at)) corruptPage(`item ${offsetNumber} is no posting list`);
  const total = postingCount(view, at);
  const keySize = postingOffset(view, at);
  const left = total - deadCount;
  if (left < 1) corruptRecord(`${deadCount} of ${total} rows of a posting list are dead`);
  let kept = 0;
  let next = 0;
  for (let i = 0; i < total; i++) {
    if (next < deadCount && record.view.getUint16(dead + next * 2, true) === i) {
      next++;
      continue;
    }
    copyBytes(page, at + keySize + i * TID_SIZE, tids, kept * TID_SIZE, TID_SIZE);
    kept++;
  }
  if (kept !== left) corruptRecord("positions in a posting list are out of range or out of order");
  const size = left > 1 ? maxAlign(keySize + left * TID_SIZE) : keySize;
  copyBytes(page, at, tuple, 0, keySize);
  finishPosting(tuple, tupleView, 0, keySize, left, size);
  copyBytes(tuple, 0, page, resizeItemSpace(page, view, offsetNumber, maxAlign(size)), size);
}

/**
 * Vacuum and delete: block data u16 offset numbers deleted, u16 offset numbers updated, then for each updated one
 * u16 count and u16 positions removed from its posting list. `counts` is where main data has u16 deleted, u16 updated.
 */
export function redoRemoveItems(page: Uint8Array, view: DataView, record: WalRecord, counts: number): void {
  const deleted = record.view.getUint16(counts, true);
  const updated = record.view.getUint16(counts + 2, true);
  if (deleted > MAX_OFFSETS || updated > MAX_OFFSETS) corruptRecord(`${deleted} deleted, ${updated} updated items on one page`);
  const ref = blockRef(record, 0);
  const start = blockData(ref, (deleted + updated) * 2);
  const end = start + blockDataLength(ref);
  let at = start + (deleted + updated) * 2;
  for (let i = 0; i < updated; i++) {
    const deadCount = at + 2 <= end ? record.view.getUint16(at, true) : 0;
    if (deadCount === 0 || at + 2 + deadCount * 2 > end) corruptRecord("positions of dead rows cut short");
    shrinkPosting(page, view, record, record.view.getUint16(start + (deleted + i) * 2, true), at + 2, deadCount);
    at += 2 + deadCount * 2;
  }
  for (let i = 0; i < deleted; i++) offsets[i] = record.view.getUint16(start + i * 2, true);
  deleteItems(page, view, offsets, deleted);
  clearOpaqueFlag(view, BTP_HAS_GARBAGE);
}
