/**
 * Redo against real servers: the corpus of `bun run verify redo` with a short stretch of random SQL after it. Longer
 * runs: `bun run verify redo --pg 17 --minutes 10`.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { STOCK_MAJORS } from "../../support/stock-postgres.ts";
import { parseScript, readScripts } from "../../verify/redo/corpus.ts";
import { checkRedo } from "../../verify/redo/run.ts";

const CORPUS = join(import.meta.dir, "../../verify/redo-corpus");
const TIMEOUT_MS = 240_000;
const SOAK_MS = 3_000;

describe("redo equals PostgreSQL's own pages", () => {
  for (const major of STOCK_MAJORS) {
    test(`PostgreSQL ${major}`, async () => {
      const seed = Math.floor(Math.random() * 1e6);
      const log = (line: string): void => console.log(`redo pg${major} seed ${seed}: ${line}`);
      const result = await checkRedo({ major, scripts: await readScripts(CORPUS), soakMs: SOAK_MS, seed, log });
      expect(result.replay.differences).toEqual([]);
      expect(result.status.differences).toEqual([]);
      expect(result.status.changes).toBeGreaterThan(500);
      expect(result.notSeen.filter(({ reason }) => reason === null)).toEqual([]);
      expect(result.replay.comparedCount).toBeGreaterThan(100_000);
    }, TIMEOUT_MS);
  }
});

describe("the check itself", () => {
  test("a record damaged before redo shows as a difference, once", async () => {
    const script = parseScript("tiny", "CREATE TABLE t (a int, b text);\nINSERT INTO t SELECT i, 'row' FROM generate_series(1, 500) i;\n");
    let inserts = 0;
    let damaged = 0;
    const result = await checkRedo({
      major: 17, scripts: [script], soakMs: 0, seed: 1, log: () => {},
      tamper: (record) => {
        const ref = record.blocks[0];
        if (record.rmid !== RMGR.HEAP || record.blockCount === 0 || !ref.hasData || (record.info & 0x70) !== 0 || ref.applyImage) return;
        if (++inserts % 100 !== 0) return;
        damaged++;
        record.bytes[ref.dataOffset + ref.dataLength - 1] ^= 1;
      },
    });
    expect(damaged).toBeGreaterThan(3);
    expect(result.replay.differenceCount).toBe(damaged);
  }, TIMEOUT_MS);
});
