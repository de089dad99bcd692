/** Runs seeds against one mutant until one notices. */
import { type Layer, seedRunner } from "../run-seeds.ts";
import { MUTANTS } from "./all.ts";
import { plant } from "./mutant.ts";

export interface Hunt {
  readonly name: string;
  readonly caught: { readonly layer: Layer; readonly seeds: number; readonly by: string } | null;
  /** In all, over both layers. */
  readonly seeds: number;
}

/** The fast layer first. */
const LIMITS: readonly (readonly [Layer, number])[] = [["core", 6000], ["world", 150]];

/** Must be the first thing that happens in its process. @throws when the mutated code is never loaded */
export async function hunt(name: string): Promise<Hunt> {
  const mutant = MUTANTS.find((candidate) => candidate.name === name);
  if (mutant === undefined) throw new Error(`no mutant "${name}"`);
  const isLoaded = plant(mutant);
  let total = 0;
  for (const [layer, limit] of LIMITS) {
    if (mutant.layer === "world" && layer === "core") continue;
    const run = await seedRunner(layer);
    if (!isLoaded()) continue;
    for (let seed = 1; seed <= limit; seed++) {
      total++;
      const { violation } = run(seed);
      if (violation !== null) return { name, seeds: total, caught: { layer, seeds: seed, by: violation.message.split("\n")[0].slice(0, 160) } };
    }
  }
  if (!isLoaded()) throw new Error(`mutant ${name}: src/${mutant.file} was not loaded by the simulator`);
  return { name, seeds: total, caught: null };
}
