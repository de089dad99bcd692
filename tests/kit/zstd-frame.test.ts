import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StrataError } from "../../src/kit/errors.ts";
import { zstdCompress, zstdDecompress } from "../../src/kit/zstd.ts";
import { zstdContentSize } from "../../src/kit/zstd-frame.ts";

const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20260101);

describe("zstd frames", () => {
  test("state their content size", () => {
    for (const size of [0, 1, 255, 256, 8192, 65_791, 65_792, 300_000]) {
      const plain = new Uint8Array(size).map((_, i) => (i * i) >> 3);
      const frame = zstdCompress(plain, 1);
      expect(zstdContentSize(frame)).toBe(size);
      expect(Buffer.compare(zstdDecompress(frame, size), plain)).toBe(0);
    }
  });

  test("are not taken for whole when cut, doubled or something else", () => {
    const frame = zstdCompress(new Uint8Array(5000).map((_, i) => i % 251), 3);
    for (let length = 0; length < frame.length; length++) expect(zstdContentSize(frame.subarray(0, length))).toBe(-1);
    expect(zstdContentSize(Buffer.concat([frame, frame]))).toBe(-1);
    expect(zstdContentSize(new Uint8Array(100))).toBe(-1);
  });

  test("that unpack to more than allowed are refused before anything of that size is allocated", () => {
    const bomb = zstdCompress(new Uint8Array(64 * 1024 * 1024), 1);
    expect(() => zstdDecompress(bomb, 8192)).toThrow(expect.objectContaining({ code: "bad-zstd" }));
  });

  test("with flipped bits give the allowed size or a typed error", () => {
    const frame = zstdCompress(new Uint8Array(8192).map((_, i) => (i * 7) % 90), 1);
    fc.assert(
      fc.property(fc.array(fc.nat(frame.length * 8 - 1), { minLength: 1, maxLength: 4 }), (bits) => {
        const damaged = frame.slice();
        for (const bit of bits) damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
        try {
          expect(zstdDecompress(damaged, 8192).length).toBeLessThanOrEqual(8192);
        } catch (error) {
          if (!(error instanceof StrataError)) throw error;
          expect(error.code).toBe("bad-zstd");
        }
      }),
      { seed: SEED, numRuns: 500 },
    );
  });
});
