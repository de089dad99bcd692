/**
 * Crashes at every point: `bun run verify crash --role safekeeper|pageserver [--points N] [--seed S]`.
 *
 * On the virtual disk, one run for each operation that changes it (write, fsync, rename, truncate, …) and each fault: kill -9,
 * loss of power, torn write, EIO, ENOSPC once or until the process ends; for a pageserver also for each request to object storage:
 * 503 before and after its effect, downloads cut short. With more points than one life has, further seeds make further lives. Exit code 1 when an
 * acknowledged (a pageserver: remote-consistent) byte is lost, or the timeline does not open again.
 */
import { parseArgs } from "node:util";
import { describeError } from "../../src/kit/errors.ts";
import * as pageserver from "./crash/pageserver.ts";
import * as safekeeper from "./crash/safekeeper.ts";

const { values } = parseArgs({ options: { role: { type: "string", default: "safekeeper" }, points: { type: "string", default: "1000" }, seed: { type: "string", default: "1" } } });
const wanted = Number(values.points);

interface Runnable {
  readonly fault: string;
  readonly describe: string;
  run(): number;
}

/** Every operation with every fault that can happen to it, seed after seed. */
function* pointsOf<Fault extends string, Kind>(
  role: { operationsOf(seed: number): Kind[]; applies(fault: Fault, kind: Kind): boolean; runPoint(point: { seed: number; operation: number; fault: Fault }): number; readonly FAULTS: readonly Fault[] },
  firstSeed: number,
): Generator<Runnable> {
  for (let seed = firstSeed; ; seed++) {
    for (const [operation, kind] of role.operationsOf(seed).entries()) {
      for (const fault of role.FAULTS) {
        const point = { seed, operation, fault };
        if (role.applies(fault, kind)) yield { fault, describe: JSON.stringify(point), run: () => role.runPoint(point) };
      }
    }
  }
}

function points(): Generator<Runnable> {
  if (values.role === "safekeeper") return pointsOf(safekeeper, Number(values.seed));
  if (values.role === "pageserver") return pointsOf(pageserver, Number(values.seed));
  throw new Error(`--role ${values.role}: safekeeper or pageserver`);
}

const startMs = performance.now();
const counts = new Map<string, number>();
let done = 0;
let lost = 0;
let acknowledged = 0;
for (const point of points()) {
  if (done >= wanted) break;
  done++;
  counts.set(point.fault, (counts.get(point.fault) ?? 0) + 1);
  try {
    acknowledged += point.run() > 0 ? 1 : 0;
  } catch (error) {
    lost++;
    console.log(`LOST at ${point.describe}: ${describeError(error)}`);
  }
}
console.log([...counts].map(([fault, count]) => `${count} ${fault}`).join(", "));
console.log(`${acknowledged} of them after something had been acknowledged (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
console.log(`crash ${values.role}: ${done} points, ${lost} lost`);
process.exitCode = lost === 0 && done > 0 ? 0 : 1;
