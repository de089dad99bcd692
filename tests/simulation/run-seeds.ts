/** Seeds of both layers, one after another in this process; `sim.ts` runs several such processes side by side. */
import type { Violation } from "./violation.ts";

export type Layer = "world" | "core";

export interface SeedOutcome {
  readonly violation: Violation | null;
  readonly steps: number;
  readonly fingerprint: string;
  readonly tail: readonly string[];
  readonly faults: ReadonlySet<string>;
}

export interface RangeResult {
  readonly layer: Layer;
  readonly seeds: number;
  readonly steps: number;
  readonly faults: readonly string[];
  readonly failures: readonly { readonly seed: number; readonly steps: number; readonly message: string; readonly tail: readonly string[] }[];
}

const MAX_FAILURES = 3;

/** Loaded late, so that a mutant may be planted before. */
export async function seedRunner(layer: Layer): Promise<(seed: number, print?: (line: string) => void) => SeedOutcome> {
  if (layer === "world") {
    const { runWorld } = await import("./world/run-world.ts");
    return (seed, print) => runWorld(seed, print === undefined ? {} : { print });
  }
  const { runSoup } = await import("./core/run-soup.ts");
  return (seed, print) => runSoup(seed, print === undefined ? {} : { print });
}

/** Ends early after a few failures. */
export async function runRange(layer: Layer, from: number, to: number): Promise<RangeResult> {
  const run = await seedRunner(layer);
  const faults = new Set<string>();
  const failures: RangeResult["failures"][number][] = [];
  let steps = 0;
  let seed = from;
  for (; seed < to && failures.length < MAX_FAILURES; seed++) {
    const outcome = run(seed);
    steps += outcome.steps;
    for (const fault of outcome.faults) faults.add(fault);
    if (outcome.violation !== null) failures.push({ seed, steps: outcome.steps, message: outcome.violation.message, tail: outcome.tail });
  }
  return { layer, seeds: seed - from, steps, faults: [...faults], failures };
}
