/**
 * The simulator as part of the tests: 2,000 seeds over both layers, bit-identical replay, a small exploration, and proof that it can
 * fail. `bun run sim --seeds N`, `--exhaustive` and `--mutants` do more of each.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { ReductionCheck } from "./core/explore/exhaustive.ts";
import { runSoup } from "./core/run-soup.ts";
import { MUTANTS } from "./mutants/all.ts";
import { mutate } from "./mutants/mutant.ts";
import { FAULT_KINDS } from "./world/faults.ts";
import { runWorld } from "./world/run-world.ts";

const SIM = join(import.meta.dir, "sim.ts");
const SEEDS = 2000;
const TIMEOUT_MS = 600_000;

async function sim(...args: string[]): Promise<{ output: string; exitCode: number }> {
  const child = Bun.spawn([process.execPath, SIM, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { output: stdout + stderr, exitCode };
}

test("the same seed gives the same run, to the last bit; another seed another", () => {
  for (const seed of [3, 11]) {
    const [first, second] = [runWorld(seed), runWorld(seed)];
    expect([second.fingerprint, second.steps, second.tail]).toEqual([first.fingerprint, first.steps, first.tail]);
    expect(runWorld(seed + 1000).fingerprint).not.toBe(first.fingerprint);
    const [soup, again] = [runSoup(seed), runSoup(seed)];
    expect([again.fingerprint, again.steps, again.tail]).toEqual([soup.fingerprint, soup.steps, soup.tail]);
  }
}, TIMEOUT_MS);

test("a run of the whole system really works: elections, commits, a reader that gets them", () => {
  let [acknowledgements, elections, readBytes] = [0, 0, 0];
  for (let seed = 1; seed <= 12; seed++) {
    const result = runWorld(seed);
    expect(result.violation).toBeNull();
    acknowledgements += result.acknowledgements;
    elections += result.elections;
    readBytes += result.readBytes;
  }
  expect(acknowledgements).toBeGreaterThan(100);
  expect(elections).toBeGreaterThan(20);
  expect(readBytes).toBeGreaterThan(10_000);
}, TIMEOUT_MS);

test("2,000 seeds, at least 15 kinds of fault, no violation", async () => {
  expect(FAULT_KINDS.length).toBeGreaterThanOrEqual(15);
  const { output, exitCode } = await sim("--seeds", String(SEEDS));
  const match = /sim: (\d+) seeds, (\d+) fault kinds, (\d+) violations/.exec(output);
  if (exitCode !== 0 || match === null) throw new Error(output);
  expect([Number(match[1]), Number(match[3])]).toEqual([SEEDS, 0]);
  expect(Number(match[2])).toBeGreaterThanOrEqual(15);
}, TIMEOUT_MS);

test("every order of small configurations: no violation, and most of them are gone through to the end", async () => {
  const { output, exitCode } = await sim("--exhaustive", "--limit", "100000");
  const match = /sim: (\d+) states, (\d+) of (\d+) configurations closed, (\d+) violations/.exec(output);
  if (exitCode !== 0 || match === null) throw new Error(output);
  expect(Number(match[1])).toBeGreaterThan(1_000_000);
  expect(Number(match[2])).toBeGreaterThanOrEqual(2);
  expect(output).toContain("closed: parted logs, each proposer reaches a majority");
}, TIMEOUT_MS);

test("the exploration with symmetry and partial order finds what the full one finds, and a careless change of members is noticed", async () => {
  const { output, exitCode } = await sim("--reduction", "refused-vote-counts");
  if (exitCode !== 0) throw new Error(output);
  const check = JSON.parse(output) as ReductionCheck;
  expect(check.differences).toEqual([]);
  expect(check.found.filter((message) => message !== null).length).toBeGreaterThan(0);
  const careless = await sim("--careless");
  expect(careless.output).toContain("VIOLATION");
}, TIMEOUT_MS);

test("every mutant still finds the code it breaks", () => {
  expect(MUTANTS.length).toBeGreaterThanOrEqual(12);
  expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
  for (const mutant of MUTANTS) expect(mutate(mutant).contents).not.toBe("");
});

test("mutants are noticed: one of the votes, one of the counting, one of the storage, one of the readers", async () => {
  for (const name of ["two-votes-a-term", "commit-of-a-minority", "written-is-durable", "uncommitted-sent"]) {
    const { output, exitCode } = await sim("--mutant", name);
    if (exitCode !== 0) throw new Error(output);
    expect([name, output]).toEqual([name, expect.stringContaining(`"caught":{`)]);
  }
}, TIMEOUT_MS);
