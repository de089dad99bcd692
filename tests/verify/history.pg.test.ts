import { expect, test } from "bun:test";
import { STOCK_MAJORS } from "../support/stock-postgres.ts";
import { runEpoch } from "./history/run.ts";

const SEED = Number(process.env["STRATA_SEED"] ?? Math.floor(Math.random() * 1e6));
const MAJOR = process.env["STRATA_SEED"] === undefined ? 17 : STOCK_MAJORS[SEED % STOCK_MAJORS.length] ?? 17;

test(`pages at every LSN are PostgreSQL ${MAJOR}'s (seed ${SEED})`, async () => {
  const result = await runEpoch({ major: MAJOR, seed: SEED, durationMs: 40_000, log: (line) => console.log(line) });
  console.log(`history: ${result.compared + result.restPages} page-at-LSN compared, ${result.differences.length} differences (PostgreSQL ${MAJOR}, seed ${SEED})`);
  expect(result.differences.slice(0, 10)).toEqual([]);
  expect(result.compared).toBeGreaterThan(200);
  expect(result.restPages).toBeGreaterThan(3000);
}, 180_000);
