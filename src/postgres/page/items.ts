/**
 * Adding, replacing and removing the items of a page, as PostgreSQL does it: the order in which tuples lie on the page
 * is part of the result, because pages are compared with PostgreSQL's byte by byte.
 *
 * The functions that take a new item only make room and return the byte offset to write it to; so a caller can build
 * the item in place (`copyBytes` of kit/copy.ts moves bytes without allocating). The room is not zeroed.
 * Positional parameters on purpose: these run once a WAL record, and an options object would be an allocation.
 *
 * Every function throws StrataError corrupt `corrupt-page` when the page header or a line pointer makes no sense, the
 * item does not fit or the offset number is out of range; the page may then be half changed and must be discarded.
 *
 * Source: PostgreSQL storage/page/bufpage.c.
 */
import { compactItems, keptAligned, keptLine, keptOffset } from "./compact.ts";
import {
  LINE_POINTER_SIZE, LP_NORMAL, LP_UNUSED, PAGE_HEADER_SIZE, checkPageHeader, corruptPage, lineAt, lineCount, lineState,
  maxAlign, packLine, pageLower, pageSpecial, pageUpper, setPageLower, setPageUpper,
} from "./page-layout.ts";

/** Makes room below pd_upper for `size` bytes, `lower` becoming the end of the line pointers. */
function takeSpace(view: DataView, lower: number, size: number): number {
  const upper = pageUpper(view) - maxAlign(size);
  if (size < 0 || lower > upper) corruptPage(`no room for an item of ${size} bytes: lower ${lower}, upper ${pageUpper(view)}`);
  setPageLower(view, lower);
  setPageUpper(view, upper);
  return upper;
}

/**
 * Room for a new item `offsetNumber` (1 to count + 1); items from there on move one number up (PageAddItem with an
 * offset number and without overwrite). @returns the byte offset of the room
 */
export function insertItemSpace(page: Uint8Array, view: DataView, offsetNumber: number, size: number): number {
  checkPageHeader(view);
  const limit = lineCount(view) + 1;
  if (offsetNumber < 1 || offsetNumber > limit) corruptPage(`item ${offsetNumber} cannot be added after ${limit - 1} items`);
  const at = lineAt(offsetNumber);
  const lower = pageLower(view);
  const upper = takeSpace(view, lineAt(limit + 1), size);
  if (offsetNumber < limit) page.copyWithin(at + LINE_POINTER_SIZE, at, lower);
  view.setUint32(at, packLine(upper, LP_NORMAL, size), true);
  return upper;
}

/**
 * Room for a new item at the unused line pointer `offsetNumber`, or the one after the last (PageAddItem with
 * PAI_OVERWRITE). @returns the byte offset of the room
 */
export function placeItemSpace(view: DataView, offsetNumber: number, size: number): number {
  checkPageHeader(view);
  const limit = lineCount(view) + 1;
  if (offsetNumber < 1 || offsetNumber > limit) corruptPage(`item ${offsetNumber} cannot be placed after ${limit - 1} items`);
  const at = lineAt(offsetNumber);
  if (offsetNumber < limit) {
    const word = view.getUint32(at, true);
    if (lineState(word) !== LP_UNUSED || word >>> 17 !== 0) corruptPage(`line pointer ${offsetNumber} is in use`);
  }
  const upper = takeSpace(view, offsetNumber === limit ? lineAt(limit + 1) : pageLower(view), size);
  view.setUint32(at, packLine(upper, LP_NORMAL, size), true);
  return upper;
}

/** The packed line pointer of a removable item: its storage checked to lie, aligned, in the tuple area. */
function checkedLine(view: DataView, offsetNumber: number): number {
  const word = view.getUint32(lineAt(offsetNumber), true);
  const offset = word & 0x7fff;
  const length = word >>> 17;
  if (offset < pageUpper(view) || offset + length > pageSpecial(view) || (offset & 7) !== 0) {
    corruptPage(`line pointer ${offsetNumber}: offset ${offset}, length ${length}`);
  }
  return word;
}

/** Adds `delta` to the offset of every item with storage that lies at or before `offset`. */
function shiftLines(view: DataView, offset: number, delta: number): void {
  const end = pageLower(view);
  for (let at = PAGE_HEADER_SIZE; at + LINE_POINTER_SIZE <= end; at += LINE_POINTER_SIZE) {
    const word = view.getUint32(at, true);
    if ((word & 0x7fff) <= offset && word >>> 17 !== 0) {
      view.setUint32(at, ((word & 0xffff8000) | (((word & 0x7fff) + delta) & 0x7fff)) >>> 0, true);
    }
  }
}

