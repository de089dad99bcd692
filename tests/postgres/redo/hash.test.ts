import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { lineCount } from "../../../src/postgres/page/page-layout.ts";
import { META, bucketsAtSplitPoint, initBitmapPage, initHashPage, initMetaPage, splitPointOf } from "../../../src/postgres/redo/hash/page.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { fields, indexTuple, makeRecord } from "../../support/redo-record.ts";

const HASH = RMGR.HASH;
const NONE = 0xffff_ffff;

function emptyPage(): { page: Uint8Array; view: DataView } {
  const page = new Uint8Array(8192);
  return { page, view: dataViewOf(page) };
}

function bucketPage(): { page: Uint8Array; view: DataView } {
  const made = emptyPage();
  initHashPage(made.page, made.view, 5, 2);
  return made;
}

function links(view: DataView): number[] {
  return [view.getUint32(8176, true), view.getUint32(8180, true), view.getUint32(8184, true), view.getUint16(8188, true)];
}

describe("hash split points", () => {
  test("the phase found holds the buckets, the one before does not", () => {
    fc.assert(
      fc.property(fc.oneof(fc.integer({ min: 2, max: 5000 }), fc.integer({ min: 2, max: 0x4000_0000 })), (buckets) => {
        const point = splitPointOf(buckets);
        expect(bucketsAtSplitPoint(point)).toBeGreaterThanOrEqual(buckets);
        expect(bucketsAtSplitPoint(point - 1)).toBeLessThan(buckets);
      }),
    );
  });

  test("groups up to 2^9 have one phase, the others four", () => {
    expect([0, 1, 9, 10, 11, 12, 13, 14, 97].map(bucketsAtSplitPoint)).toEqual([1, 2, 512, 640, 768, 896, 1024, 1280, 2 ** 31]);
  });
});

describe("hash redo", () => {
  test("metapage of a new index over 100,000 expected tuples", () => {
    const { page, view } = emptyPage();
    initMetaPage(page, view, 100_000, 400, 307);
    // 326 buckets wanted, 512 the next split point
    expect(view.getUint32(META.MAX_BUCKET, true)).toBe(511);
    expect(view.getUint32(META.HIGH_MASK, true)).toBe(1023);
    expect(view.getUint32(META.LOW_MASK, true)).toBe(511);
    expect(view.getUint32(META.OVERFLOW_POINT, true)).toBe(9);
    expect(view.getUint32(META.SPARES + 36, true)).toBe(1);
    expect(view.getUint16(12, true)).toBe(4568);
  });

  test("an overflow page that needs a new bitmap page", () => {
    const record = makeRecord({
      rmid: HASH, info: 0x30, main: fields("u16", 4096, "u8", 0),
      blocks: [
        { block: 40, willInit: true, data: fields("u32", 5) }, { block: 3 }, undefined, { block: 41, willInit: true },
        { block: 0, data: fields("u32", 33000) },
      ],
    });
    const added = emptyPage();
    redoRecord(added.page, record, 0, 800);
    expect(links(added.view)).toEqual([3, NONE, 5, 1]);
    const left = bucketPage();
    redoRecord(left.page, record, 1, 800);
    expect(links(left.view)).toEqual([NONE, 40, 5, 2]);
    const bitmap = emptyPage();
    redoRecord(bitmap.page, record, 3, 800);
    expect(bitmap.page.subarray(24, 24 + 4096).every((byte) => byte === 0xff)).toBe(true);
    expect(bitmap.view.getUint16(12, true)).toBe(24 + 4096);
    const meta = emptyPage();
    initMetaPage(meta.page, meta.view, 0, 400, 300);
    redoRecord(meta.page, record, 4, 800);
    expect(meta.view.getUint32(META.FIRST_FREE, true)).toBe(33000);
    expect(meta.view.getUint32(META.MAP_COUNT, true)).toBe(1);
    expect(meta.view.getUint32(META.MAPS, true)).toBe(41);
    expect(meta.view.getUint32(META.SPARES + 4, true)).toBe(3);
  });

  test("squeezing tells both neighbours and frees the bit", () => {
    const record = makeRecord({
      rmid: HASH, info: 0x80, main: fields("u32", 11, "u32", 13, "u16", 1, "u8", 1, "u8", 0),
      blocks: [undefined, { data: Uint8Array.of(1, 0, ...indexTuple(16)) }, {}, {}, {}, { data: fields("u32", 70) }, { data: fields("u32", 70) }],
    });
    const written = bucketPage();
    redoRecord(written.page, record, 1, 800);
    expect(lineCount(written.view)).toBe(1);
    const freed = bucketPage();
    redoRecord(freed.page, record, 2, 800);
    expect(links(freed.view)).toEqual([NONE, NONE, NONE, 0]);
    const previous = bucketPage();
    redoRecord(previous.page, record, 3, 800);
    expect(links(previous.view)).toEqual([NONE, 13, 5, 2]);
    const next = bucketPage();
    redoRecord(next.page, record, 4, 800);
    expect(links(next.view)).toEqual([11, NONE, 5, 2]);
    const bitmap = emptyPage();
    initBitmapPage(bitmap.page, bitmap.view, 4096);
    redoRecord(bitmap.page, record, 5, 800);
    expect(bitmap.view.getUint32(24 + 8, true)).toBe(0xffff_ffbf);
  });

  test("tuples and offset numbers that disagree with their count are refused", () => {
    const main = fields("u16", 2, "u8", 1);
    const move = makeRecord({ rmid: HASH, info: 0x70, main, blocks: [undefined, { data: Uint8Array.of(1, 0, 2, 0, ...indexTuple(16)) }] });
    expect(() => redoRecord(bucketPage().page, move, 1, 800)).toThrow("bytes expected");
    const bit = makeRecord({ rmid: HASH, info: 0x30, main: fields("u16", 4096, "u8", 1), blocks: [{}, {}, { data: fields("u32", 0xffff_ffff) }] });
    expect(() => redoRecord(bucketPage().page, bit, 2, 800)).toThrow("bitmap bit");
    const image = makeRecord({ rmid: HASH, info: 0x50, blocks: [{}] });
    expect(() => redoRecord(bucketPage().page, image, 0, 800)).toThrow("without an image");
  });

  test("dead tuples removed by an insert: 14 and 15 count in 32 bits, 16 on in 16", () => {
    for (const version of [15, 16] as const) {
      const { page, view } = bucketPage();
      for (let n = 1; n <= 3; n++) {
        redoRecord(page, makeRecord({ rmid: HASH, info: 0x20, main: fields("u16", n), blocks: [{ data: indexTuple(16, n) }] }), 0, 100);
      }
      const count = version === 15 ? fields("u32", 2) : fields("u16", 2, "u8", 1, "u8", 0);
      const main = Uint8Array.of(...fields("u32", 700), ...count, ...fields("u16", 1, "u16", 3));
      redoRecord(page, makeRecord({ rmid: HASH, info: 0xc0, version, main, blocks: [{}, {}] }), 0, 800);
      expect(lineCount(view)).toBe(1);
      expect(page[8176 - 16 + 8]).toBe(2);
    }
  });
});
