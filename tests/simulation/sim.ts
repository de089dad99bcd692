/**
 * The simulator's command line.
 *
 *   bun run sim --seeds 2000             seeds of both layers, one in four of the whole system
 *   bun run sim --seed 17 --trace        one seed of the whole system with everything that happened (--layer core: of the fast layer)
 *   bun run sim --exhaustive             every interleaving of small configurations; those larger than --limit states are left open
 *   bun run sim --mutants                deliberate mistakes, each of which must be noticed
 *
 * Exit status 1 when an invariant was violated, or a mutant was not noticed.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { CONFIGURATIONS } from "./core/configurations.ts";
import type { Exploration } from "./core/explore.ts";
import { openCores } from "./core/open-cores.ts";
import { hunt, type Hunt } from "./mutants/hunt.ts";
import { MUTANTS } from "./mutants/all.ts";
import { type Layer, type RangeResult, runRange, seedRunner } from "./run-seeds.ts";

const WORLD_SHARE = 0.25;
const DEFAULT_LIMIT = 200_000;
/** Of one process: few, for code that has just been loaded is slow. */
const CHUNK: Readonly<Record<Layer, number>> = { world: 125, core: 750 };

const { values } = parseArgs({
  options: {
    seeds: { type: "string" }, seed: { type: "string" }, trace: { type: "boolean" }, layer: { type: "string" }, exhaustive: { type: "boolean" }, mutants: { type: "boolean" },
    limit: { type: "string" },
    // Of the processes that this one starts.
    range: { type: "string" }, mutant: { type: "string" }, explore: { type: "string" },
  },
});

function layerOf(text: string | undefined): Layer | null {
  if (text === undefined) return null;
  if (text === "world" || text === "core") return text;
  throw new Error(`--layer ${text}: world or core`);
}

/** Runs this program again; its last line is the result. */
async function child<T>(args: readonly string[]): Promise<T> {
  const process_ = Bun.spawn([process.execPath, import.meta.path, ...args], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const output = await new Response(process_.stdout).text();
  if ((await process_.exited) !== 0) throw new Error(`${args.join(" ")} failed:\n${output}`);
  return JSON.parse(output.trimEnd().split("\n").at(-1) ?? "") as T;
}

/** `tasks` over as many processes as there are cores; results come as they are ready. */
async function inParallel<T>(tasks: readonly (readonly string[])[], onResult: (result: T) => void): Promise<void> {
  const queue = [...tasks];
  const worker = async (): Promise<void> => {
    for (let task = queue.shift(); task !== undefined; task = queue.shift()) onResult(await child<T>(task));
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), tasks.length) }, worker));
}

function ranges(layer: Layer, first: number, count: number): string[][] {
  const tasks: string[][] = [];
  for (let from = first; from < first + count; from += CHUNK[layer]) tasks.push(["--layer", layer, "--range", `${from}:${Math.min(from + CHUNK[layer], first + count)}`]);
  return tasks;
}

async function manySeeds(count: number, first: number): Promise<number> {
  const only = layerOf(values.layer);
  const world = only === "world" ? count : only === "core" ? 0 : Math.ceil(count * WORLD_SHARE);
  const startMs = performance.now();
  const results: RangeResult[] = [];
  await inParallel<RangeResult>([...ranges("world", first, world), ...ranges("core", first, count - world)], (result) => {
    results.push(result);
    for (const failure of result.failures) {
      console.log(`VIOLATION ${result.layer} seed ${failure.seed} step ${failure.steps}: ${failure.message}\n${failure.tail.join("\n")}\nagain: bun run sim --layer ${result.layer} --seed ${failure.seed} --trace\n`);
    }
  });
  const seconds = (performance.now() - startMs) / 1000;
  const of = (layer: Layer): RangeResult[] => results.filter((result) => result.layer === layer);
  const sum = (some: readonly RangeResult[], what: (result: RangeResult) => number): number => some.reduce((total, result) => total + what(result), 0);
  const kinds = (some: readonly RangeResult[]): Set<string> => new Set(some.flatMap(({ faults }) => faults));
  for (const [layer, what] of [["world", "the whole system: shipping roles, WAL files, protocol"], ["core", "the shipping consensus cores alone"]] as const) {
    if (of(layer).length > 0) console.log(`${layer}: ${sum(of(layer), ({ seeds }) => seeds)} seeds (${what}), ${sum(of(layer), ({ steps }) => steps)} steps, faults: ${[...kinds(of(layer))].sort().join(", ")}`);
  }
  const violations = sum(results, ({ failures }) => failures.length);
  const seeds = sum(results, (result) => result.seeds);
  console.log(`sim: ${seeds} seeds, ${kinds(results).size} fault kinds, ${violations} violations (${(seeds / seconds).toFixed(1)} seeds/s)`);
  return violations === 0 ? 0 : 1;
}

