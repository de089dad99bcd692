/** The decompressors on hand-made and on damaged input: they never write beyond the size asked for, and always end. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { pageChecksum, setPageChecksum, verifyPageChecksum } from "../../../src/postgres/page/checksum.ts";
import { lz4Decompress } from "../../../src/postgres/page/lz4-block.ts";
import { pglzDecompress } from "../../../src/postgres/page/pglz.ts";

const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20260101);
const text = (value: string) => new TextEncoder().encode(value);

function unpack(decompress: typeof pglzDecompress, source: Uint8Array, size: number): string | null {
  const target = new Uint8Array(size + 16).fill(0xee);
  const done = decompress(source, { start: 0, end: source.length, size }, target);
  expect([...target.subarray(size)]).toEqual(new Array(16).fill(0xee));
  return done ? new TextDecoder().decode(target.subarray(0, size)) : null;
}

describe("pglz", () => {
  // Three literals, then a match of 18 + 2 bytes, 3 back.
  const source = Uint8Array.of(0b1000, ...text("abc"), 0x0f, 3, 2);

  test("literals and a long overlapping match", () => {
    expect(unpack(pglzDecompress, source, 23)).toBe("abcabcabcabcabcabcabcab");
  });

  test("wrong sizes and cut input are refused", () => {
    expect(unpack(pglzDecompress, source, 24)).toBeNull();
    for (let length = 0; length < source.length; length++) expect(unpack(pglzDecompress, source.subarray(0, length), 23)).toBeNull();
    expect(unpack(pglzDecompress, Uint8Array.of(0b1, 0x00, 1), 3)).toBeNull();
    expect(unpack(pglzDecompress, Uint8Array.of(0b10, 97, 0x00, 0), 4)).toBeNull();
  });
});

describe("lz4", () => {
  // Three literals and a match of 4 + 15 + 1 bytes, 3 back; then two literals.
  const source = Uint8Array.of(0x3f, ...text("abc"), 3, 0, 1, 0x20, ...text("yz"));

  test("literals and a long overlapping match", () => {
    expect(unpack(lz4Decompress, source, 25)).toBe("abcabcabcabcabcabcabcabyz");
  });

  test("wrong sizes and cut input are refused", () => {
    expect(unpack(lz4Decompress, source, 24)).toBeNull();
    expect(unpack(lz4Decompress, source, 26)).toBeNull();
    for (let length = 0; length < source.length; length++) expect(unpack(lz4Decompress, source.subarray(0, length), 25)).toBeNull();
    expect(unpack(lz4Decompress, Uint8Array.of(0x10, 97, 0, 0, 0x10, 98), 6)).toBeNull();
  });
});

test("random input stays inside its bounds", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.integer({ min: 1, max: 8192 }), (source, size) => {
      for (const decompress of [pglzDecompress, lz4Decompress]) unpack(decompress, source, size);
    }),
    { seed: SEED, numRuns: 500 },
  );
});

describe("page checksums", () => {
  test("depend on contents and block number, not on the stored checksum", () => {
    const page = new Uint8Array(8192).map((_, i) => (i * 13) & 0xff);
    setPageChecksum(page, 7, true);
    expect(verifyPageChecksum(page, 7)).toBe(true);
    expect(verifyPageChecksum(page, 8)).toBe(false);
    const before = pageChecksum(page, 7);
    page[8] = 0;
    expect(pageChecksum(page, 7)).toBe(before);
    page[5000] = 1;
    expect(pageChecksum(page, 7)).not.toBe(before);
    setPageChecksum(page, 7, false);
    expect([page[8], page[9]]).toEqual([0, 0]);
  });
});
