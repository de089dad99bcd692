import { expect, test } from "bun:test";
import { runWithinMemory } from "./memory/run.ts";

const MIB = 1024 * 1024;
const LIMIT_BYTES = 320 * MIB;
/** Several times what in-memory layers may hold. */
const WAL_BYTES = 110 * MIB;

test("ingest, merging, images and reads stay within the memory limit", async () => {
  const run = await runWithinMemory({ limitBytes: LIMIT_BYTES, walBytes: WAL_BYTES, shortEvery: 1 });
  expect(run.walBytes).toBeGreaterThanOrEqual(WAL_BYTES);
  expect(run.walBytes).toBeGreaterThan(run.layerMemoryBytes * 2);
  expect(run.peakBytes).toBeLessThanOrEqual(LIMIT_BYTES);
  expect(run.pagesRead).toBeGreaterThan(100);
  expect(run.l0).toBeLessThan(3);
  expect(run.images).toBeGreaterThan(0);
  expect(run.stillHeldBytes).toBe(0);
}, 600_000);
