/**
 * The visibility map as a block of heap records: set by its own record, cleared by records of newer minor releases that
 * name its page (older ones only imply it; those clears are effects).
 */
import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { initPage, pageLsn } from "../../../src/postgres/page/page-layout.ts";
import { HEAP_PAGES_PER_MAP_PAGE, clearVisibility, setVisibility, visibilityMapBlock } from "../../../src/postgres/redo/heap/visibility-map.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { FORK_VISIBILITY_MAP, RMGR } from "../../../src/postgres/wal/constants.ts";
import { type HandMadeBlock, handMadeRecord, u16, u32 } from "./hand-made-record.ts";

const LSN = 0x500;
const SECOND_MAP_PAGE = HEAP_PAGES_PER_MAP_PAGE;

/** A map page with every bit set. */
function fullMap(): Uint8Array {
  const page = new Uint8Array(8192);
  initPage(page, dataViewOf(page), 0);
  return page.fill(0xff, 24);
}

function bitsOf(page: Uint8Array, heapBlock: number): number {
  return (page[24 + ((heapBlock % HEAP_PAGES_PER_MAP_PAGE) >> 2)] >> ((heapBlock & 3) * 2)) & 3;
}

interface Change {
  readonly name: string;
  readonly rmid: number;
  readonly info: number;
  readonly main: readonly number[];
  /** Heap blocks; the map's page follows them. */
  readonly heap: readonly number[];
  /** Bits left for the heap pages of the first map page. */
  readonly left: Readonly<Record<number, number>>;
}

function update(flags: number): number[] {
  return [...u32(9), ...u16(1), 0, flags, ...u32(0), ...u16(2)];
}

const CHANGES: readonly Change[] = [
  { name: "insert", rmid: RMGR.HEAP, info: 0x00, main: [...u16(1), 1], heap: [7], left: { 6: 3, 7: 0, 8: 3 } },
  { name: "insert that clears nothing", rmid: RMGR.HEAP, info: 0x00, main: [...u16(1), 0], heap: [7], left: { 6: 3, 7: 3, 8: 3 } },
  { name: "delete", rmid: RMGR.HEAP, info: 0x10, main: [...u32(9), ...u16(1), 0, 1], heap: [4], left: { 3: 3, 4: 0, 5: 3 } },
  { name: "update within a page", rmid: RMGR.HEAP, info: 0x40, main: update(1), heap: [5], left: { 4: 3, 5: 0, 6: 3 } },
  { name: "update across, both cleared", rmid: RMGR.HEAP, info: 0x20, main: update(3), heap: [5, 9], left: { 5: 0, 9: 0, 8: 3 } },
  { name: "update across, old cleared", rmid: RMGR.HEAP, info: 0x20, main: update(1), heap: [5, 9], left: { 5: 3, 9: 0 } },
  { name: "update across, new cleared", rmid: RMGR.HEAP, info: 0x20, main: update(2), heap: [5, 9], left: { 5: 0, 9: 3 } },
  { name: "update across map pages", rmid: RMGR.HEAP, info: 0x20, main: update(3), heap: [SECOND_MAP_PAGE + 5, 9], left: { 5: 3, 9: 0 } },
  { name: "lock", rmid: RMGR.HEAP, info: 0x60, main: [...u32(9), ...u16(1), 0, 1], heap: [4], left: { 3: 3, 4: 1, 5: 3 } },
  { name: "multi-insert", rmid: RMGR.HEAP2, info: 0x50, main: [1, 0, ...u16(1), ...u16(1)], heap: [6], left: { 5: 3, 6: 0, 7: 3 } },
  { name: "lock of an updated version", rmid: RMGR.HEAP2, info: 0x60, main: [...u32(9), ...u16(1), 0, 1], heap: [6], left: { 5: 3, 6: 1, 7: 3 } },
];

describe("a map page named by a heap record", () => {
  for (const { name, rmid, info, main, heap, left } of CHANGES) {
    test(name, () => {
      const blocks: HandMadeBlock[] = [...heap.map((blockNumber) => ({ blockNumber })), { blockNumber: 0, fork: FORK_VISIBILITY_MAP }];
      const page = fullMap();
      redoRecord(page, handMadeRecord({ version: 17, rmid, info, xid: 9, main, blocks }), blocks.length - 1, LSN);
      for (const [heapBlock, bits] of Object.entries(left)) expect([heapBlock, bitsOf(page, Number(heapBlock))]).toEqual([heapBlock, bits]);
      const touched = Object.values(left).filter((bits) => bits !== 3).length;
      expect(page.subarray(24).filter((byte) => byte !== 0xff).length).toBeLessThanOrEqual(touched);
      expect(pageLsn(dataViewOf(page))).toBe(LSN);
    });
  }
});

describe("setting bits", () => {
  test("a page never used before is initialized; the right pair of bits is set", () => {
    for (const heapBlock of [0, 3, 4, 1000, SECOND_MAP_PAGE - 1, SECOND_MAP_PAGE, 3 * SECOND_MAP_PAGE + 77]) {
      for (const bits of [1, 3]) {
        const page = new Uint8Array(8192);
        const blocks = [{ blockNumber: visibilityMapBlock(heapBlock), fork: FORK_VISIBILITY_MAP }, { blockNumber: heapBlock }];
        redoRecord(page, handMadeRecord({ version: 16, rmid: RMGR.HEAP2, info: 0x40, xid: 0, main: [...u32(0), bits | 4], blocks }), 0, LSN);
        expect(bitsOf(page, heapBlock)).toBe(bits);
        expect(page.subarray(24).filter((byte) => byte !== 0).length).toBe(1);
        clearVisibility(page, heapBlock, 3);
        expect(page.subarray(24).every((byte) => byte === 0)).toBe(true);
        setVisibility(page, dataViewOf(page), heapBlock, 2);
        expect(bitsOf(page, heapBlock)).toBe(2);
      }
    }
  });
});
