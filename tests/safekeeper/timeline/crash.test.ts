/**
 * A timeline on a disk that loses what was not synced, fails and fills up: whatever happens, an acknowledged byte stays,
 * a term voted for stays, and what is read is what was sent.
 */
import { describe, expect, test } from "bun:test";
import { Cancelled, isStrataError } from "../../../src/kit/errors.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { check, ID, openTimelines, Proposer, START } from "../support/crash-model.ts";
import { MIB } from "../support/sample-wal.ts";

const SEEDS = 12;

interface Scenario {
  readonly seed: number;
  readonly steps: number;
  readonly faults: boolean;
}

function simulate({ seed, steps, faults }: Scenario): { readonly crashes: number; readonly acked: number } {
  const world = new VirtualWorld({ seed });
  const random = world.random.fork("test");
  const machine = world.machine("sk");
  const proposer = new Proposer();
  let crashes = 0;
  const crashed = (): Promise<never> => new Promise((_resolve, reject) => {
    world.clock.after(1 + random.below(150), () => {
      if (random.below(3) === 0) machine.kill();
      else machine.crash();
      reject(new Cancelled("power cut"));
    });
  });
  const fail = (): "io-error" | "disk-full" | undefined => (faults && random.below(120) === 0 ? (random.below(2) === 0 ? "io-error" : "disk-full") : undefined);
  return world.clock.run(async () => {
    for (let life = 0; life < steps; life++) {
      // While it starts the disk is healthy: what cannot be opened is not served, which is another test's matter.
      machine.faults = { latencyMs: () => 1 };
      const timelines = openTimelines(machine);
      await machine.platform.files.makeDirectory("/data");
      await machine.platform.files.syncDirectory("/");
      await timelines.load();
      const timeline = await timelines.create({ ...ID, pgVersion: 170002, systemId: 7n, walSegmentSizeBytes: MIB, startLsn: 0, commitLsn: 0, createdMs: 0 }, { revive: true });
      await check(timeline, proposer);
      machine.faults = { latencyMs: () => 1, fail };
      await Promise.race([crashed(), live(timeline, proposer, random)]).catch((error: unknown) => {
        if (!(error instanceof Cancelled)) throw error;
      });
      crashes++;
      machine.boot();
    }
    return { crashes, acked: proposer.ackedLsn };
  });
}

/** Works until the power is cut; after an error a new election, as after a reconnect. */
async function live(timeline: Timeline, proposer: Proposer, random: SeededRandom): Promise<never> {
  for (let elected = false; ; ) {
    try {
      if (!elected) await proposer.elect(timeline);
      elected = true;
      await proposer.append(timeline, random);
      if (random.below(20) === 0) await timeline.save();
    } catch (error) {
      if (!isStrataError(error)) throw error;
      elected = false;
      // Closed for good: what remains is the restart that the power cut brings.
      if (timeline.store.failure !== null) return new Promise<never>(() => {});
    }
  }
}

describe("crashes", () => {
  const baseSeed = Number(process.env.STRATA_TEST_SEED ?? 1);
  for (const faults of [false, true]) {
    test(`nothing acknowledged is lost over ${faults ? "power cuts and disk errors" : "power cuts"}`, () => {
      let acked = 0;
      for (let seed = baseSeed; seed < baseSeed + SEEDS; seed++) {
        try {
          acked += Math.max(0, simulate({ seed, steps: 6, faults }).acked - START);
        } catch (error) {
          throw new Error(`seed ${seed} (STRATA_TEST_SEED): ${String(error)}`, { cause: error });
        }
      }
      // It would prove nothing if nothing had been written.
      expect(acked).toBeGreaterThan(SEEDS * 50_000);
    }, 120_000);
  }
});
