/**
 * Pages at every LSN: `bun run verify history --pg 14|15|16|17 [--minutes N] [--seed S]`.
 *
 * Runs random SQL on that server with wal_consistency_checking = all, takes its log into timelines that are branched at
 * random records, flushed, compacted, collected, evicted and restarted (from the local disk, and from the bucket alone) all
 * the while, and compares pages read at random LSNs, on branches too, with the images PostgreSQL logged, after its own
 * masking; at each shutdown every page with the server's directory. Exit code 1 on any difference.
 */
import { parseArgs } from "node:util";
import { ALLOWED } from "../support/compare-datadir.ts";
import { STOCK_MAJORS } from "../support/stock-postgres.ts";
import { runEpoch } from "./history/run.ts";

const EPOCH_MS = 90_000;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { pg: { type: "string", default: "17" }, minutes: { type: "string", default: "1" }, seed: { type: "string", default: String(Math.floor(Math.random() * 1e6)) } } });
  const major = STOCK_MAJORS.find((known) => String(known) === values.pg);
  if (major === undefined) throw new Error(`--pg ${values.pg}: one of ${STOCK_MAJORS.join(", ")}`);
  const totalMs = Number(values.minutes) * 60_000;
  const epochs = Math.max(1, Math.round(totalMs / EPOCH_MS));
  let [compared, differences] = [0, 0];
  for (const rule of ALLOWED) console.log(`allowed at rest: ${rule}`);
  for (let i = 0; i < epochs; i++) {
    const seed = Number(values.seed) + i;
    console.log(`PostgreSQL ${major}, seed ${seed}`);
    const result = await runEpoch({ major, seed, durationMs: totalMs / epochs, log: (line) => console.log(`  ${line}`) });
    compared += result.compared + result.restPages;
    differences += result.differences.length;
    for (const difference of result.differences.slice(0, 20)) console.log(`DIFFERENCE ${difference}`);
  }
  console.log(`history: ${compared} page-at-LSN compared, ${differences} differences`);
  if (differences > 0 || compared === 0) process.exitCode = 1;
}

await main();
