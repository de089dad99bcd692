/**
 * Damaged WAL against decoding, effects and redo: `bun tests/verify/hostile-wal.ts --records N [--seed S] [--pg 14,15,16,17]`.
 *
 * Takes records and pages of our SQL corpus on those servers, damages them from the seed (bits, lengths, offsets, block ids,
 * compressed images, pages of other kinds) and asserts that nothing but typed errors comes of it: no crash, no attempt
 * over 10 ms, nothing read or written outside record and page, no allocation over 16 MiB. Exit code 1 on a violation.
 *
 * For hours if need be: it says every ten seconds how far it is, keeps nothing but counts and the first violations, and when it
 * is interrupted or terminated it ends at once with the last lines for what has been done.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { STOCK_MAJORS, type StockMajor } from "../support/stock-postgres.ts";
import { Attack } from "./hostile/attack.ts";
import { type Material, collectMaterial } from "./hostile/collect.ts";
import { readScripts } from "./redo/corpus.ts";

/** Some tenths of a second: signals are heard in between. */
const ATTEMPTS_AT_ONCE = 2000;
const PROGRESS_EVERY_MS = 10_000;

/** Whether the run has been asked to end; a second signal ends it the hard way. */
let stopped = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => (stopped = true));

function majorsOf(list: string): StockMajor[] {
  return list.split(",").map((text) => {
    const major = STOCK_MAJORS.find((known) => String(known) === text);
    if (major === undefined) throw new Error(`--pg ${text}: any of ${STOCK_MAJORS.join(",")}`);
    return major;
  });
}

function printOutcomes({ outcomes }: Attack): void {
  for (const [code, count] of [...outcomes].sort((a, b) => b[1] - a[1])) console.log(`${String(count).padStart(10)} ${code === "" ? "applied" : code}`);
}

/** Samples of every major; fewer when the run is stopped meanwhile. */
async function collectAll(majors: readonly StockMajor[]): Promise<Material> {
  const scripts = await readScripts(join(import.meta.dir, "redo-corpus"));
  const material: Material = { samples: [], windows: [] };
  for (const major of majors) {
    if (stopped) break;
    const { samples, windows } = await collectMaterial(major, scripts);
    material.samples.push(...samples);
    material.windows.push(...windows);
    console.log(`pg${major}: ${new Set(samples.map(({ kind }) => kind)).size} kinds of records`);
  }
  return material;
}

async function attackAll(attack: Attack, attempts: number): Promise<void> {
  const startMs = performance.now();
  let saidMs = startMs;
  const say = (): void => {
    const seconds = (performance.now() - startMs) / 1000;
    const rate = Math.round(attack.attempts / seconds).toLocaleString("en");
    const memory = `${(process.memoryUsage.rss() / 1e6).toFixed(0)} MB`;
    console.log(`${seconds.toFixed(0)} s: ${attack.attempts.toLocaleString("en")} of ${attempts.toLocaleString("en")} records, ${rate} a second, ${attack.violationCount} violations, ${memory}`);
  };
  while (attack.attempts < attempts && !stopped) {
    attack.run(Math.min(ATTEMPTS_AT_ONCE, attempts - attack.attempts));
    await new Promise((resolve) => setImmediate(resolve));
    if (performance.now() - saidMs < PROGRESS_EVERY_MS) continue;
    saidMs = performance.now();
    say();
  }
  say();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { records: { type: "string", default: "1000000" }, seed: { type: "string", default: "1" }, pg: { type: "string", default: STOCK_MAJORS.join(",") } },
  });
  const material = await collectAll(majorsOf(values.pg));
  const attack = new Attack(material, { seed: Number(values.seed) });
  if (!stopped) await attackAll(attack, Number(values.records));
  printOutcomes(attack);
  for (const violation of attack.violations) console.log(`VIOLATION ${violation}`);
  console.log(`hostile-wal: ${attack.attempts} records, ${attack.violationCount} violations`);
  process.exitCode = attack.violationCount > 0 ? 1 : 0;
}

await main();
