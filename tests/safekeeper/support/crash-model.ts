/**
 * What a proposer with a quorum of one knows of a timeline under its feet: what it sent, what was acknowledged. For tests that
 * take the disk away from it.
 */
import { invariant, InvariantError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { Metrics } from "../../../src/observability/metrics.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import type { VirtualMachine } from "../../../src/platform/virtual/virtual-world.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import { handleAppend, handleFlush } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { SafekeeperMetrics } from "../../../src/safekeeper/metrics.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { MIB, SampleWal } from "./sample-wal.ts";

export const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
export const START = MIB - 200_000;

/** A log from START on: its bytes, and for each record's end its start. */
interface Log {
  readonly bytes: Buffer;
  readonly records: ReadonlyMap<Lsn, Lsn>;
}

/** What a proposer with a quorum of one knows. */
export class Proposer {
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
    invariant(vote.voteGiven, `no vote for term ${term}`);
    this.votedTerm = term;
    invariant(vote.flushLsn >= this.ackedLsn, `the vote says ${vote.flushLsn}, ${this.ackedLsn} was acknowledged`);
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
    const { store } = timeline;
    if (store.runsShort) await timeline.exclusive("prepare WAL file", () => store.prepareAhead());
  }
}

export function openTimelines(machine: VirtualMachine): Timelines {
  const { clock, files, random } = machine.platform;
  const log = new RecordingLogger();
  const metrics = new SafekeeperMetrics(new Metrics(), clock, () => []);
  const context = { nodeId: 1, files, clock, log, metrics, sync: true, heartbeatTimeoutMs: 5000, endpoints: () => ({ pg: "", http: "", availabilityZone: null }) };
  return new Timelines({ context, dataDirectory: "/data", random });
}

export async function check(timeline: Timeline, proposer: Proposer): Promise<void> {
  const { flushLsn, volatile } = timeline.acceptor;
  invariant(timeline.state.term >= proposer.votedTerm, `voted in term ${proposer.votedTerm}, back at ${timeline.state.term}`);
  invariant(proposer.ackedLsn === 0 || flushLsn >= proposer.ackedLsn, `acknowledged up to ${proposer.ackedLsn}, the log ends at ${flushLsn}`);
  invariant(volatile.commitLsn <= flushLsn, `committed up to ${volatile.commitLsn}, the log ends at ${flushLsn}`);
  if (flushLsn <= START) return;
  const reader = timeline.reader(START);
  const bytes = Buffer.alloc(flushLsn - START);
  for (let at = 0; at < bytes.length; ) at += await reader.read(START + at, bytes.subarray(at));
  await reader.close();
  const real = proposer.possible.find((log) => bytes.equals(log.bytes.subarray(0, bytes.length)));
  if (real === undefined) throw new InvariantError(`the log up to ${flushLsn} is none of those that were sent`);
  proposer.possible = [real];
}
