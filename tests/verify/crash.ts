/**
 * Crashes at every point: `bun run verify crash --role safekeeper|pageserver [--points N] [--seed S]`.
 *
 * On the virtual disk, one run for each operation that changes it (write, fsync, rename, truncate, …) and each fault: kill -9,
 * loss of power, torn write, EIO, ENOSPC. With more points than one life has, further seeds make further lives. Exit code 1 when an
 * acknowledged (a pageserver: remote-consistent) byte is lost, or the timeline does not open again.
 */
import { parseArgs } from "node:util";
import { describeError } from "../../src/kit/errors.ts";
import * as pageserver from "./crash/pageserver.ts";
import { applies, FAULTS, type Point } from "./crash/safekeeper.ts";
import * as safekeeper from "./crash/safekeeper.ts";

const { values } = parseArgs({ options: { role: { type: "string", default: "safekeeper" }, points: { type: "string", default: "1000" }, seed: { type: "string", default: "1" } } });
const role = values.role === "safekeeper" ? safekeeper : values.role === "pageserver" ? pageserver : null;
if (role === null) throw new Error(`--role ${values.role}: safekeeper or pageserver`);
const { operationsOf, runPoint } = role;
const wanted = Number(values.points);

function* points(firstSeed: number): Generator<Point> {
  for (let seed = firstSeed; ; seed++) {
    for (const [operation, kind] of operationsOf(seed).entries()) {
      for (const fault of FAULTS) if (applies(fault, kind)) yield { seed, operation, fault };
    }
  }
}

const startMs = performance.now();
const counts = new Map<string, number>();
let done = 0;
let lost = 0;
let acknowledged = 0;
for (const point of points(Number(values.seed))) {
  if (done >= wanted) break;
  done++;
  counts.set(point.fault, (counts.get(point.fault) ?? 0) + 1);
  try {
    acknowledged += runPoint(point) > 0 ? 1 : 0;
  } catch (error) {
    lost++;
    console.log(`LOST at ${JSON.stringify(point)}: ${describeError(error)}`);
  }
}
console.log([...counts].map(([fault, count]) => `${count} ${fault}`).join(", "));
console.log(`${acknowledged} of them after something had been acknowledged (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
console.log(`crash ${values.role}: ${done} points, ${lost} lost`);
process.exitCode = lost === 0 && done > 0 ? 0 : 1;
