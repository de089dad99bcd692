/**
 * kill -9 between a rename and the sync of its directory, a restart that relies on what it finds, then the power fails: what
 * the restarted process said must still be true.
 */
import { expect, test } from "bun:test";
import { Metrics } from "../../../src/observability/metrics.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { SafekeeperMetrics } from "../../../src/safekeeper/metrics.ts";
import { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { MIB } from "../support/sample-wal.ts";

const ID = { tenantId: "11".repeat(16), timelineId: "22".repeat(16) };
const NEW = { ...ID, pgVersion: 170010, systemId: 7n, walSegmentSizeBytes: MIB, startLsn: 0, commitLsn: 0, createdMs: 0 };
/** Power fails with whatever unsynced names it likes: often enough to see each. */
const SEEDS = 20;

async function open(machine: VirtualMachine): Promise<Timelines> {
  const { clock, files, random } = machine.platform;
  const metrics = new SafekeeperMetrics(new Metrics(), clock, () => []);
  const endpoints = () => ({ pg: "", http: "", availabilityZone: null });
  const context = { nodeId: 1, files, clock, log: new RecordingLogger(), metrics, sync: true, heartbeatTimeoutMs: 1000, endpoints };
  const timelines = new Timelines({ context, dataDirectory: "/data", random });
  await timelines.load();
  return timelines;
}

/** Kills the process while the sync of a directory that follows the `nth` rename is under way. */
function killAfterRename(world: VirtualWorld, machine: VirtualMachine, nth: number): Promise<void> {
  const killed = Promise.withResolvers<void>();
  let renames = 0;
  machine.faults = {
    latencyMs: ({ kind }) => {
      if (kind === "rename") renames++;
      if (kind !== "sync-directory" || renames !== nth) return 0;
      world.clock.after(1, () => {
        machine.kill();
        machine.faults = {};
        killed.resolve();
      });
      return 1000;
    },
  };
  return killed.promise;
}

test("a timeline found after a kill is not lost with the power", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new VirtualWorld({ seed });
    const machine = world.machine("safekeeper");
    world.clock.run(async () => {
      await machine.platform.files.makeDirectory("/data");
      await machine.platform.files.syncDirectory("/");
      const timelines = await open(machine);
      // The control file's rename, then the timeline's own.
      const killed = killAfterRename(world, machine, 2);
      void timelines.create(NEW, { revive: false });
      await killed;
      machine.boot();
      const vote = await (await open(machine)).get(ID).run("vote", (acceptor) => handleVoteRequest(acceptor, { kind: "vote-request", generation: 0, term: 5 }));
      expect(vote.voteGiven).toBe(true);
      machine.crash();
      machine.boot();
      expect((await open(machine)).get(ID).state.term).toBe(5);
    });
  }
});

test("a term found after a kill is not forgotten with the power", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new VirtualWorld({ seed });
    const machine = world.machine("safekeeper");
    world.clock.run(async () => {
      await machine.platform.files.makeDirectory("/data");
      await machine.platform.files.syncDirectory("/");
      const timeline = await (await open(machine)).create(NEW, { revive: false });
      const killed = killAfterRename(world, machine, 1);
      void timeline.run("vote", (acceptor) => handleVoteRequest(acceptor, { kind: "vote-request", generation: 0, term: 5 }));
      await killed;
      machine.boot();
      const { currentTerm } = await (await open(machine)).get(ID).run("term bump", (acceptor) => acceptor.bumpTerm(5));
      expect(currentTerm).toBe(5);
      machine.crash();
      machine.boot();
      expect((await open(machine)).get(ID).state.term).toBe(5);
    });
  }
});
