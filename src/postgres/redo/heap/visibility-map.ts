/**
 * The visibility map: two bits a heap page (1 all visible, 2 all frozen), four heap pages a byte, after a page header.
 *
 * Older minors clear bits as a side effect of heap records without naming the map's page; those clears come to
 * `clearVisibility` from outside redo (see the effects of a record). Newer minors register the page as a block.
 *
 * Source: PostgreSQL access/heap/visibilitymap.c.
 */
import { FORK_VISIBILITY_MAP } from "../../wal/constants.ts";
import type { WalRecord } from "../../wal/record.ts";
import { PAGE_HEADER_SIZE, PAGE_SIZE, initPage, pageIsNew } from "../../page/page-layout.ts";

export const ALL_VISIBLE = 1;
export const ALL_FROZEN = 2;
export const VISIBILITY_BITS = 3;

const HEAP_PAGES_PER_BYTE = 4;
export const HEAP_PAGES_PER_MAP_PAGE = (PAGE_SIZE - PAGE_HEADER_SIZE) * HEAP_PAGES_PER_BYTE;

/** The map page that covers a heap page. */
export function visibilityMapBlock(heapBlock: number): number {
  return Math.floor(heapBlock / HEAP_PAGES_PER_MAP_PAGE);
}

function mapByte(heapBlock: number): number {
  return PAGE_HEADER_SIZE + ((heapBlock % HEAP_PAGES_PER_MAP_PAGE) >>> 2);
}

function mapShift(heapBlock: number): number {
  return (heapBlock & 3) * 2;
}

/** Sets `bits` for a heap page; a page never used before is initialized. */
export function setVisibility(page: Uint8Array, view: DataView, heapBlock: number, bits: number): void {
  if (pageIsNew(view)) initPage(page, view, 0);
  page[mapByte(heapBlock)] |= (bits & VISIBILITY_BITS) << mapShift(heapBlock);
}

/** Clears `bits` for a heap page. */
export function clearVisibility(page: Uint8Array, heapBlock: number, bits: number): void {
  page[mapByte(heapBlock)] &= ~((bits & VISIBILITY_BITS) << mapShift(heapBlock));
}

/** Whether block `blockId` of the record is a page of the visibility map. */
export function isVisibilityMap(record: WalRecord, blockId: number): boolean {
  return record.blocks[blockId].fork === FORK_VISIBILITY_MAP;
}

/** Clears `bits` of heap page `heapBlock` when map page `mapBlock` is the one that covers it. */
export function clearIfCovered(page: Uint8Array, mapBlock: number, heapBlock: number, bits: number): void {
  if (visibilityMapBlock(heapBlock) === mapBlock) clearVisibility(page, heapBlock, bits);
}
