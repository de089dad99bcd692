import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { lineCount, lineLength, lineWord } from "../../../src/postgres/page/page-layout.ts";
import { RANGES_PER_MAP_PAGE, rangeMapEntryAt } from "../../../src/postgres/redo/brin.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";
import { fields, makeRecord } from "../../support/redo-record.ts";

const BRIN = RMGR.BRIN;

function insert(offsetNumber: number, options: { heapBlock: number; init?: boolean; size?: number }): WalRecord {
  const data = new Uint8Array(options.size ?? 24).fill(offsetNumber);
  const main = fields("u32", options.heapBlock, "u32", 4, "u16", offsetNumber);
  return makeRecord({ rmid: BRIN, info: options.init === true ? 0x90 : 0x10, main, blocks: [{ block: 3, data, willInit: options.init ?? false }, { block: 1 }] });
}

function regularPage(tuples: number): { page: Uint8Array; view: DataView } {
  const page = new Uint8Array(8192);
  for (let n = 1; n <= tuples; n++) redoRecord(page, insert(n, { heapBlock: n * 4, init: n === 1 }), 0, 100);
  return { page, view: dataViewOf(page) };
}

describe("BRIN redo", () => {
  test("where a range's entry is", () => {
    expect(rangeMapEntryAt(0, 128)).toBe(24);
    expect(rangeMapEntryAt(127, 128)).toBe(24);
    expect(rangeMapEntryAt(128, 128)).toBe(30);
    expect(rangeMapEntryAt(RANGES_PER_MAP_PAGE - 1, 1)).toBe(8178);
    expect(rangeMapEntryAt(RANGES_PER_MAP_PAGE, 1)).toBe(24);
    expect(() => rangeMapEntryAt(5, 0)).toThrow("0 pages a range");
  });

  test("an insert stores the summary and leads the range map to it", () => {
    const { view } = regularPage(3);
    expect(lineCount(view)).toBe(3);
    expect(view.getUint16(8190, true)).toBe(0xf093);
    const map = new Uint8Array(8192);
    const extend = makeRecord({ rmid: BRIN, info: 0x40, main: fields("u32", 1), blocks: [{}, { willInit: true }] });
    redoRecord(map, extend, 1, 100);
    redoRecord(map, insert(2, { heapBlock: 8 }), 1, 100);
    const mapView = dataViewOf(map);
    expect([mapView.getUint16(36, true), mapView.getUint16(38, true), mapView.getUint16(40, true)]).toEqual([0, 3, 2]);
    const forget = makeRecord({ rmid: BRIN, info: 0x50, main: fields("u32", 4, "u32", 8, "u16", 2), blocks: [{}, {}] });
    redoRecord(map, forget, 0, 100);
    expect([mapView.getUint32(36, true), mapView.getUint16(40, true)]).toEqual([0xffff_ffff, 0]);
  });

  test("a summary that moves leaves its number free for another", () => {
    const { page, view } = regularPage(3);
    const update = makeRecord({
      rmid: BRIN, info: 0x20, main: fields("u16", 2, "u16", 0, "u32", 8, "u32", 4, "u16", 1),
      blocks: [{ block: 9, data: new Uint8Array(40) }, { block: 1 }, { block: 3 }],
    });
    redoRecord(page, update, 2, 200);
    expect([lineCount(view), lineWord(view, 2)]).toEqual([3, 0]);
    expect(() => redoRecord(page.slice(), insert(3, { heapBlock: 0 }), 0, 200)).toThrow("in use");
    redoRecord(page, insert(2, { heapBlock: 40, size: 32 }), 0, 200);
    expect(lineLength(lineWord(view, 2))).toBe(32);
  });

  test("a summary grows and shrinks where it is", () => {
    const { page, view } = regularPage(3);
    for (const size of [64, 16, 24]) {
      redoRecord(page, makeRecord({ rmid: BRIN, info: 0x30, main: fields("u16", 2), blocks: [{ data: new Uint8Array(size).fill(0x42) }] }), 0, 200);
      const word = lineWord(view, 2);
      expect(lineLength(word)).toBe(size);
      expect(page.subarray(word & 0x7fff, (word & 0x7fff) + size).every((byte) => byte === 0x42)).toBe(true);
    }
    const first = lineWord(view, 1) & 0x7fff;
    expect(page[first]).toBe(1);
  });

  test("metapage: created, and told of its last range map page", () => {
    const page = new Uint8Array(8192);
    const view = dataViewOf(page);
    redoRecord(page, makeRecord({ rmid: BRIN, info: 0x00, main: fields("u32", 128, "u16", 1), blocks: [{ willInit: true }] }), 0, 100);
    expect([24, 28, 32, 36].map((at) => view.getUint32(at, true))).toEqual([0xa810_9cfa, 1, 128, 0]);
    redoRecord(page, makeRecord({ rmid: BRIN, info: 0x40, main: fields("u32", 2), blocks: [{}, {}] }), 0, 100);
    expect([view.getUint32(36, true), view.getUint16(12, true)]).toEqual([2, 40]);
  });
});
