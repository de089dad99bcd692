/**
 * A timeline on a disk that loses what was not synced, fails and fills up: whatever happens, an acknowledged byte stays,
 * a term voted for stays, and what is read is what was sent.
 */
import { describe, expect, test } from "bun:test";
import { Cancelled, isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { Metrics } from "../../../src/observability/metrics.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import { handleAppend, handleFlush } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { SafekeeperMetrics } from "../../../src/safekeeper/metrics.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { MIB, SampleWal } from "../support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const START = MIB - 200_000;
const SEEDS = 12;

/** A log from START on: its bytes, and for each record's end its start. */
interface Log {
  readonly bytes: Buffer;
  readonly records: ReadonlyMap<Lsn, Lsn>;
}

/** What a proposer with a quorum of one knows. */
class Proposer {
  /** What the acceptor may hold: more than one while a truncation has been asked for and not confirmed. */
  possible: Log[] = [{ bytes: Buffer.alloc(0), records: new Map() }];
  term = 0;
  wal: SampleWal | null = null;
  sentLsn = START;
  /** Answered as durable: may never be lost. */
  ackedLsn = 0;
  votedTerm = 0;

  get log(): Log {
    return this.possible.at(-1) as Log;
  }

  async elect(timeline: Timeline): Promise<void> {
    const term = timeline.state.term + 1;
    const vote = await timeline.run("vote", (acceptor) => handleVoteRequest(acceptor, { kind: "vote-request", generation: 0, term }));
    expect(vote.voteGiven).toBe(true);
    this.votedTerm = term;
    expect(vote.flushLsn).toBeGreaterThanOrEqual(this.ackedLsn);
    const startLsn = vote.flushLsn === 0 ? START : vote.flushLsn;
    const kept = { bytes: this.log.bytes.subarray(0, startLsn - START), records: new Map([...this.log.records].filter(([end]) => end <= startLsn)) };
    this.possible.push(kept);
    this.term = term;
    this.sentLsn = startLsn;
    this.wal = new SampleWal(startLsn, { previousLsn: kept.records.get(startLsn) ?? START - 100, seed: term * 37 });
    const termHistory: TermHistory = [...vote.termHistory.filter((entry) => entry.lsn <= startLsn), { term, lsn: startLsn }];
    await timeline.run("elected", (acceptor) => handleElected(acceptor, { kind: "elected", generation: 0, term, startStreamingAt: startLsn, termHistory }));
    this.possible = [kept];
  }

  async append(timeline: Timeline, random: SeededRandom): Promise<void> {
    const wal = this.wal as SampleWal;
    for (let records = 1 + random.below(4); records > 0; records--) wal.add(random.below(10) === 0 ? random.below(60_000) : random.below(500));
    this.possible = [{ bytes: Buffer.concat([this.log.bytes.subarray(0, wal.startLsn - START), wal.bytes()]), records: new Map([...this.log.records, ...wal.records]) }];
    for (let at = this.sentLsn; at < wal.endLsn; ) {
      const end = Math.min(wal.endLsn, at + 1 + random.below(40_000));
      const request = { kind: "append" as const, generation: 0, term: this.term, beginLsn: at, endLsn: end, commitLsn: this.ackedLsn, truncateLsn: 0, walData: wal.bytes(at, end) };
      const reply = await timeline.run("append", (acceptor) => handleAppend(acceptor, request));
      at = this.sentLsn = end;
      if (reply !== null) this.ackedLsn = Math.max(this.ackedLsn, reply.flushLsn);
    }
    if (random.below(3) === 0) return;
    const reply = await timeline.run("flush", (acceptor) => handleFlush(acceptor, this.ackedLsn));
    this.ackedLsn = Math.max(this.ackedLsn, reply.flushLsn);
  }
}

function openTimelines(machine: VirtualMachine): Timelines {
  const { clock, files, random } = machine.platform;
  const log = new RecordingLogger();
  const metrics = new SafekeeperMetrics(new Metrics(), clock, () => []);
  const context = { nodeId: 1, files, clock, log, metrics, sync: true, heartbeatTimeoutMs: 5000, endpoints: () => ({ pg: "", http: "", availabilityZone: null }) };
  return new Timelines({ context, dataDirectory: "/data", random });
}

async function check(timeline: Timeline, proposer: Proposer): Promise<void> {
  const { flushLsn, volatile } = timeline.acceptor;
  expect(timeline.state.term).toBeGreaterThanOrEqual(proposer.votedTerm);
  if (proposer.ackedLsn > 0) expect(flushLsn).toBeGreaterThanOrEqual(proposer.ackedLsn);
  expect(volatile.commitLsn).toBeLessThanOrEqual(flushLsn);
  if (flushLsn <= START) return;
  const reader = timeline.reader(START);
  const bytes = Buffer.alloc(flushLsn - START);
  for (let at = 0; at < bytes.length; ) at += await reader.read(START + at, bytes.subarray(at));
  await reader.close();
  const real = proposer.possible.find((log) => bytes.equals(log.bytes.subarray(0, bytes.length)));
  if (real === undefined) throw new Error(`the log up to ${flushLsn} is none of those that were sent`);
  proposer.possible = [real];
}

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
    }, 30_000);
  }
});
