/** Memory of values is used again by other layers: nothing that was read may change by that, whoever reads, spills or discards. */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { CHUNK_BYTES, ChunkPool } from "../../../src/pageserver/layers/chunk-pool.ts";
import { EphemeralFile } from "../../../src/pageserver/layers/ephemeral-file.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";

const cleanups: (() => unknown)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), "strata-ephemeral-"));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A file and what it should hold. */
class Checked {
  readonly file: EphemeralFile;
  readonly #values: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  constructor(file: EphemeralFile) {
    this.file = file;
  }

  append(fill: number, length: number): void {
    const bytes = new Uint8Array(length).fill(fill);
    bytes[0] = length;
    this.#values.push({ offset: this.file.append(bytes), bytes });
  }

  /** Reads some of all values in both ways; returns what `readMany` gave and what that should be. */
  async read(step: number): Promise<{ got: Uint8Array; wanted: Uint8Array }[]> {
    const some = this.#values.filter((_, at) => at % step === 0);
    const got = await this.file.readMany(some.map(({ offset, bytes }) => ({ offset, length: bytes.length })));
    for (const { offset, bytes } of some) {
      const now = this.file.readNow(offset, bytes.length);
      if (now !== null) expect(Buffer.compare(now, bytes)).toBe(0);
    }
    return some.map(({ bytes }, at) => ({ got: got[at], wanted: bytes }));
  }
}

const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("append" as const), file: fc.nat(3), fill: fc.nat(255), length: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 5000, max: 400_000 })) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("read" as const), file: fc.nat(3), step: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("discard" as const), file: fc.nat(3) }) },
);

describe("values of in-memory layers", () => {
  test("are what was appended, while files are spilled and discarded and their memory goes to others", async () => {
    const path = directory();
    const files = new RealFiles();
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80 }), fc.integer({ min: 2, max: 12 }), async (steps, limitChunks) => {
        const memory = new LayerMemory(limitChunks * CHUNK_BYTES);
        let made = 0;
        const fresh = (): Checked => new Checked(new EphemeralFile(files, join(path, `ephemeral-${made++}`), memory));
        const open = Array.from({ length: 4 }, fresh);
        const seen: { got: Uint8Array; wanted: Uint8Array }[] = [];
        for (const one of steps) {
          const checked = open[one.file];
          if (one.kind === "append") checked.append(one.fill, one.length);
          else if (one.kind === "read") seen.push(...(await checked.read(one.step)));
          else {
            open[one.file] = fresh();
            await checked.file.discard();
          }
          await memory.relief();
        }
        for (const checked of open) seen.push(...(await checked.read(1)));
        expect(seen.filter(({ got, wanted }) => Buffer.compare(got, wanted) !== 0).length).toBe(0);
        for (const { file } of open) await file.discard();
        expect(memory.usedBytes).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  test("lie in memory that was another's before", async () => {
    const memory = new LayerMemory(8 * CHUNK_BYTES);
    const files = new RealFiles();
    const path = directory();
    const first = new EphemeralFile(files, join(path, "ephemeral-1"), memory);
    first.append(new Uint8Array(3 * CHUNK_BYTES).fill(1));
    const [old] = await first.readMany([{ offset: 2 * CHUNK_BYTES + 10, length: 5 }]);
    const view = first.readNow(2 * CHUNK_BYTES + 10, 5) as Uint8Array;
    const second = new EphemeralFile(files, join(path, "ephemeral-2"), memory);
    await first.discard();
    second.append(new Uint8Array(CHUNK_BYTES).fill(2));
    expect(memory.spareBytes).toBe(2 * CHUNK_BYTES);
    expect([...view]).toEqual([2, 2, 2, 2, 2]);
    expect([...old]).toEqual([1, 1, 1, 1, 1]);
    await second.discard();
    // With the last file goes what was kept.
    const third = new EphemeralFile(files, join(path, "ephemeral-3"), memory);
    third.append(new Uint8Array(CHUNK_BYTES));
    expect([...(third.readNow(0, 5) as Uint8Array)]).toEqual([0, 0, 0, 0, 0]);
    expect(memory.spareBytes).toBe(0);
    await third.discard();
  });

  test("and what memory is kept for the next stays within the limit, and goes when nobody asks", () => {
    const pool = new ChunkPool();
    const chunks = Array.from({ length: 10 }, () => pool.take());
    let room = 6 * CHUNK_BYTES;
    for (const chunk of chunks) {
      pool.give(chunk, room);
      room -= CHUNK_BYTES;
    }
    expect(pool.spareBytes).toBe(6 * CHUNK_BYTES);
    pool.shrink(4.5 * CHUNK_BYTES);
    expect(pool.spareBytes).toBe(4 * CHUNK_BYTES);
    pool.trim();
    expect(pool.spareBytes).toBe(4 * CHUNK_BYTES);
    pool.trim();
    pool.trim();
    pool.trim();
    expect(pool.spareBytes).toBe(0);
    pool.give(new Uint8Array(100), CHUNK_BYTES);
    expect(pool.spareBytes).toBe(0);
  });
});
