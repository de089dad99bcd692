import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { itemOffset, lineCount } from "../../../src/postgres/page/page-layout.ts";
import { redoRecord, redoSupported } from "../../../src/postgres/redo/redo.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";
import { fields, indexTuple, makeRecord } from "../../support/redo-record.ts";

const LEAF = 1;
const FOLLOW_RIGHT = 8;

function split(blocks: readonly number[], options: { markFollowRight: boolean; isLeaf: boolean }): WalRecord {
  const main = fields("u32", 77, "u32", 0, "u32", 0x1000, "u32", 2, "u8", options.isLeaf ? 1 : 0, "u8", 0, "u16", blocks.length, "u8", options.markFollowRight ? 1 : 0);
  const halves = blocks.map((block, index) => ({ block, willInit: true, data: Uint8Array.of(...fields("u32", 2), ...indexTuple(16, index), ...indexTuple(24, index)) }));
  return makeRecord({ rmid: RMGR.GIST, info: 0x30, main, blocks: [undefined, ...halves] });
}

function half(record: WalRecord, blockId: number): { page: Uint8Array; view: DataView } {
  const page = new Uint8Array(8192);
  redoRecord(page, record, blockId, 0x3_0000_0040);
  return { page, view: dataViewOf(page) };
}

function opaque(view: DataView): { nsn: number[]; right: number; flags: number } {
  return { nsn: [view.getUint32(8176, true), view.getUint32(8180, true)], right: view.getUint32(8184, true), flags: view.getUint16(8188, true) };
}

describe("GiST redo", () => {
  test("the parts of a split are chained, all but the last waiting for their downlink", () => {
    const record = split([5, 8, 9], { markFollowRight: true, isLeaf: true });
    expect([1, 2, 3].map((id) => opaque(half(record, id).view))).toEqual([
      { nsn: [2, 0x1000], right: 8, flags: LEAF | FOLLOW_RIGHT },
      { nsn: [2, 0x1000], right: 9, flags: LEAF | FOLLOW_RIGHT },
      { nsn: [2, 0x1000], right: 77, flags: LEAF },
    ]);
    expect(lineCount(half(record, 1).view)).toBe(2);
  });

  test("a root split makes the root an inner page without a right neighbour", () => {
    const record = split([0, 8, 9], { markFollowRight: true, isLeaf: true });
    expect([1, 2, 3].map((id) => opaque(half(record, id).view))).toEqual([
      { nsn: [2, 0x1000], right: 0xffff_ffff, flags: 0 },
      { nsn: [2, 0x1000], right: 9, flags: LEAF },
      { nsn: [2, 0x1000], right: 77, flags: LEAF },
    ]);
  });

  test("the left half of a finished split gets the record's LSN as its NSN, also when it comes as an image", () => {
    const left = half(split([5, 8], { markFollowRight: true, isLeaf: true }), 1);
    const update = makeRecord({ rmid: RMGR.GIST, info: 0x00, main: fields("u16", 0, "u16", 1), blocks: [{ data: indexTuple(16) }, { block: 5, image: left.page.slice() }] });
    const restored = new Uint8Array(8192);
    redoRecord(restored, update, 1, 0x4_0000_0100);
    expect(opaque(dataViewOf(restored))).toEqual({ nsn: [4, 0x100], right: 8, flags: LEAF });
    const changed = makeRecord({ rmid: RMGR.GIST, info: 0x00, main: fields("u16", 0, "u16", 1), blocks: [{ data: indexTuple(16) }, { block: 5 }] });
    redoRecord(left.page, changed, 1, 0x4_0000_0100);
    expect(left.page).toEqual(restored);
  });

  test("one tuple for one is replaced where it lies", () => {
    const { page, view } = half(split([5, 8], { markFollowRight: false, isLeaf: true }), 1);
    const before = itemOffset(view, 1, 8);
    const update = makeRecord({ rmid: RMGR.GIST, info: 0x00, main: fields("u16", 1, "u16", 1), blocks: [{ data: Uint8Array.of(1, 0, ...indexTuple(16, 0x77)) }] });
    redoRecord(page, update, 0, 0x100);
    expect(itemOffset(view, 1, 8)).toBe(before);
    expect(page[before + 8]).toBe(0x77);
  });

  test("page deletion leaves the xid, and takes the downlink away", () => {
    const record = makeRecord({ rmid: RMGR.GIST, info: 0x60, main: fields("u32", 900, "u32", 1, "u16", 2), blocks: [{}, {}] });
    const { page, view } = half(split([5, 8], { markFollowRight: false, isLeaf: true }), 1);
    const parent = page.slice();
    redoRecord(page, record, 0, 0x100);
    expect([view.getUint16(12, true), view.getUint32(24, true), view.getUint32(28, true), opaque(view).flags]).toEqual([32, 900, 1, LEAF | 2]);
    redoRecord(parent, record, 1, 0x100);
    expect(lineCount(dataViewOf(parent))).toBe(1);
  });

  test("counts that disagree with the tuples are refused", () => {
    const record = split([5, 8], { markFollowRight: false, isLeaf: true });
    record.bytes[record.blocks[1].dataOffset] = 3;
    expect(() => half(record, 1)).toThrow("3 announced");
    expect(redoSupported(RMGR.GIST, 0x20)).toBe(false);
  });
});
