/** A safekeeper without a timeline that others have: it takes the WAL in, says so, and gives no votes before it has everything. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { REJOIN_AFTER_MS } from "../../src/safekeeper/receive-wal/admission.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { testLogger } from "../support/test-logger.ts";
import { platform, ProposerDriver, type Target } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let log: RecordingLogger;
const safekeepers: RunningSafekeeper[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-lost-disk-"));
  log = testLogger();
});
afterEach(async () => {
  for (const safekeeper of safekeepers.splice(0)) await safekeeper.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(nodeId: number, name = String(nodeId)): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, name), nodeId, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null }, { platform, log });
  safekeepers.push(safekeeper);
  return safekeeper;
}

/** @param among all of the timeline's safekeepers */
const target = (one: RunningSafekeeper, among: readonly RunningSafekeeper[]): Target => ({
  port: one.pgPort, ...ID, peers: among.filter((other) => other !== one).map(({ pgPort }) => `127.0.0.1:${pgPort}`),
});

async function greeted(one: Target): Promise<ProposerDriver> {
  const proposer = await ProposerDriver.connect(one);
  await proposer.greet();
  return proposer;
}

/** Of the new timeline, by whoever makes it. */
async function told({ httpPort }: RunningSafekeeper): Promise<void> {
  const body = { tenant_id: ID.tenantId, timeline_id: ID.timelineId, pg_version: 170002, wal_seg_size: MIB, start_lsn: "0/0" };
  const reply = await fetch(`http://127.0.0.1:${httpPort}/v1/tenant/timeline`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  expect(reply.status).toBe(200);
}

const isRecovering = async ({ httpPort }: RunningSafekeeper): Promise<unknown> =>
  ((await (await fetch(`http://127.0.0.1:${httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}`)).json()) as { recovering: boolean }).recovering;

test("a timeline that nobody has is new; one that a peer has WAL of is not, and its vote counts again when all of the log is here", async () => {
  const all = [await start(1), await start(2)];
  await told(all[0]);
  all.push(await start(3));
  const [full, , lost] = all;
  const wal = new SampleWal(START).growTo(START + 300_000);
  const leader = await ProposerDriver.connect(target(full, all));
  await leader.pushNew(wal, 1);
  expect(await isRecovering(full)).toBe(false);

  log.expectWarn("this safekeeper has nothing of a timeline of which others have WAL");
  const firstMs = performance.now();
  await expect(greeted(target(lost, all))).rejects.toThrow("the timeline is recovering here");
  expect(await isRecovering(lost)).toBe(true);
  let proposer: ProposerDriver | null = null;
  for (let tries = 0; proposer === null && tries < 100; tries++) {
    await Bun.sleep(200);
    proposer = await greeted(target(lost, all)).catch(() => null);
  }
  expect(performance.now() - firstMs).toBeGreaterThan(REJOIN_AFTER_MS - 500);
  if (proposer === null) throw new Error("it was never let in again");
  expect(await proposer.requestVote(1)).toMatchObject({ voteGiven: false, term: 1, flushLsn: 0 });
  proposer.term = 1;
  proposer.elected([{ term: 1, lsn: START }], START);
  const half = wal.ends[wal.ends.length >> 1];
  proposer.append(wal, { from: START, to: half, commitLsn: START });
  await proposer.flushedTo(half);
  proposer.close();
  proposer = await greeted(target(lost, all));
  expect(await proposer.requestVote(2)).toMatchObject({ voteGiven: false, term: 2, flushLsn: half });
  expect(await isRecovering(lost)).toBe(true);

  proposer.term = 2;
  proposer.elected([{ term: 1, lsn: START }, { term: 2, lsn: wal.endLsn }], half);
  proposer.append(wal, { from: half, to: wal.endLsn, commitLsn: START });
  await proposer.flushedTo(wal.endLsn);
  proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
  while (await isRecovering(lost)) await Bun.sleep(20);
  proposer.close();
  const next = await greeted(target(lost, all));
  expect(await next.requestVote(3)).toMatchObject({ voteGiven: true, term: 3, flushLsn: wal.endLsn });
  next.close();
  leader.close();
}, 30_000);

test("a node that has just started waits out what it may have promised on a disk it has lost, unless it is told; one that runs for longer does not", async () => {
  const startMs = performance.now();
  const all = [await start(1), await start(2), await start(3)];
  const [first, second] = all;
  await told(second);
  const quick = await greeted(target(second, all));
  expect(performance.now() - startMs).toBeLessThan(REJOIN_AFTER_MS - 1000);
  quick.close();
  const slow = await greeted(target(first, all));
  expect(performance.now() - startMs).toBeGreaterThan(REJOIN_AFTER_MS - 100);
  expect(await slow.requestVote(1)).toMatchObject({ voteGiven: true });
  slow.close();

  // Another timeline, later.
  const laterMs = performance.now();
  const other = await greeted({ ...target(first, all), timelineId: "33".repeat(16) });
  expect(performance.now() - laterMs).toBeLessThan(2000);
  expect(await other.requestVote(1)).toMatchObject({ voteGiven: true });
  other.close();
}, 30_000);

test("where others have voted already, somebody may have been elected with this node: no votes before it has what that one brings", async () => {
  const all = [await start(1), await start(2), await start(3)];
  const [first, , late] = all;
  await told(first);
  const proposer = await greeted(target(first, all));
  expect(await proposer.requestVote(1)).toMatchObject({ voteGiven: true });
  let again: ProposerDriver | null = null;
  for (let tries = 0; again === null && tries < 100; tries++) {
    await Bun.sleep(100);
    again = await greeted(target(late, all)).catch(() => null);
  }
  if (again === null) throw new Error("it was never let in");
  expect(await again.requestVote(2)).toMatchObject({ voteGiven: false, term: 2 });
  expect(await isRecovering(late)).toBe(true);
  again.close();
  proposer.close();
}, 30_000);

test("while a safekeeper that may have WAL is away, nobody takes the timeline for new; a restart forgets nothing of that", async () => {
  const all = [await start(1), await start(2)];
  const [lost, away] = all;
  await away.stop();
  safekeepers.pop();
  await expect(greeted(target(lost, all))).rejects.toThrow("whether it is new or was lost here is not known");
  expect(await isRecovering(lost)).toBe(true);
  await lost.stop();
  safekeepers.length = 0;
  const again = await start(1);
  expect(await isRecovering(again)).toBe(true);
  const other = await start(2);
  const proposer = await greeted(target(again, [again, other]));
  expect(await proposer.requestVote(1)).toMatchObject({ voteGiven: true, flushLsn: 0 });
  expect(await isRecovering(again)).toBe(false);
  proposer.close();
}, 20_000);

test("a copy of a peer's log is no proof of what this node promised: an operator who knows better may say so", async () => {
  const [source, copy] = [await start(1), await start(2)];
  const wal = new SampleWal(START).growTo(START + 50_000);
  const leader = await ProposerDriver.connect({ port: source.pgPort, ...ID });
  await leader.pushNew(wal, 1);
  const post = (path: string, method: string, body: unknown): Promise<Response> => fetch(`http://127.0.0.1:${copy.httpPort}${path}`, { method, body: JSON.stringify(body) });
  const pulled = await post("/v1/pull_timeline", "POST", { tenant_id: ID.tenantId, timeline_id: ID.timelineId, http_hosts: [`http://127.0.0.1:${source.httpPort}`] });
  expect(pulled.status).toBe(200);
  expect(await isRecovering(copy)).toBe(true);
  log.expectWarn("control file changed by hand");
  await post(`/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}/control_file`, "PATCH", { updates: { recovering: false }, apply_fields: ["recovering"] });
  const proposer = await greeted({ port: copy.pgPort, ...ID });
  expect(await proposer.requestVote(2)).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn });
  proposer.close();
  leader.close();
}, 20_000);