async function oneSeed(seed: number): Promise<number> {
  const run = await seedRunner(layerOf(values.layer) ?? "world");
  const outcome = run(seed, values.trace === true ? (line) => console.log(line) : undefined);
  if (outcome.violation !== null) console.log(`VIOLATION seed ${seed} step ${outcome.steps}: ${outcome.violation.message}\n${values.trace === true ? "" : outcome.tail.join("\n")}`);
  console.log(`sim: seed ${seed}, ${outcome.steps} steps, fingerprint ${outcome.fingerprint}, ${outcome.violation === null ? 0 : 1} violations`);
  return outcome.violation === null ? 0 : 1;
}

/** Whether the seed passes on the code as it is. */
async function isSound(layer: Layer, seed: number): Promise<boolean> {
  const { failures } = await child<RangeResult>(["--layer", layer, "--range", `${seed}:${seed + 1}`]);
  return failures.length === 0;
}

async function allMutants(): Promise<number> {
  let caught = 0;
  await inParallel<Hunt>(MUTANTS.map(({ name }) => ["--mutant", name]), ({ name, seeds, caught: how }) => {
    const rule = MUTANTS.find((mutant) => mutant.name === name)?.rule ?? "";
    if (how !== null) caught++;
    console.log(how === null ? `SURVIVED ${name} (${rule}) after ${seeds} seeds` : `caught ${name} (${rule}) by ${how.layer} seed ${how.seeds}: ${how.by}`);
  });
  console.log(`sim: ${caught} of ${MUTANTS.length} mutants caught`);
  return caught === MUTANTS.length ? 0 : 1;
}

interface Explored {
  readonly name: string;
  readonly seconds: number;
  readonly result: Exploration;
}

async function exploreOne(index: number): Promise<Explored> {
  openCores(null);
  // The cores must be loaded after that.
  const { explore } = await import("./core/explore.ts");
  const startMs = performance.now();
  const result = explore(CONFIGURATIONS[index], { maxStates: Number(values.limit ?? DEFAULT_LIMIT) });
  return { name: CONFIGURATIONS[index].name, seconds: (performance.now() - startMs) / 1000, result };
}

async function exhaustive(): Promise<number> {
  let [states, closed, violations] = [0, 0, 0];
  const limit = values.limit === undefined ? [] : ["--limit", values.limit];
  await inParallel<Explored>(CONFIGURATIONS.map((_, index) => ["--explore", String(index), ...limit]), ({ name, seconds, result }) => {
    states += result.states;
    if (result.closed) closed++;
    const end = result.closed ? "closed" : result.violation === null ? "NOT closed" : "VIOLATION";
    console.log(`${end}: ${name}: ${result.states} states, ${result.transitions} transitions, ${result.deepest} deep, ${seconds.toFixed(1)} s`);
    if (result.violation === null) return;
    violations++;
    console.log(`${result.violation.message}\n${result.violation.path.map((step, at) => `${at}. ${step}`).join("\n")}`);
  });
  console.log(`sim: ${states} states, ${closed} of ${CONFIGURATIONS.length} configurations closed, ${violations} violations`);
  return violations === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  const { range, mutant } = values;
  if (mutant !== undefined) {
    console.log(JSON.stringify(await hunt(mutant, isSound)));
    return 0;
  }
  if (range !== undefined) {
    const [from, to] = range.split(":").map(Number);
    console.log(JSON.stringify(await runRange(layerOf(values.layer) ?? "world", from, to)));
    return 0;
  }
  if (values.explore !== undefined) {
    console.log(JSON.stringify(await exploreOne(Number(values.explore))));
    return 0;
  }
  if (values.exhaustive === true) return exhaustive();
  if (values.mutants === true) return allMutants();
  if (values.seeds === undefined && values.seed !== undefined) return oneSeed(Number(values.seed));
  return manySeeds(Number(values.seeds ?? 2000), Number(values.seed ?? 1));
}

process.exit(await main());
