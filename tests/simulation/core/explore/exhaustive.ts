/** `bun run sim --exhaustive`: the configurations one by one, each in a process of its own. */
import { mutate, type Mutant } from "../../mutants/mutant.ts";
import { openCores } from "../open-cores.ts";
import { type Configuration, SMALL } from "./configurations.ts";
import type { Exploration } from "./explore.ts";

export interface Explored {
  readonly name: string;
  readonly cpuSeconds: number;
  readonly result: Exploration;
}

export async function exploreOne(configuration: Configuration, maxStates: number): Promise<Explored> {
  openCores(null);
  // The cores must be loaded after that.
  const { explore } = await import("./explore.ts");
  const before = process.cpuUsage();
  const result = explore(configuration, { maxStates, onProgress: (states, waiting) => console.error(`${configuration.name}: ${states} states, ${waiting} waiting`) });
  const { user, system } = process.cpuUsage(before);
  return { name: configuration.name, cpuSeconds: (user + system) / 1e6, result };
}

/** Says what came of all of them. Returns the exit status. */
export function report(all: readonly Explored[]): number {
  const sum = (what: (explored: Explored) => number): number => all.reduce((total, explored) => total + what(explored), 0);
  const closed = all.filter(({ result }) => result.closed).length;
  const violations = all.filter(({ result }) => result.violation !== null).length;
  const states = sum(({ result }) => result.states);
  console.log(`sim: ${states} states, ${closed} of ${all.length} configurations closed, ${violations} violations (${Math.round(states / sum(({ cpuSeconds }) => cpuSeconds))} states a second of one core)`);
  return violations === 0 ? 0 : 1;
}

export function describeExplored({ name, cpuSeconds, result }: Explored): string {
  const end = result.closed ? "closed" : result.violation === null ? "NOT closed" : "VIOLATION";
  const { nodes, computes, channels } = result.parts;
  const line = `${end}: ${name}: ${result.states} states, ${result.transitions} transitions, ${result.deepest} deep, ${result.ends.count} ends, ${cpuSeconds.toFixed(1)} s of CPU, ${result.bytesPerState.toFixed(0)} bytes a state; ` +
    `parts: ${nodes} of a node, ${computes} of a compute, ${channels} of a connection; a state was left out with a probability below ${result.omissionProbability.toExponential(0)}`;
  if (result.violation === null) return line;
  return `${line}\n${result.violation.message}\n${result.violation.path.map((step, at) => `${at}. ${step}`).join("\n")}`;
}

/** What the small configurations find, with the reductions and without: configuration, symmetry, partial order, states, message. */
export interface ReductionCheck {
  readonly mutant: string | null;
  /** By configuration: what the full exploration found; null: nothing. */
  readonly found: readonly (string | null)[];
  /** Where a reduced exploration found something else. */
  readonly differences: readonly string[];
}

const REDUCTIONS = [{ symmetry: true, partialOrder: true }, { symmetry: true, partialOrder: false }, { symmetry: false, partialOrder: true }] as const;

/** Whether the reductions find the same violations, and otherwise the same states in which nothing more can happen. */
export async function checkReductions(mutant: Mutant | null): Promise<ReductionCheck> {
  if (mutant !== null) mutate(mutant);
  openCores(mutant);
  const { explore } = await import("./explore.ts");
  const found: (string | null)[] = [];
  const differences: string[] = [];
  for (const configuration of SMALL) {
    const limits = { maxStates: 2_000_000 };
    const full = explore(configuration, { ...limits, symmetry: false, partialOrder: false });
    found.push(full.violation?.message ?? null);
    for (const reduction of REDUCTIONS) {
      const reduced = explore(configuration, { ...limits, ...reduction });
      const isSame = full.violation === null ? reduced.violation === null && reduced.closed === full.closed && reduced.ends.hash === full.ends.hash : reduced.violation !== null;
      if (!isSame) differences.push(`${configuration.name}, ${JSON.stringify(reduction)}: ${reduced.violation?.message ?? "no violation"}, ${reduced.ends.count} ends; in full: ${full.violation?.message ?? "no violation"}, ${full.ends.count} ends`);
    }
  }
  return { mutant: mutant?.name ?? null, found, differences };
}
