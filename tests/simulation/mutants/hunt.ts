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
const LIMITS: readonly (readonly [Layer, number])[] = [["core", 6000], ["world", 400]];

/**
 * Must be the first thing that happens in its process. A seed that fails without the mutant proves nothing about it: `isSound`
 * runs the seed on the code as it is, in a process of its own, and says whether it passes.
 * @throws when the mutated code is never loaded, or a seed fails on the code as it is
 */
export async function hunt(name: string, isSound: (layer: Layer, seed: number) => Promise<boolean>): Promise<Hunt> {
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
      if (violation === null) continue;
      if (!(await isSound(layer, seed))) throw new Error(`${layer} seed ${seed} fails without mutant ${name} as well: that must be looked at first`);
      return { name, seeds: total, caught: { layer, seeds: seed, by: violation.message.split("\n")[0].slice(0, 160) } };
    }
  }
  if (!isLoaded()) throw new Error(`mutant ${name}: src/${mutant.file} was not loaded by the simulator`);
  return { name, seeds: total, caught: null };
}
