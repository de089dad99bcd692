import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { copyBytes } from "../../../src/kit/copy.ts";
import { Attack, type AttackTarget } from "../../verify/hostile/attack.ts";
import { type Material, collectMaterial } from "../../verify/hostile/collect.ts";
import { readScripts } from "../../verify/redo/corpus.ts";

const ATTEMPTS = 1_000_000;
/** A minute on a quiet machine. */
const TIMEOUT_MS = 300_000;
const SEED = 20_250_101;

describe("damaged WAL", () => {
  let material: Material = { samples: [], windows: [] };

  beforeAll(async () => {
    const scripts = await readScripts(join(import.meta.dir, "../../verify/redo-corpus"));
    material = await collectMaterial(16, scripts.filter(({ name }) => name !== "gin.sql" && name !== "spgist.sql"));
  }, 60_000);

  afterAll(() => {
    material = { samples: [], windows: [] };
  });

  test("the material has records of all managers", () => {
    const managers = new Set(material.samples.map(({ kind }) => / rmgr (\d+) /.exec(kind)?.[1]));
    for (const rmid of [0, 1, 9, 10, 11, 12, 14, 15, 17]) expect(managers).toContain(String(rmid));
  });

  test("gives typed errors and nothing else", () => {
    const result = new Attack(material, { seed: SEED });
    // In two goes, as a long run makes them.
    result.run(ATTEMPTS / 4);
    result.run((ATTEMPTS * 3) / 4);
    expect(result.attempts).toBe(ATTEMPTS);
    expect(result.violations).toEqual([]);
    expect(result.outcomes.get("corrupt-record") ?? 0).toBeGreaterThan(ATTEMPTS / 100);
    expect(result.outcomes.get("corrupt-page") ?? 0).toBeGreaterThan(ATTEMPTS / 100);
    expect(result.outcomes.get("wal-bad-record") ?? 0).toBeGreaterThan(ATTEMPTS / 100);
  }, TIMEOUT_MS);

  const planted: readonly (readonly [string, string, AttackTarget])[] = [
    ["a write before the page", "outside the page were written", (page) => { new Uint8Array(page.buffer)[page.byteOffset - 1] ^= 1; }],
    ["a read behind the record", "bytes outside", (page, record) => { page[0] = record.bytes[record.start + record.totalLength]; }],
    ["a byte behind the record in what is learned", "into what is learned", (_, record) => ({ next: record.bytes[record.start + record.totalLength] })],
    ["an access the runtime refused", "RangeError", (page, record) => copyBytes(record.bytes, record.bytes.length, page, 0, 64)],
    ["an untyped error", "TypeError", () => { throw new TypeError("planted"); }],
    ["slowness", "ms", () => Bun.sleepSync(11)],
    ["a huge allocation", "an allocation of", () => { new Uint8Array(20_000_000).fill(1, 0, 1); }],
  ];
  for (const [name, message, target] of planted) {
    test(`would notice ${name}`, () => {
      const result = new Attack(material, { seed: SEED, targets: [target] });
      result.run(5);
      expect(result.violationCount).toBeGreaterThan(0);
      expect(result.violations.some((violation) => violation.includes(message))).toBe(true);
    });
  }
});
