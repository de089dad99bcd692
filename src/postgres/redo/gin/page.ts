/**
 * Pages of a GIN index. Special area, 8 bytes, of every page:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u32 | right neighbour's block |
 * | 4 | u16 | inner page of a posting tree: its items; page of the pending list: heap tuples |
 * | 6 | u16 | flags: 1 posting tree, 2 leaf, 4 deleted, 8 meta, 0x10 pending list, 0x20 rows are whole, 0x40 split not finished, 0x80 compressed |
 *
 * Metapage: 56 bytes from byte 24, carried whole by the records that change it.
 * Posting tree page: right bound (tuple id) at 24; from 32 on, up to pd_lower, segments (leaf) or items (inner page):
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u16, u16 | child's block, high and low half |
 * | 4 | tuple id | greatest key below the child |
 *
 * Source: PostgreSQL access/ginblock.h, access/gin/ginutil.c, gindatapage.c.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { PAGE_HEADER_SIZE, PAGE_SIZE, corruptPage, initPage, pageSpecial, setPageLower, specialOffset } from "../../page/page-layout.ts";
import { INVALID_BLOCK } from "../index-tuples.ts";

const GIN_OPAQUE_SIZE = 8;
export const GIN_META_SIZE = 56;
/** Where the segments or items of a posting tree page begin. */
export const GIN_DATA_START = 32;
export const POSTING_ITEM_SIZE = 10;

export const GIN_DATA = 1;
export const GIN_LEAF = 2;
export const GIN_DELETED = 4;
export const GIN_META = 8;
export const GIN_LIST = 0x10;
export const GIN_LIST_FULLROW = 0x20;
export const GIN_INCOMPLETE_SPLIT = 0x40;
export const GIN_COMPRESSED = 0x80;

export function initGinPage(page: Uint8Array, view: DataView, flags: number): void {
  initPage(page, view, GIN_OPAQUE_SIZE);
  view.setUint32(PAGE_SIZE - 8, INVALID_BLOCK, true);
  view.setUint16(PAGE_SIZE - 2, flags, true);
}

/** A metapage holding the 56 bytes at `source[at]`, which the caller has checked to be there. */
export function initGinMetaPage(page: Uint8Array, view: DataView, source: Uint8Array, at: number): void {
  initGinPage(page, view, GIN_META);
  copyBytes(source, at, page, PAGE_HEADER_SIZE, GIN_META_SIZE);
  setPageLower(view, PAGE_HEADER_SIZE + GIN_META_SIZE);
}

export function ginFlags(view: DataView): number {
  return view.getUint16(specialOffset(view, GIN_OPAQUE_SIZE) + 6, true);
}
export function setGinFlags(view: DataView, flags: number): void {
  view.setUint16(specialOffset(view, GIN_OPAQUE_SIZE) + 6, flags, true);
}
export function setRightLink(view: DataView, block: number): void {
  view.setUint32(specialOffset(view, GIN_OPAQUE_SIZE), block, true);
}
export function ginItemCount(view: DataView): number {
  return view.getUint16(specialOffset(view, GIN_OPAQUE_SIZE) + 4, true);
}
export function setGinItemCount(view: DataView, count: number): void {
  view.setUint16(specialOffset(view, GIN_OPAQUE_SIZE) + 4, count, true);
}

/** First byte a posting tree page's data may not reach. @throws StrataError corrupt `corrupt-page` */
export function dataLimit(view: DataView): number {
  const special = specialOffset(view, GIN_OPAQUE_SIZE);
  if (special < GIN_DATA_START) corruptPage(`special area of a posting tree page at ${special}`);
  return special;
}

/** Byte offset of posting item `offsetNumber`, one of `1..count`. @throws StrataError corrupt `corrupt-page` */
export function postingItemAt(view: DataView, offsetNumber: number, count: number): number {
  const at = GIN_DATA_START + (offsetNumber - 1) * POSTING_ITEM_SIZE;
  if (offsetNumber < 1 || offsetNumber > count || GIN_DATA_START + count * POSTING_ITEM_SIZE > pageSpecial(view)) {
    corruptPage(`posting item ${offsetNumber} of ${count}`);
  }
  return at;
}

/** Sets the number of posting items and pd_lower with it. */
export function setPostingItems(view: DataView, count: number): void {
  setGinItemCount(view, count);
  setPageLower(view, GIN_DATA_START + count * POSTING_ITEM_SIZE);
}
