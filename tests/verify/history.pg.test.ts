import { expect, test } from "bun:test";
import { STOCK_MAJORS } from "../support/stock-postgres.ts";
import { runEpoch } from "./history/epoch.ts";

const SEED = Number(process.env["STRATA_SEED"] ?? Math.floor(Math.random() * 1e6));
const MAJOR = process.env["STRATA_SEED"] === undefined ? 17 : STOCK_MAJORS[SEED % STOCK_MAJORS.length] ?? 17;

test(`pages at every LSN are PostgreSQL ${MAJOR}'s (seed ${SEED})`, async () => {
  const { coverage, restPages, differences } = await runEpoch({ major: MAJOR, seed: SEED, durationMs: 30_000, log: (line) => console.log(line) });
  for (const line of coverage.lines()) console.log(line);
  console.log(`history: ${coverage.compared + restPages} page-at-LSN compared, ${differences.length} differences (PostgreSQL ${MAJOR}, seed ${SEED})`);
  expect(differences.slice(0, 10)).toEqual([]);
  expect(coverage.compared).toBeGreaterThan(1000);
  expect(coverage.of("ownServer")).toBeGreaterThan(100);
  expect(restPages).toBeGreaterThan(5000);
}, 300_000);