/** Closes the `size` (aligned) bytes at `offset` by moving the tuples before them up. */
function closeGap(page: Uint8Array, view: DataView, offset: number, size: number): void {
  const upper = pageUpper(view);
  if (offset > upper) page.copyWithin(upper + size, upper, offset);
  setPageUpper(view, upper + size);
  shiftLines(view, offset, size);
}

/** Removes item `offsetNumber`; the ones after it move one number down (PageIndexTupleDelete). */
export function deleteItem(page: Uint8Array, view: DataView, offsetNumber: number): void {
  checkPageHeader(view);
  const lines = lineCount(view);
  if (offsetNumber < 1 || offsetNumber > lines) corruptPage(`no item ${offsetNumber} among ${lines} to delete`);
  const word = checkedLine(view, offsetNumber);
  const at = lineAt(offsetNumber);
  const lower = lineAt(lines + 1);
  page.copyWithin(at, at + LINE_POINTER_SIZE, lower);
  setPageLower(view, lower - LINE_POINTER_SIZE);
  closeGap(page, view, word & 0x7fff, maxAlign(word >>> 17));
}

/**
 * Removes item `offsetNumber` without renumbering: its line pointer becomes unused, or goes when it is the last
 * (PageIndexTupleDeleteNoCompact).
 */
export function deleteItemKeepingNumbers(page: Uint8Array, view: DataView, offsetNumber: number): void {
  checkPageHeader(view);
  const lines = lineCount(view);
  if (offsetNumber < 1 || offsetNumber > lines) corruptPage(`no item ${offsetNumber} among ${lines} to delete`);
  const word = checkedLine(view, offsetNumber);
  if (offsetNumber < lines) view.setUint32(lineAt(offsetNumber), 0, true);
  else setPageLower(view, lineAt(lines));
  closeGap(page, view, word & 0x7fff, maxAlign(word >>> 17));
}

/**
 * Removes the items `offsetNumbers[0..count)`, ascending (PageIndexMultiDelete). One or two are removed singly, as
 * PostgreSQL does: that leaves the other tuples in another order than a compaction.
 */
export function deleteItems(page: Uint8Array, view: DataView, offsetNumbers: Uint16Array, count: number): void {
  if (count <= 2) {
    for (let i = count - 1; i >= 0; i--) deleteItem(page, view, offsetNumbers[i]);
    return;
  }
  checkPageHeader(view);
  const lines = lineCount(view);
  const available = pageSpecial(view) - pageLower(view);
  let next = 0;
  let kept = 0;
  let total = 0;
  for (let n = 1; n <= lines; n++) {
    const word = checkedLine(view, n);
    if (next < count && offsetNumbers[next] === n) {
      next++;
      continue;
    }
    kept++;
    const aligned = maxAlign(word >>> 17);
    keptLine[kept - 1] = kept;
    keptOffset[kept - 1] = word & 0x7fff;
    keptAligned[kept - 1] = aligned;
    total += aligned;
    view.setUint32(lineAt(kept), word, true);
  }
  if (next !== count) corruptPage("offset numbers to delete are out of range or out of order");
  if (total > available) corruptPage(`item lengths: ${total}, available ${available}`);
  setPageLower(view, lineAt(kept + 1));
  compactItems(page, view, kept);
}

/**
 * Gives item `offsetNumber` the new length `size` where it lies, moving the tuples before it (PageIndexTupleOverwrite).
 * @returns the byte offset of the room, whose content is then undefined
 */
export function resizeItemSpace(page: Uint8Array, view: DataView, offsetNumber: number, size: number): number {
  checkPageHeader(view);
  const lines = lineCount(view);
  if (offsetNumber < 1 || offsetNumber > lines) corruptPage(`no item ${offsetNumber} among ${lines} to overwrite`);
  const word = checkedLine(view, offsetNumber);
  const offset = word & 0x7fff;
  const oldSize = maxAlign(word >>> 17);
  const upper = pageUpper(view);
  const delta = oldSize - maxAlign(size);
  if (size < 0 || upper + delta < pageLower(view)) corruptPage(`item ${offsetNumber} cannot grow to ${size} bytes`);
  if (delta !== 0) {
    page.copyWithin(upper + delta, upper, offset);
    setPageUpper(view, upper + delta);
    shiftLines(view, offset, delta);
  }
  const moved = offset + delta;
  view.setUint32(lineAt(offsetNumber), packLine(moved, lineState(word), size), true);
  return moved;
}
