/**
 * Damaged WAL against decoding, effects and redo: `bun tests/verify/hostile-wal.ts --records N [--seed S] [--pg 14,15,16,17]`.
 *
 * Takes records and pages of our SQL corpus on those servers, damages them from the seed (bits, lengths, offsets, block ids,
 * compressed images, pages of other kinds) and asserts that nothing but typed errors comes of it: no crash, no attempt
 * over 10 ms, nothing read or written outside record and page, no allocation over 16 MiB. Exit code 1 on a violation.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { STOCK_MAJORS, type StockMajor } from "../support/stock-postgres.ts";
import { type AttackResult, runAttack } from "./hostile/attack.ts";
import { type Material, collectMaterial } from "./hostile/collect.ts";
import { readScripts } from "./redo/corpus.ts";

function majorsOf(list: string): StockMajor[] {
  return list.split(",").map((text) => {
    const major = STOCK_MAJORS.find((known) => String(known) === text);
    if (major === undefined) throw new Error(`--pg ${text}: any of ${STOCK_MAJORS.join(",")}`);
    return major;
  });
}

function printOutcomes({ outcomes }: AttackResult): void {
  for (const [code, count] of [...outcomes].sort((a, b) => b[1] - a[1])) console.log(`${String(count).padStart(10)} ${code === "" ? "applied" : code}`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { records: { type: "string", default: "1000000" }, seed: { type: "string", default: "1" }, pg: { type: "string", default: STOCK_MAJORS.join(",") } },
  });
  const scripts = await readScripts(join(import.meta.dir, "redo-corpus"));
  const material: Material = { samples: [], windows: [] };
  for (const major of majorsOf(values.pg)) {
    const { samples, windows } = await collectMaterial(major, scripts);
    material.samples.push(...samples);
    material.windows.push(...windows);
    console.log(`pg${major}: ${new Set(samples.map(({ kind }) => kind)).size} kinds of records`);
  }
  const startMs = performance.now();
  const result = runAttack(material, { attempts: Number(values.records), seed: Number(values.seed) });
  printOutcomes(result);
  console.log(`${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  for (const violation of result.violations) console.log(`VIOLATION ${violation}`);
  console.log(`hostile-wal: ${result.attempts} records, ${result.violationCount} violations`);
  if (result.violationCount > 0) process.exitCode = 1;
}

await main();
