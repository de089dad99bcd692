/**
 * Changes to the segments of a posting tree leaf, as WAL describes them:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u16 | actions that follow |
 *
 * and for each, segments counted as they were before the record:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u8 | segment |
 * | 1 | u8 | 1 delete it, 2 insert before it, 3 replace it, 4 add items to it |
 * | 2 | … | insert, replace: a segment; add: u16 n, then n tuple ids |
 *
 * Source: PostgreSQL access/gin/ginxlog.c (ginRedoRecompress), access/ginxlog.h.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { PAGE_SIZE, corruptPage, pageLower, setPageLower } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { corruptRecord } from "../handler.ts";
import { needBytes } from "../index-tuples.ts";
import { GIN_COMPRESSED, GIN_DATA_START, dataLimit, ginFlags, ginItemCount, setGinFlags, setGinItemCount } from "./page.ts";
import { type ItemList, MAX_SEGMENT_ITEMS, decodeSegment, encodeSegment, mergeItems, readItem, segmentSize } from "./posting-list.ts";

const SEGMENT_DELETE = 1;
const SEGMENT_INSERT = 2;
const SEGMENT_REPLACE = 3;
const SEGMENT_ADD_ITEMS = 4;
const ITEM_SIZE = 6;

/** The page's segments as they were, from the first changed one on. */
const oldTail: Uint8Array = new Uint8Array(PAGE_SIZE);
const oldItems: ItemList = { items: new Float64Array(MAX_SEGMENT_ITEMS), count: 0 };
const newItems: ItemList = { items: new Float64Array(MAX_SEGMENT_ITEMS), count: 0 };
const mergedItems = new Float64Array(2 * MAX_SEGMENT_ITEMS);
const target = { bytes: oldTail, at: 0, end: 0 };

/** Where the work on the page stands; one at a time. */
const state = {
  page: oldTail,
  /** Next byte to write on the page. */
  write: 0,
  limit: 0,
  /** The page itself until something changes, then `oldTail`; offsets are the same in both. */
  source: oldTail,
  read: 0,
  readEnd: 0,
  segment: 0,
};

function beginWork(page: Uint8Array, view: DataView): void {
  const end = pageLower(view);
  state.page = page;
  state.limit = dataLimit(view);
  if (end < GIN_DATA_START || end > state.limit) corruptPage(`posting tree leaf with data up to ${end}`);
  state.source = page;
  state.write = GIN_DATA_START;
  state.read = GIN_DATA_START;
  state.readEnd = end;
  state.segment = 0;
}

function copyOut(source: Uint8Array, at: number, size: number): void {
  if (state.write + size > state.limit) corruptPage("posting tree leaf overflows");
  copyBytes(source, at, state.page, state.write, size);
  state.write += size;
}

/** Passes over the segments before `segment`, keeping them. */
function skipTo(segment: number): void {
  if (segment < state.segment) corruptRecord(`GIN segment ${segment} after ${state.segment}`);
  while (state.segment < segment) {
    const size = segmentSize(state.source, state.read, state.readEnd);
    if (state.source === state.page) state.write += size;
    else copyOut(state.source, state.read, size);
    state.read += size;
    state.segment++;
  }
}

/** Saves the segments not read yet before the page is written to. */
function saveTail(): void {
  if (state.source !== state.page) return;
  copyBytes(state.page, state.read, oldTail, state.read, state.readEnd - state.read);
  state.source = oldTail;
}

function dropSegment(): void {
  state.read += segmentSize(state.source, state.read, state.readEnd);
  state.segment++;
}

function encodeOut(items: Float64Array, count: number): void {
  target.bytes = state.page;
  target.at = state.write;
  target.end = state.limit;
  state.write += encodeSegment(items, count, target);
}

/** Merges the record's items at `at` into the current segment. @returns the record's offset after them */
function addItems(record: WalRecord, at: number, end: number): number {
  needBytes(at, 2, end);
  const count = record.view.getUint16(at, true);
  if (count > MAX_SEGMENT_ITEMS) corruptRecord(`${count} items for one GIN segment`);
  needBytes(at + 2, count * ITEM_SIZE, end);
  for (let i = 0; i < count; i++) newItems.items[i] = readItem(record.bytes, at + 2 + i * ITEM_SIZE);
  newItems.count = count;
  oldItems.count = decodeSegment(state.source, state.read, state.readEnd, oldItems.items);
  dropSegment();
  encodeOut(mergedItems, mergeItems(newItems, oldItems, mergedItems));
  return at + 2 + count * ITEM_SIZE;
}

/** Carries out the action at `at`. @returns the record's offset after it */
function applyAction(record: WalRecord, at: number, end: number): number {
  needBytes(at, 2, end);
  const action = record.bytes[at + 1];
  skipTo(record.bytes[at]);
  saveTail();
  at += 2;
  if (action === SEGMENT_ADD_ITEMS) return addItems(record, at, end);
  if (action === SEGMENT_DELETE) {
    dropSegment();
    return at;
  }
  if (action !== SEGMENT_INSERT && action !== SEGMENT_REPLACE) corruptRecord(`unknown GIN leaf action ${action}`);
  const size = segmentSize(record.bytes, at, end);
  copyOut(record.bytes, at, size);
  if (action === SEGMENT_REPLACE) dropSegment();
  return at + size;
}

/** A leaf from before PostgreSQL 9.4 holds plain tuple ids; they become one segment. */
function compressOldLeaf(page: Uint8Array, view: DataView): void {
  const count = ginItemCount(view);
  const limit = dataLimit(view);
  if (GIN_DATA_START + count * ITEM_SIZE > limit) corruptPage(`posting tree leaf with ${count} plain items`);
  for (let i = 0; i < count; i++) oldItems.items[i] = readItem(page, GIN_DATA_START + i * ITEM_SIZE);
  let size = 0;
  if (count > 0) {
    target.bytes = page;
    target.at = GIN_DATA_START;
    target.end = limit;
    size = encodeSegment(oldItems.items, count, target);
  }
  setPageLower(view, GIN_DATA_START + size);
  setGinFlags(view, ginFlags(view) | GIN_COMPRESSED);
  setGinItemCount(view, 0);
}

/**
 * Applies the changes in the record's bytes `at .. end` to a posting tree leaf.
 * @throws StrataError corrupt
 */
export function recompressLeaf(page: Uint8Array, view: DataView, record: WalRecord, at: number, end: number): void {
  if ((ginFlags(view) & GIN_COMPRESSED) === 0) compressOldLeaf(page, view);
  beginWork(page, view);
  needBytes(at, 2, end);
  const actions = record.view.getUint16(at, true);
  let next = at + 2;
  for (let i = 0; i < actions; i++) next = applyAction(record, next, end);
  if (state.source === page) state.write = state.readEnd;
  else copyOut(state.source, state.read, state.readEnd - state.read);
  setPageLower(view, state.write);
}
