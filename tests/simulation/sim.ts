/**
 * The simulator's command line.
 *
 *   bun run sim --seeds 2000             seeds of both layers, one in four of the whole system
 *   bun run sim --seed 17 --trace        one seed of the whole system with everything that happened (--layer core: of the fast layer)
 *   bun run sim --exhaustive             every interleaving of small configurations; those larger than --limit states (500,000) are left open
 *   bun run sim --reductions             symmetry and partial order against exploration without them, on every mutant of the cores
 *   bun run sim --mutants                deliberate mistakes, each of which must be noticed
 *
 * Exit status 1 when an invariant was violated, or a mutant was not noticed.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { CARELESS, CONFIGURATIONS } from "./core/explore/configurations.ts";
import { checkReductions, describeExplored, type Explored, exploreOne, type ReductionCheck, report } from "./core/explore/exhaustive.ts";
import { hunt, type Hunt } from "./mutants/hunt.ts";
import { MUTANTS } from "./mutants/all.ts";
import { type Layer, type RangeResult, runRange, seedRunner } from "./run-seeds.ts";

const WORLD_SHARE = 0.25;
const DEFAULT_LIMIT = 500_000;
/** Seeds of one process at most: code that has just been loaded is slow, a process that runs long grows. */
const CHUNK: Readonly<Record<Layer, number>> = { world: 1000, core: 5000 };

const { values } = parseArgs({
  options: {
    seeds: { type: "string" }, seed: { type: "string" }, trace: { type: "boolean" }, layer: { type: "string" }, exhaustive: { type: "boolean" }, reductions: { type: "boolean" }, mutants: { type: "boolean" },
    limit: { type: "string" },
    // Of the processes that this one starts.
    range: { type: "string" }, mutant: { type: "string" }, explore: { type: "string" }, reduction: { type: "string" }, careless: { type: "boolean" },
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
  const chunk = Math.min(CHUNK[layer], Math.ceil(count / availableParallelism()));
  for (let from = first; from < first + count; from += chunk) tasks.push(["--layer", layer, "--range", `${from}:${Math.min(from + chunk, first + count)}`]);
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

async function exhaustive(): Promise<number> {
  const limit = values.limit === undefined ? [] : ["--limit", values.limit];
  const all: Explored[] = [];
  await inParallel<Explored>(CONFIGURATIONS.map((_, index) => ["--explore", String(index), ...limit]), (explored) => {
    all.push(explored);
    console.log(describeExplored(explored));
  });
  return report(all);
}

/** The reductions of the exploration against the exploration without them, on the code as it is and on every mutant of the cores. */
async function reductions(): Promise<number> {
  let [differences, found] = [0, 0];
  const names = ["", ...MUTANTS.filter(({ layer }) => layer === undefined).map(({ name }) => name)];
  await inParallel<ReductionCheck>(names.map((name) => ["--reduction", name]), (check) => {
    differences += check.differences.length;
    const by = check.found.find((message) => message !== null) ?? null;
    if (by !== null) found++;
    console.log(`${check.mutant ?? "the code as it is"}: ${by === null ? "nothing found" : `found (${by})`}, ${check.differences.length === 0 ? "with the reductions the same" : `DIFFERENT with the reductions:\n${check.differences.join("\n")}`}`);
  });
  console.log(`sim: ${names.length - 1} mutants of the cores explored, ${found} found, ${differences} differences between reduced and full exploration`);
  return differences === 0 ? 0 : 1;
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
    console.log(JSON.stringify(await exploreOne(CONFIGURATIONS[Number(values.explore)], Number(values.limit ?? DEFAULT_LIMIT))));
    return 0;
  }
  if (values.reduction !== undefined) {
    console.log(JSON.stringify(await checkReductions(MUTANTS.find(({ name }) => name === values.reduction) ?? null)));
    return 0;
  }
  if (values.careless === true) {
    console.log(describeExplored(await exploreOne(CARELESS, Number(values.limit ?? DEFAULT_LIMIT))));
    return 0;
  }
  if (values.reductions === true) return reductions();
  if (values.exhaustive === true) return exhaustive();
  if (values.mutants === true) return allMutants();
  if (values.seeds === undefined && values.seed !== undefined) return oneSeed(Number(values.seed));
  return manySeeds(Number(values.seeds ?? 2000), Number(values.seed ?? 1));
}

process.exit(await main());
