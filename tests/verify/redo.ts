/**
 * Redo against PostgreSQL itself: `bun tests/verify/redo.ts --pg 14|15|16|17 [--minutes N] [--seed S] [--sql DIR]`.
 *
 * Runs our SQL corpus (and the files of --sql) on that server with wal_consistency_checking = all, applies every record
 * with our redo, and compares each page with the image PostgreSQL logged beside it, and in the end clog, multixact and
 * commit_ts with the data directory. Exit code 1 on any difference or unexplained gap. However it ends, the last line says
 * the result, or that there is none and why, and then the exit code is not 0.
 */
import { parseArgs } from "node:util";
import { join } from "node:path";
import { maskingRule } from "../../src/postgres/redo/masking/masking.ts";
import { redoManagerName } from "../../src/postgres/redo/redo.ts";
import { STOCK_MAJORS, type StockMajor } from "../support/stock-postgres.ts";
import { readScripts } from "./redo/corpus.ts";
import { type RedoCheckResult, checkRedo } from "./redo/run.ts";

/** What the corpus and the server's start and stop may take on a busy machine; a minute or two is usual. */
const CORPUS_LIMIT_MS = 20 * 60_000;
const CORPUS = join(import.meta.dir, "redo-corpus");

function printCoverage({ replay, kinds }: RedoCheckResult): void {
  console.log("\nmanager   record                 block  init  image      count");
  const rows = [...replay.coverage.values()].sort((a, b) => a.rmid - b.rmid || a.operation - b.operation || a.blockId - b.blockId);
  for (const row of rows) {
    const kind = kinds.find(({ rmid, info }) => rmid === row.rmid && info === row.operation);
    const name = kind?.name ?? `0x${row.operation.toString(16)}`;
    const cells = [(kind?.manager ?? redoManagerName(row.rmid)).padEnd(9), name.padEnd(22), String(row.blockId).padStart(5)];
    console.log([...cells, row.init ? " init" : "     ", row.image.padEnd(9), String(row.count).padStart(8)].join(" "));
  }
}

function printRules({ replay }: RedoCheckResult): void {
  console.log("\nDisregarded in comparisons, as PostgreSQL does, besides LSN and checksum:");
  for (const rmid of new Set([...replay.coverage.values()].map((row) => row.rmid))) {
    console.log(`  ${redoManagerName(rmid).padEnd(9)} ${maskingRule(rmid) ?? "nothing"}`);
  }
}

/** "clog, multixact and commit_ts equal …": whole pages, nothing disregarded. */
function printStatus({ status }: RedoCheckResult): void {
  const counts = Object.entries(status.pages).map(([directory, count]) => `${count} of ${directory}`).join(", ");
  for (const difference of status.differences) console.log(`DIFFERENCE ${difference}`);
  console.log(`\nclog, multixact and commit_ts: ${counts} compared with the data directory, nothing disregarded, after ${status.changes} changes: ${status.differences.length} differences`);
}

function printResult(major: StockMajor, result: RedoCheckResult): boolean {
  const { replay, notSeen, seen } = result;
  printCoverage(result);
  printRules(result);
  const gaps = notSeen.filter(({ reason }) => reason === null);
  if (notSeen.length > 0) console.log("\nNot exercised:");
  for (const { what, reason } of notSeen) console.log(`  ${what}: ${reason ?? "UNEXPLAINED"}`);
  for (const difference of replay.differences) console.log(`DIFFERENCE ${difference}`);
  printStatus(result);
  const differences = replay.differenceCount + result.status.differences.length;
  console.log(`redo pg${major}: ${replay.comparedCount} pages compared, ${differences} differences, ${seen} record kinds, ${gaps.length} unexplained gaps`);
  return differences === 0 && gaps.length === 0 && replay.comparedCount > 0;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      pg: { type: "string", default: "17" }, minutes: { type: "string", default: "0" }, seed: { type: "string", default: "1" },
      sql: { type: "string" }, only: { type: "string" },
    },
  });
  const major = STOCK_MAJORS.find((known) => String(known) === values.pg);
  if (major === undefined) throw new Error(`--pg ${values.pg}: one of ${STOCK_MAJORS.join(", ")}`);
  // A server or session that never answers would leave the run waiting for ever, without a word.
  const limitMs = Number(values.minutes) * 60_000 + CORPUS_LIMIT_MS;
  const watchdog = setTimeout(() => {
    console.log(`redo pg${major}: no result, still not done after ${Math.round(limitMs / 60_000)} minutes`);
    process.kill(process.pid, "SIGTERM");
  }, limitMs);
  const own = (await readScripts(CORPUS)).filter(({ name }) => values.only === undefined || values.only.split(",").includes(name));
  const scripts = values.sql === undefined ? own : [...own, ...(await readScripts(values.sql))];
  const running = checkRedo({ major, scripts, soakMs: Number(values.minutes) * 60_000, seed: Number(values.seed), log: console.log });
  const passed = await running.then((result) => printResult(major, result), (error: unknown) => {
    console.log(error);
    console.log(`redo pg${major}: no result, ${error instanceof Error ? error.message : String(error)}`);
    return false;
  });
  clearTimeout(watchdog);
  if (!passed) process.exitCode = 1;
}

await main();
