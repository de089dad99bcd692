/**
 * Pages and tuples of an SP-GiST index. Special area, 8 bytes:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u16 | flags: 1 meta, 2 deleted (unused), 4 leaf, 8 nulls |
 * | 2, 4 | u16 | redirect tuples, placeholder tuples on the page |
 * | 6 | u16 | 0xff82 |
 *
 * Every tuple starts with a u32 whose low two bits are its state: 0 live, 1 redirect, 2 dead, 3 placeholder.
 *
 * | tuple | layout |
 * | --- | --- |
 * | leaf | u32 state and size (30 bits), u16 next in chain (14 bits, 2 flags), tuple id of the heap tuple, datum |
 * | not live | the same, the tuple id leading to where a redirect goes, at 12 u32 xid; 16 bytes in all |
 * | inner | u32 state, bit 2 all-the-same, 13 bits nodes, 16 bits prefix size; u16 size; at 8 prefix, then nodes |
 * | node | index tuple: tuple id (the downlink), u16 size (13 bits) and flags, label |
 *
 * Source: PostgreSQL access/spgist_private.h, access/spgist/spgutils.c, spgdoinsert.c.
 */
import { deleteItem, deleteItems, insertItemSpace } from "../../page/items.ts";
import { PAGE_SIZE, corruptPage, initPage, itemOffset, lineCount, lineLength, lineWord, specialOffset } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { corruptRecord } from "../handler.ts";
import { INDEX_TUPLE_HEADER_SIZE, INVALID_BLOCK, MAX_OFFSETS, insertFromRecord, needBytes, offsetNumbers, setTupleId } from "../index-tuples.ts";

const SPGIST_OPAQUE_SIZE = 8;
const OPAQUE_REDIRECTS = 2;
const OPAQUE_PLACEHOLDERS = 4;
const SPGIST_PAGE_ID = 0xff82;
const SPGIST_LEAF = 4;
const SPGIST_NULLS = 8;

export const TUPLE_REDIRECT = 1;
export const TUPLE_DEAD = 2;
export const TUPLE_PLACEHOLDER = 3;

const INNER_HEADER_SIZE = 8;
const LEAF_HEADER_SIZE = 12;
const DEAD_TUPLE_SIZE = 16;
const NEXT_OFFSET_MASK = 0x3fff;
const INDEX_SIZE_MASK = 0x1fff;

export function initInnerPage(page: Uint8Array, view: DataView, storesNulls: boolean): void {
  initSpgistPage(page, view, storesNulls ? SPGIST_NULLS : 0);
}

export function initLeafPage(page: Uint8Array, view: DataView, storesNulls: boolean): void {
  initSpgistPage(page, view, storesNulls ? SPGIST_LEAF | SPGIST_NULLS : SPGIST_LEAF);
}

function initSpgistPage(page: Uint8Array, view: DataView, flags: number): void {
  initPage(page, view, SPGIST_OPAQUE_SIZE);
  view.setUint16(PAGE_SIZE - 8, flags, true);
  view.setUint16(PAGE_SIZE - 2, SPGIST_PAGE_ID, true);
}

/** @throws StrataError corrupt `corrupt-page` when the counter would leave 0 … 65535 */
function addToCounter(view: DataView, field: number, delta: number): void {
  const at = specialOffset(view, SPGIST_OPAQUE_SIZE) + field;
  const count = view.getUint16(at, true) + delta;
  if (count < 0 || count > 0xffff) corruptPage(`SP-GiST page with ${count} redirects or placeholders`);
  view.setUint16(at, count, true);
}
export function addRedirects(view: DataView, delta: number): void {
  addToCounter(view, OPAQUE_REDIRECTS, delta);
}
export function addPlaceholders(view: DataView, delta: number): void {
  addToCounter(view, OPAQUE_PLACEHOLDERS, delta);
}

/** State of the tuple at byte `at` of the page. */
export function tupleState(view: DataView, at: number): number {
  return view.getUint32(at, true) & 3;
}

/** Size of the leaf tuple at `at` of the record. @throws StrataError corrupt `corrupt-record` when it does not end by `end` */
export function leafTupleSize(record: WalRecord, at: number, end: number): number {
  needBytes(at, LEAF_HEADER_SIZE, end);
  const size = record.view.getUint32(at, true) >>> 2;
  if (size < LEAF_HEADER_SIZE) corruptRecord(`SP-GiST leaf tuple of ${size} bytes`);
  needBytes(at, size, end);
  return size;
}

/** Size of the inner tuple at `at` of the record. @throws StrataError corrupt `corrupt-record` when it does not end by `end` */
export function innerTupleSize(record: WalRecord, at: number, end: number): number {
  needBytes(at, INNER_HEADER_SIZE, end);
  const size = record.view.getUint16(at + 4, true);
  if (size < INNER_HEADER_SIZE) corruptRecord(`SP-GiST inner tuple of ${size} bytes`);
  needBytes(at, size, end);
  return size;
}

/** Puts a tuple where a placeholder is, or after the last one (addOrReplaceTuple). */
export function addOrReplaceTuple(page: Uint8Array, view: DataView, offsetNumber: number, record: WalRecord, at: number, size: number): void {
  if (offsetNumber <= lineCount(view)) {
    if (tupleState(view, itemOffset(view, offsetNumber, 4)) !== TUPLE_PLACEHOLDER) corruptPage(`SP-GiST tuple ${offsetNumber} is no placeholder`);
    addPlaceholders(view, -1);
    deleteItem(page, view, offsetNumber);
  }
  insertFromRecord(page, view, offsetNumber, record, at, size);
}

