/**
 * Pages at every LSN: `bun run verify history --pg 14|15|16|17 [--minutes N] [--seed S]`.
 *
 * Runs random SQL on that server with wal_consistency_checking = all, takes its log into timelines that are branched at
 * random records, flushed, compacted, collected, evicted and restarted (from the local disk, and from the bucket alone) all
 * the while, and compares pages read at random LSNs, on branches too, with the images PostgreSQL logged, after its own
 * masking; at each shutdown every page with the server's directory. Further servers begin on branches, from nothing but the pages
 * of a random LSN, and write histories of their own. Exit code 1 on any difference; an interrupt ends it early with what it has.
 */
import { parseArgs } from "node:util";
import { Cancelled } from "../../src/kit/errors.ts";
import { ALLOWED } from "../support/compare-datadir.ts";
import { STOCK_MAJORS, type StockMajor } from "../support/stock-postgres.ts";
import { Coverage } from "./history/coverage.ts";
import { runEpoch } from "./history/epoch.ts";

/** A new server and a new store each time. */
const EPOCH_MS = 240_000;
const SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const;

function interruption(): AbortSignal {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      // The second one does not wait for servers to be stopped.
      if (stop.signal.aborted) process.exit(SIGNALS[name]);
      console.log(`${name}: ending with what there is`);
      process.exitCode = SIGNALS[name];
      stop.abort(new Cancelled(name));
    });
  }
  return stop.signal;
}

interface Total {
  readonly coverage: Coverage;
  restPages: number;
  differences: number;
}

async function epoch(total: Total, options: { major: StockMajor; seed: number; durationMs: number; signal: AbortSignal }): Promise<void> {
  console.log(`PostgreSQL ${options.major}, seed ${options.seed}`);
  const result = await runEpoch({ ...options, log: (line) => console.log(`  ${line}`) });
  total.coverage.add(result.coverage);
  total.restPages += result.restPages;
  total.differences += result.differences.length;
  for (const difference of result.differences.slice(0, 20)) console.log(`DIFFERENCE ${difference}`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { pg: { type: "string", default: "17" }, minutes: { type: "string", default: "1" }, seed: { type: "string", default: String(Math.floor(Math.random() * 1e6)) } } });
  const major = STOCK_MAJORS.find((known) => String(known) === values.pg);
  if (major === undefined) throw new Error(`--pg ${values.pg}: one of ${STOCK_MAJORS.join(", ")}`);
  const signal = interruption();
  const totalMs = Number(values.minutes) * 60_000;
  const epochs = Math.max(1, Math.round(totalMs / EPOCH_MS));
  const total: Total = { coverage: new Coverage(), restPages: 0, differences: 0 };
  for (const rule of ALLOWED) console.log(`allowed at rest: ${rule}`);
  for (let i = 0; i < epochs && !signal.aborted; i++) await epoch(total, { major, seed: Number(values.seed) + i, durationMs: totalMs / epochs, signal });
  for (const line of total.coverage.lines()) console.log(line);
  console.log(`${String(total.restPages).padStart(10)} more compared with the directories of servers at rest`);
  const compared = total.coverage.compared + total.restPages;
  console.log(`history: ${compared} page-at-LSN compared, ${total.differences} differences`);
  if (total.differences > 0 || compared === 0) process.exitCode = 1;
}

await main();
