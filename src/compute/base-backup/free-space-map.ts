/**
 * The free-space map is not logged, so a pageserver has none. Without one a table that was half emptied would grow
 * again instead of being filled up; so it is computed from the heap pages as they are unpacked.
 *
 * Only for relations all of whose pages are heap pages (no special area) or new: the maps of indexes say something
 * else (which pages are free as a whole), and indexes find that out at their next vacuum.
 *
 * | part of an FSM page | bytes |
 * | --- | --- |
 * | page header, empty page (pd_lower 24, pd_upper = pd_special = 8192) | 0–23 |
 * | fp_next_slot | 24–27 |
 * | fp_nodes: binary tree in an array, each node the maximum of its two children; 4095 inner nodes, then 4069 leaves | 28–8191 |
 *
 * Three levels of pages: leaves of level 0 are heap pages, of levels 1 and 2 the pages below. Block 0 is the root; each
 * page is followed by its subtree.
 *
 * Source: PostgreSQL src/backend/storage/freespace/{README,freespace.c,fsmpage.c}, src/include/storage/fsm_internals.h;
 * free space of a heap page: bufpage.c (PageGetHeapFreeSpace).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { initPage, pageIsNew, pageLower, pageSpecial, pageUpper } from "../../postgres/page/page-layout.ts";
import { setPageChecksum } from "../../postgres/page/checksum.ts";
import { PAGE_SIZE } from "../../postgres/wal/constants.ts";

const HEADER_BYTES = 24;
const NODES_AT = 28;
const NODES = PAGE_SIZE - NODES_AT;
const INNER_NODES = PAGE_SIZE / 2 - 1;
const SLOTS = NODES - INNER_NODES;
const ROOT_LEVEL = 2;
const CATEGORY_STEP = 32;
/** MaxHeapTupleSize: what no page can exceed and still be asked for. */
const MAX_REQUEST = 8160;
const LINE_POINTER_BYTES = 4;
/** MaxHeapTuplesPerPage. */
const MAX_LINES = 291;
const LINE_UNUSED = 0;

/** Free-space category of a heap page (0–255), or null for a page that is none of a heap's. */
export function heapPageCategory(view: DataView): number | null {
  if (pageIsNew(view)) return category(PAGE_SIZE - HEADER_BYTES);
  if (pageSpecial(view) !== PAGE_SIZE) return null;
  const lower = pageLower(view);
  const upper = pageUpper(view);
  if (lower < HEADER_BYTES || upper < lower || upper > PAGE_SIZE) return null;
  const free = upper - lower - LINE_POINTER_BYTES;
  if (free <= 0) return 0;
  const lines = (lower - HEADER_BYTES) / LINE_POINTER_BYTES;
  if (lines >= MAX_LINES && !hasUnusedLine(view, lines)) return 0;
  return category(free);
}

/** A page with all line pointers in use takes no tuple, however much room there is. */
function hasUnusedLine(view: DataView, lines: number): boolean {
  for (let line = 0; line < lines; line++) {
    const word = view.getUint32(HEADER_BYTES + line * LINE_POINTER_BYTES, true);
    if (((word >>> 15) & 3) === LINE_UNUSED) return true;
  }
  return false;
}

function category(freeBytes: number): number {
  return freeBytes >= MAX_REQUEST ? 255 : Math.min(254, Math.floor(freeBytes / CATEGORY_STEP));
}

/** Collects the categories of one relation's blocks, in any order. */
export class FreeSpaceCollector {
  #categories = new Uint8Array(16);
  #blocks = 0;
  #isHeap = true;

  /** @param page a whole main-fork page */
  add(block: number, page: DataView): void {
    if (!this.#isHeap) return;
    const found = heapPageCategory(page);
    if (found === null) {
      this.#isHeap = false;
      this.#categories = new Uint8Array(0);
      return;
    }
    if (block >= this.#categories.length) {
      const grown = new Uint8Array(Math.max(block + 1, this.#categories.length * 2));
      grown.set(this.#categories);
      this.#categories = grown;
    }
    this.#categories[block] = found;
    this.#blocks = Math.max(this.#blocks, block + 1);
  }

  /** The fork's pages one after the other, or null when the relation needs none. */
  build(options: { checksums: boolean }): Uint8Array | null {
    if (!this.#isHeap || this.#blocks === 0) return null;
    return buildFreeSpaceMap(this.#categories.subarray(0, this.#blocks), options);
  }
}

/** @param categories one byte a heap block */
export function buildFreeSpaceMap(categories: Uint8Array, options: { checksums: boolean }): Uint8Array {
  const levels: Uint8Array[] = [categories];
  for (let level = 1; level <= ROOT_LEVEL; level++) levels.push(rootsOf(levels[level - 1]));
  const leafPages = Math.ceil(categories.length / SLOTS);
  const lastBlock = blockOf(0, leafPages - 1);
  const fork = new Uint8Array((lastBlock + 1) * PAGE_SIZE);
  for (let level = 0; level <= ROOT_LEVEL; level++) {
    const slots = levels[level];
    for (let page = 0; page * SLOTS < slots.length; page++) {
      const block = blockOf(level, page);
      const target = fork.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE);
      initPage(target, dataViewOf(target), 0);
      fillTree(target, slots.subarray(page * SLOTS, (page + 1) * SLOTS));
      setPageChecksum(target, block, options.checksums);
    }
  }
  return fork;
}

/** The greatest category of each page of `slots`. */
function rootsOf(slots: Uint8Array): Uint8Array {
  const roots = new Uint8Array(Math.max(1, Math.ceil(slots.length / SLOTS)));
  for (let at = 0; at < slots.length; at++) {
    const page = Math.floor(at / SLOTS);
    if (slots[at] > roots[page]) roots[page] = slots[at];
  }
  return roots;
}

function fillTree(page: Uint8Array, slots: Uint8Array): void {
  const nodes = page.subarray(NODES_AT);
  nodes.set(slots, INNER_NODES);
  for (let node = INNER_NODES - 1; node >= 0; node--) {
    const left = 2 * node + 1;
    const right = left + 1;
    nodes[node] = Math.max(left < NODES ? nodes[left] : 0, right < NODES ? nodes[right] : 0);
  }
}

/** Physical block of a map page: pages lie in depth-first order. */
function blockOf(level: number, page: number): number {
  let leaf = page * SLOTS ** level;
  let block = -level;
  for (let at = 0; at <= ROOT_LEVEL; at++) {
    block += leaf + 1;
    leaf = Math.floor(leaf / SLOTS);
  }
  return block - 1;
}
