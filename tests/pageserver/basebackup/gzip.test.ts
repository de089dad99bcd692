import { expect, test } from "bun:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { GZIP_FAST, GZIP_SMALL, gzipped } from "../../../src/pageserver/basebackup/gzip.ts";
import { ZEROS, zeros } from "../../../src/pageserver/basebackup/zeros.ts";
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";

const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20_260_101);

async function* given(pieces: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* pieces;
}

async function packed(pieces: Iterable<Uint8Array>, level: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of gzipped(given(pieces), level)) parts.push(part);
  return Buffer.concat(parts);
}

test("what is packed unpacks to the pieces, whatever lies between runs of zeros", async () => {
  const piece = fc.oneof(
    { weight: 2, arbitrary: fc.constant("zeros" as const) },
    { weight: 3, arbitrary: fc.record({ sizeBytes: fc.constantFrom(0, 1, 511, 8192, 70_000, 600_000), random: fc.boolean() }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 8 }), fc.constantFrom(GZIP_FAST, GZIP_SMALL), fc.integer(), async (kinds, level, seed) => {
      const random = new SeededRandom(seed);
      const pieces = kinds.map((kind) => (kind === "zeros" ? ZEROS : kind.random ? random.bytes(kind.sizeBytes) : new Uint8Array(kind.sizeBytes).fill(7)));
      expect(Buffer.compare(gunzipSync(await packed(pieces, level)), Buffer.concat(pieces))).toBe(0);
    }),
    { seed: SEED, numRuns: 40 },
  );
  expect(ZEROS.every((byte) => byte === 0)).toBe(true);
});

test("a WAL segment of zeros takes a thousandth of its size", async () => {
  const bytes = await packed([Uint8Array.of(1, 2, 3), ...zeros(16 * 1024 * 1024 - 3)], GZIP_SMALL);
  expect(bytes.length).toBeLessThan(17 * 1024);
  expect(gunzipSync(bytes).length).toBe(16 * 1024 * 1024);
});

test("an error of the source is the reader's, and who stops reading ends the source", async () => {
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(1000);
    yield ZEROS;
    yield new Uint8Array(1000);
    throw new Error("no more");
  }
  const all = async (): Promise<void> => {
    for await (const part of gzipped(failing(), GZIP_SMALL)) expect(part.length).toBeGreaterThan(0);
  };
  await expect(all()).rejects.toThrow("no more");

  let ended = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield new Uint8Array(300_000);
    } finally {
      ended = true;
    }
  }
  for await (const part of gzipped(endless(), GZIP_FAST)) if (part.length > 100) break;
  expect(ended).toBe(true);
});
