/**
 * The layout every 8 KiB relation page shares, and unchecked accessors for it. Callers that read a page from outside
 * call `checkPageHeader` first.
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u32 high, u32 low | pd_lsn |
 * | 8 | u16 | pd_checksum |
 * | 10 | u16 | pd_flags: 1 has free line pointers, 2 page full, 4 all visible |
 * | 12 | u16 | pd_lower: end of the line pointers |
 * | 14 | u16 | pd_upper: start of the tuples |
 * | 16 | u16 | pd_special: start of the access method's own area |
 * | 18 | u16 | page size (8192) + layout version (4) |
 * | 20 | u32 | pd_prune_xid |
 * | 24 | u32[] | line pointers: 15 bits offset, 2 bits state, 15 bits length |
 *
 * Source: PostgreSQL storage/bufpage.h, storage/itemid.h.
 */
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";

export const PAGE_SIZE = 8192;
export const PAGE_HEADER_SIZE = 24;
export const LINE_POINTER_SIZE = 4;

export const PD_FLAGS = 10;
export const PD_LOWER = 12;
export const PD_UPPER = 14;
export const PD_SPECIAL = 16;
export const PD_PAGESIZE_VERSION = 18;
export const PD_PRUNE_XID = 20;

export const PD_HAS_FREE_LINES = 1;
export const PD_PAGE_FULL = 2;
export const PD_ALL_VISIBLE = 4;

const PAGE_SIZE_AND_VERSION = PAGE_SIZE | 4;

export const LP_UNUSED = 0;
export const LP_NORMAL = 1;
export const LP_REDIRECT = 2;
export const LP_DEAD = 3;

/** @returns never; the error a damaged page gives: StrataError corrupt `corrupt-page` */
export function corruptPage(message: string): never {
  throw new StrataError("corrupt", "corrupt-page", message);
}

/** Rounds up to a multiple of 8. */
export function maxAlign(size: number): number {
  return (size + 7) & ~7;
}

export function pageLower(view: DataView): number {
  return view.getUint16(PD_LOWER, true);
}
export function pageUpper(view: DataView): number {
  return view.getUint16(PD_UPPER, true);
}
export function pageSpecial(view: DataView): number {
  return view.getUint16(PD_SPECIAL, true);
}
export function setPageLower(view: DataView, value: number): void {
  view.setUint16(PD_LOWER, value, true);
}
export function setPageUpper(view: DataView, value: number): void {
  view.setUint16(PD_UPPER, value, true);
}

export function pageFlags(view: DataView): number {
  return view.getUint16(PD_FLAGS, true);
}
export function setPageFlag(view: DataView, flag: number): void {
  view.setUint16(PD_FLAGS, view.getUint16(PD_FLAGS, true) | flag, true);
}
export function clearPageFlag(view: DataView, flag: number): void {
  view.setUint16(PD_FLAGS, view.getUint16(PD_FLAGS, true) & ~flag, true);
}

/**
 * Stamps the page. In pieces that fit an int32 each: turning a larger number into 32 bits leaves compiled code, which
 * is a quarter of the cost of applying a short record.
 */
export function setPageLsn(view: DataView, lsn: Lsn): void {
  const high = (lsn / 0x1_0000_0000) | 0;
  const low = lsn - high * 0x1_0000_0000;
  const lowHigh = (low / 0x1_0000) | 0;
  view.setInt32(0, high, true);
  view.setUint16(4, (low - lowHigh * 0x1_0000) | 0, true);
  view.setUint16(6, lowHigh, true);
}
export function pageLsn(view: DataView): Lsn {
  return view.getUint32(0, true) * 0x1_0000_0000 + view.getUint32(4, true);
}

/** A page nobody initialized yet (PageIsNew). */
export function pageIsNew(view: DataView): boolean {
  return view.getUint16(PD_UPPER, true) === 0;
}

/** Number of line pointers (PageGetMaxOffsetNumber); all of them lie in the page, whatever pd_lower says. */
export function lineCount(view: DataView): number {
  const lower = Math.min(view.getUint16(PD_LOWER, true), PAGE_SIZE);
  return lower <= PAGE_HEADER_SIZE ? 0 : (lower - PAGE_HEADER_SIZE) >> 2;
}

/** Byte offset of line pointer `offsetNumber` (from 1). */
export function lineAt(offsetNumber: number): number {
  return PAGE_HEADER_SIZE - LINE_POINTER_SIZE + offsetNumber * LINE_POINTER_SIZE;
}

/** Line pointer `offsetNumber` as its packed u32. @throws StrataError corrupt `corrupt-page` when there is none */
export function lineWord(view: DataView, offsetNumber: number): number {
  if (offsetNumber < 1 || offsetNumber > lineCount(view)) corruptPage(`no line pointer ${offsetNumber} among ${lineCount(view)}`);
  return view.getUint32(lineAt(offsetNumber), true);
}
export function lineOffset(word: number): number {
  return word & 0x7fff;
}
export function lineState(word: number): number {
  return (word >>> 15) & 3;
}
export function lineLength(word: number): number {
  return word >>> 17;
}
export function packLine(offset: number, state: number, length: number): number {
  return (offset | (state << 15) | (length << 17)) >>> 0;
}
export function setLine(view: DataView, offsetNumber: number, word: number): void {
  view.setUint32(lineAt(offsetNumber), word, true);
}

/** Zeroes the page and writes a header with `specialSize` bytes reserved at its end (PageInit). */
export function initPage(page: Uint8Array, view: DataView, specialSize: number): void {
  const special = PAGE_SIZE - maxAlign(specialSize);
  page.fill(0);
  view.setUint16(PD_LOWER, PAGE_HEADER_SIZE, true);
  view.setUint16(PD_UPPER, special, true);
  view.setUint16(PD_SPECIAL, special, true);
  view.setUint16(PD_PAGESIZE_VERSION, PAGE_SIZE_AND_VERSION, true);
}

/** 24 ≤ lower ≤ upper ≤ special ≤ 8192, special aligned. @throws StrataError corrupt `corrupt-page` */
export function checkPageHeader(view: DataView): void {
  const lower = view.getUint16(PD_LOWER, true);
  const upper = view.getUint16(PD_UPPER, true);
  const special = view.getUint16(PD_SPECIAL, true);
  if (lower < PAGE_HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE || (special & 7) !== 0) {
    corruptPage(`page pointers: lower ${lower}, upper ${upper}, special ${special}`);
  }
}

/**
 * Byte offset of the item line pointer `offsetNumber` refers to; `minimumSize` bytes from there are inside the page
 * and inside the item. @throws StrataError corrupt `corrupt-page`
 */
export function itemOffset(view: DataView, offsetNumber: number, minimumSize: number): number {
  const word = lineWord(view, offsetNumber);
  const offset = word & 0x7fff;
  const length = word >>> 17;
  if (length < minimumSize || offset < PAGE_HEADER_SIZE || offset + length > PAGE_SIZE) {
    corruptPage(`item ${offsetNumber}: offset ${offset}, length ${length}, at least ${minimumSize} wanted`);
  }
  return offset;
}

/** Byte offset of the special area, of at least `size` bytes. @throws StrataError corrupt `corrupt-page` */
export function specialOffset(view: DataView, size: number): number {
  const special = view.getUint16(PD_SPECIAL, true);
  if (special < PAGE_HEADER_SIZE || special + size > PAGE_SIZE) corruptPage(`special area at ${special}, ${size} bytes wanted`);
  return special;
}
