/** Nothing acknowledged is lost: a few rounds of `verify durability`, and ordered stops under load. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { BUILT } from "../support/executable.ts";
import { TestCluster } from "../support/dev-cluster.ts";
import { runDurability } from "../verify/durability/run.ts";
import { Writers } from "../verify/durability/writers.ts";

const PROGRAM = process.env.STRATA_TEST_PROGRAM ?? (existsSync(BUILT) ? BUILT : undefined);
const program = PROGRAM === undefined ? {} : { program: [PROGRAM] };
/** The fifth destroys the pageserver's directory. */
const ROUNDS = 5;

test("acknowledged rows survive kills, losses of power and destroyed directories", async () => {
  const seed = Number(process.env.STRATA_TEST_SEED ?? 20_240_101);
  const lines: string[] = [];
  const { lostRows } = await runDurability({ rounds: ROUNDS, seed, pgVersion: 17, print: (line) => lines.push(line), ...program }).catch((error: unknown) => {
    throw new Error(`seed ${seed} (STRATA_TEST_SEED), after: ${lines.join("\n")}`, { cause: error });
  });
  expect([lostRows, lines.join("\n")]).toEqual([0, lines.join("\n")]);
}, 400_000);

test("SIGTERM under load: every role ends cleanly, in any order, and a restart has everything", async () => {
  const cluster = await TestCluster.start({ pgVersion: 17, settings: { shared_buffers: "16MB" }, ...program });
  const writers = new Writers(cluster.pgPort);
  try {
    await writers.createTable();
    writers.start(4);
    expect(await writers.progress(50, 60_000)).toBe(true);
    // The pageserver and one safekeeper first, while commits go on; then the compute, as long as there is a quorum; then the rest.
    expect(await Promise.all([cluster.pageserver.stop(), cluster.safekeepers[0].stop()])).toEqual([0, 0]);
    expect(await writers.progress(50, 60_000)).toBe(true);
    expect(await cluster.compute.stop()).toBe(0);
    expect(await Promise.all([...cluster.safekeepers.slice(1), cluster.broker, cluster.controller].map((role) => role.stop()))).toEqual([0, 0, 0, 0]);
    await writers.stop();
    expect(cluster.compute.log()).toContain("a quorum has all of its WAL");
    await cluster.startStorage();
    await cluster.startCompute();
    expect(await writers.missing()).toEqual([]);
  } finally {
    await writers.stop();
    await cluster.destroy();
  }
}, 300_000);