/** Puts a tuple in the place of another, whatever that was. */
export function replaceTuple(page: Uint8Array, view: DataView, offsetNumber: number, record: WalRecord, at: number, size: number): void {
  deleteItem(page, view, offsetNumber);
  insertFromRecord(page, view, offsetNumber, record, at, size);
}

/** Where a redirect leads and since which transaction; one at a time, filled by the handlers. */
export const redirect = { block: INVALID_BLOCK, offsetNumber: 0, xid: 0 };

export function setRedirect(block: number, offsetNumber: number, xid: number): void {
  redirect.block = block;
  redirect.offsetNumber = offsetNumber;
  redirect.xid = xid;
}

/** Inserts a tuple that is not live as item `offsetNumber`; a redirect leads where `redirect` says (spgFormDeadTuple). */
export function insertDeadTuple(page: Uint8Array, view: DataView, offsetNumber: number, tupleStateBits: number): void {
  const at = insertItemSpace(page, view, offsetNumber, DEAD_TUPLE_SIZE);
  const isRedirect = tupleStateBits === TUPLE_REDIRECT;
  view.setUint32(at, tupleStateBits | (DEAD_TUPLE_SIZE << 2), true);
  view.setUint16(at + 4, 0, true);
  setTupleId(view, at + 6, isRedirect ? redirect.block : INVALID_BLOCK, isRedirect ? redirect.offsetNumber : 0);
  view.setUint32(at + 12, isRedirect ? redirect.xid : 0, true);
  if (isRedirect) addRedirects(view, 1);
  else if (tupleStateBits === TUPLE_PLACEHOLDER) addPlaceholders(view, 1);
}

const marked = new Uint8Array(MAX_OFFSETS);

/** Sorts `offsetNumbers[0..count)` by marking; doubles are refused. */
function sortOffsetNumbers(view: DataView, count: number): void {
  const lines = lineCount(view);
  if (lines >= MAX_OFFSETS) corruptPage(`page with ${lines} line pointers`);
  marked.fill(0, 0, lines + 1);
  for (let i = 0; i < count; i++) {
    const number = offsetNumbers[i];
    if (number < 1 || number > lines || marked[number] !== 0) corruptRecord(`offset number ${number} is out of range or double`);
    marked[number] = 1;
  }
  let next = 0;
  for (let number = 1; number <= lines && next < count; number++) {
    if (marked[number] !== 0) offsetNumbers[next++] = number;
  }
}

/**
 * Replaces the tuples `offsetNumbers[0..count)`, in any order, by tuples that are not live: the one listed first gets
 * `firstState`, the others `restState` (spgPageIndexMultiDelete). @throws StrataError corrupt
 */
export function replaceByDeadTuples(page: Uint8Array, view: DataView, count: number, firstState: number, restState: number): void {
  if (count === 0) return;
  const first = offsetNumbers[0];
  sortOffsetNumbers(view, count);
  deleteItems(page, view, offsetNumbers, count);
  for (let i = 0; i < count; i++) {
    const number = offsetNumbers[i];
    insertDeadTuple(page, view, number, number === first ? firstState : restState);
  }
}

/** Points the chain link of the leaf tuple `offsetNumber` to `next`. @throws StrataError corrupt `corrupt-page` */
export function setNextInChain(view: DataView, offsetNumber: number, next: number): void {
  const at = itemOffset(view, offsetNumber, 6) + 4;
  view.setUint16(at, (view.getUint16(at, true) & ~NEXT_OFFSET_MASK) | (next & NEXT_OFFSET_MASK), true);
}

/**
 * Points node `node` (from 0) of the inner tuple `offsetNumber` to a tuple (spgUpdateNodeLink).
 * @throws StrataError corrupt `corrupt-page` when the tuple has no such node
 */
export function setNodeLink(view: DataView, offsetNumber: number, node: number, block: number, target: number): void {
  const start = itemOffset(view, offsetNumber, INNER_HEADER_SIZE);
  const end = start + lineLength(lineWord(view, offsetNumber));
  const word = view.getUint32(start, true);
  if (node >= ((word >>> 3) & 0x1fff)) corruptPage(`SP-GiST inner tuple without node ${node}`);
  let at = start + INNER_HEADER_SIZE + (word >>> 16);
  for (let i = 0; ; i++) {
    if (at + INDEX_TUPLE_HEADER_SIZE > end) corruptPage(`SP-GiST inner tuple ends before its node ${i}`);
    if (i === node) return setTupleId(view, at, block, target);
    at += view.getUint16(at + 6, true) & INDEX_SIZE_MASK;
  }
}

/** Turns the redirect `offsetNumber` into a placeholder, leaving its xid. @throws StrataError corrupt `corrupt-page` */
export function redirectToPlaceholder(view: DataView, offsetNumber: number): void {
  const at = itemOffset(view, offsetNumber, DEAD_TUPLE_SIZE);
  if (tupleState(view, at) !== TUPLE_REDIRECT) corruptPage(`SP-GiST tuple ${offsetNumber} is no redirect`);
  view.setUint32(at, (view.getUint32(at, true) | TUPLE_PLACEHOLDER) >>> 0, true);
  setTupleId(view, at + 6, INVALID_BLOCK, 0);
}
