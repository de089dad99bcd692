/**
 * The memory limit holds: a pageserver's storage takes WAL of ten times its limit as fast as it can, merges layers and makes images meanwhile, is
 * read from, and its process never has more than the limit.
 *
 *   bun run verify memory [--limit-mb 320] [--times 10] [--short-every 8]
 *
 * Of every eight pages one is of short rows, in records of a couple of hundred bytes: WAL of nothing else (--short-every 1) takes four times as long.
 *
 * Exit 1 when it had more. Last line: `memory: peak N MB of M MB, ingesting W MB of WAL`.
 */
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { runWithinMemory } from "./memory/run.ts";

const MIB = 1024 * 1024;
const { values: args } = parseArgs({ options: { "limit-mb": { type: "string", default: "320" }, times: { type: "string", default: "10" }, "short-every": { type: "string", default: "8" } } });
const limitBytes = Number(args["limit-mb"]) * MIB;
const startMs = performance.now();
const run = await runWithinMemory({ limitBytes, walBytes: limitBytes * Number(args.times), shortEvery: Number(args["short-every"]) });
const seconds = (performance.now() - startMs) / 1000;
const mb = (bytes: number): string => (bytes / MIB).toFixed(0);
console.log(`${run.records} records, ${run.pagesRead} pages read meanwhile, ${run.layers} layers at the end (${run.l0} of them L0, ${run.images} images), ${seconds.toFixed(0)} s, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
console.log(`of the limit ${mb(run.layerMemoryBytes)} MB for values of in-memory layers`);
console.log(`memory: peak ${mb(run.peakBytes)} MB of ${mb(limitBytes)} MB, ingesting ${mb(run.walBytes)} MB of WAL`);
process.exit(run.peakBytes <= limitBytes && run.walBytes >= limitBytes * Number(args.times) ? 0 : 1);
