/** One suite over both engines, and each reading what the other wrote. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { CODEC_MAX_BYTES, codecEngine, nativeEngine } from "../../src/kit/zstd-engines.ts";

const native = nativeEngine();
if (native === null) throw new Error("this runtime should have zstd");
const engines = [native, await codecEngine()];
const SEED = Number(process.env.STRATA_TEST_SEED ?? 20_260_101);

for (const writer of engines) {
  for (const reader of engines) {
    test(`what ${writer.name} writes, ${reader.name} reads`, () => {
      const content = fc.oneof(fc.uint8Array({ maxLength: 20_000 }), fc.tuple(fc.nat(255), fc.nat(200_000)).map(([byte, length]) => new Uint8Array(length).fill(byte)));
      fc.assert(
        fc.property(content, fc.constantFrom(1, 3, 9), (plain, level) => {
          expect(Buffer.compare(reader.decompress(writer.compress(plain, level), plain.length), plain)).toBe(0);
        }),
        { seed: SEED, numRuns: 100 },
      );
    });
  }
}

for (const engine of engines) {
  test(`${engine.name} refuses what is damaged, cut short, or larger than allowed`, () => {
    const plain = new Uint8Array(8192).map((_, i) => (i * 7) % 90);
    const frame = engine.compress(plain, 1);
    for (let length = 0; length < frame.length; length += 7) expect(() => engine.decompress(frame.subarray(0, length), 8192)).toThrow();
    expect(() => engine.decompress(frame, 8191)).toThrow();
    expect(() => engine.decompress(new Uint8Array(100).fill(0xab), 8192)).toThrow();
    expect(() => engine.decompress(native.compress(new Uint8Array(64 * 1024 * 1024), 1), 8192)).toThrow();
    fc.assert(
      fc.property(fc.nat(frame.length * 8 - 1), (bit) => {
        const damaged = frame.slice();
        damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        try {
          expect(engine.decompress(damaged, 8192).length).toBeLessThanOrEqual(8192);
        } catch (error) {
          // Any error will do here: zstd.ts gives it its type. What must not happen is a longer result or an abort.
          expect(error).toBeInstanceOf(Error);
        }
      }),
      { seed: SEED, numRuns: 300 },
    );
  });
}

test("zstd-codec is not given more than it can take", () => {
  const codec = engines[1];
  expect(() => codec?.compress(new Uint8Array(CODEC_MAX_BYTES + 1), 1)).toThrow(expect.objectContaining({ code: "zstd-too-large" }));
});

test("several frames in a row, and frames that do not state their size, are read natively", () => {
  const [a, b] = [new Uint8Array(5000).fill(1), new Uint8Array(300).fill(2)];
  const two = Buffer.concat([native.compress(a, 1), native.compress(b, 1)]);
  expect(Buffer.compare(native.decompress(two, 5300), Buffer.concat([a, b]))).toBe(0);
  expect(() => native.decompress(two, 5299)).toThrow();
  expect(() => native.decompress(two.subarray(0, two.length - 1), 5300)).toThrow();
});
