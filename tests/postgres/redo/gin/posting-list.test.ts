import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isStrataError } from "../../../../src/kit/errors.ts";
import { decodeSegment, encodeSegment, MAX_SEGMENT_ITEMS, mergeItems, readItem, segmentSize } from "../../../../src/postgres/redo/gin/posting-list.ts";

const OFFSET_RANGE = 2048;

function encode(items: readonly number[], capacity = 8192): Uint8Array {
  const bytes = new Uint8Array(capacity + 1).fill(0xee);
  const size = encodeSegment(Float64Array.from(items), items.length, { bytes, at: 0, end: capacity });
  expect(bytes[capacity]).toBe(0xee);
  return bytes.slice(0, size);
}

function decode(bytes: Uint8Array): number[] {
  const items = new Float64Array(MAX_SEGMENT_ITEMS);
  const count = decodeSegment(bytes, 0, bytes.length, items);
  return Array.from(items.subarray(0, count));
}

const item = fc.tuple(fc.oneof(fc.nat(300), fc.integer({ min: 0, max: 0xffff_fffe })), fc.integer({ min: 1, max: 2047 })).map(([block, offset]) => block * OFFSET_RANGE + offset);
const rising = fc.uniqueArray(item, { minLength: 1, maxLength: 200 }).map((items) => items.sort((a, b) => a - b));

describe("GIN posting list", () => {
  test("one segment, byte by byte", () => {
    // (1,5), (1,6), (3,1): 1 * 2048 + 5, +1, +4091 = 0x1f | 0x80... low seven bits first
    const bytes = encode([2053, 2054, 6145]);
    expect([...bytes]).toEqual([0, 0, 1, 0, 5, 0, 3, 0, 0x01, 0xfb, 0x1f, 0x00]);
    expect(decode(bytes)).toEqual([2053, 2054, 6145]);
    expect(segmentSize(bytes, 0, bytes.length)).toBe(12);
  });

  test("decode after encode gives the items back", () => {
    fc.assert(fc.property(rising, (items) => expect(decode(encode(items))).toEqual(items)));
  });

  test("merge is the sorted union", () => {
    fc.assert(
      fc.property(rising, rising, (a, b) => {
        const merged = new Float64Array(400);
        const count = mergeItems({ items: Float64Array.from(a), count: a.length }, { items: Float64Array.from(b), count: b.length }, merged);
        expect(Array.from(merged.subarray(0, count))).toEqual([...new Set([...a, ...b])].sort((x, y) => x - y));
      }),
    );
  });

  test("never writes past its limit: it fits or it is refused", () => {
    fc.assert(
      fc.property(rising, fc.integer({ min: 0, max: 64 }), (items, short) => {
        const size = encode(items).length;
        const capacity = Math.max(0, size - short);
        try {
          expect(encode(items, capacity).length).toBe(size);
        } catch (error) {
          expect(isStrataError(error, "gin-posting-list")).toBe(true);
          expect(capacity).toBeLessThan(size);
        }
      }),
    );
  });

  test("any bytes decode to a rising list or to a typed error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          const items = decode(bytes);
          for (let i = 1; i < items.length; i++) expect(items[i]).toBeGreaterThan(items[i - 1]);
        } catch (error) {
          expect(isStrataError(error, "gin-posting-list")).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("refuses offset numbers that are no heap offsets", () => {
    expect(() => readItem(Uint8Array.of(0, 0, 1, 0, 0, 0), 0)).toThrow("offset number 0");
    expect(() => readItem(Uint8Array.of(0, 0, 1, 0, 0, 8), 0)).toThrow("offset number 2048");
  });
});
