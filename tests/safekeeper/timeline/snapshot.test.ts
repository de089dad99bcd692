/** A snapshot that is read while the log is cut and goes on otherwise must not end well. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metrics } from "../../../src/observability/metrics.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import { handleAppend, handleFlush } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { SafekeeperMetrics } from "../../../src/safekeeper/metrics.ts";
import { snapshotStream } from "../../../src/safekeeper/timeline/snapshot.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { testLogger } from "../../support/test-logger.ts";
import { MIB, SampleWal } from "../support/sample-wal.ts";

const { clock, files, random } = realPlatform();
const ID = { tenantId: "11".repeat(16), timelineId: "22".repeat(16) };
const START = 5 * MIB + 8192 + 1000;

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), "strata-snapshot-"))));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const vote = (timeline: Timeline, term: number) => timeline.run("vote", (acceptor) => handleVoteRequest(acceptor, { kind: "vote-request", generation: 0, term }));

async function lead(timeline: Timeline, leader: { readonly term: number; readonly termHistory: TermHistory; readonly wal: SampleWal }): Promise<void> {
  const { term, termHistory, wal } = leader;
  await timeline.run("elected", (acceptor) => handleElected(acceptor, { kind: "elected", generation: 0, term, startStreamingAt: wal.startLsn, termHistory }));
  await timeline.run("append", (acceptor) => handleAppend(acceptor, { kind: "append", generation: 0, term, beginLsn: wal.startLsn, endLsn: wal.endLsn, commitLsn: START, truncateLsn: 0, walData: wal.bytes() }));
  await timeline.run("flush", (acceptor) => handleFlush(acceptor, START));
}

test("a proposer that was voted for before, elected meanwhile, cuts the log and writes other WAL", async () => {
  const metrics = new SafekeeperMetrics(new Metrics(), clock, () => []);
  const context = { nodeId: 1, files, clock, log: testLogger(), metrics, sync: false, heartbeatTimeoutMs: 1000, endpoints: () => ({ pg: "", http: "", availabilityZone: null }) };
  const timelines = new Timelines({ context, dataDirectory: directory, random });
  await timelines.load();
  const timeline = await timelines.create({ ...ID, pgVersion: 170010, systemId: 7n, walSegmentSizeBytes: MIB, startLsn: 0, commitLsn: 0, createdMs: 0 }, { revive: false });
  const wal = new SampleWal(START).growTo(8 * MIB);
  await vote(timeline, 1);
  await lead(timeline, { term: 1, termHistory: [{ term: 1, lsn: START }], wal });
  await vote(timeline, 2);

  const reader = snapshotStream(timeline, files).getReader();
  expect((await reader.read()).done).toBe(false);
  // As long as what was there, so that no file is too short.
  const cutAt = wal.lastEnd(START + 100_000);
  const other = new SampleWal(cutAt, { seed: 99, previousLsn: wal.records.find(([end]) => end === cutAt)?.[1] ?? 0 }).growTo(8 * MIB + 100_000);
  await lead(timeline, { term: 2, termHistory: [{ term: 1, lsn: START }, { term: 2, lsn: cutAt }], wal: other });
  const rest = async (): Promise<void> => {
    for (;;) if ((await reader.read()).done) return;
  };
  await expect(rest()).rejects.toThrow("the log's history changed");
  await timelines.close();
}, 20_000);
