/** Two safekeepers and a broker, all real. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startBroker, type RunningBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../src/broker/config.ts";
import { connectBroker } from "../../src/broker/api/client.ts";
import { type BrokerMessage, MESSAGE_TYPE_DISCOVERY_RESPONSE, MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { lsnToString } from "../../src/kit/lsn.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { decodeControlFile } from "../../src/safekeeper/control-file/codec.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { testLogger } from "../support/test-logger.ts";
import { platform, ProposerDriver } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let broker: RunningBroker;
const safekeepers: RunningSafekeeper[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata-gossip-"));
  broker = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0 }, { platform, log: testLogger(), version: "test" });
});
afterEach(async () => {
  for (const safekeeper of safekeepers.splice(0)) await safekeeper.stop();
  await broker.stop();
  rmSync(directory, { recursive: true, force: true });
});

const endpoint = (): string => `http://127.0.0.1:${broker.port}`;

async function start(nodeId: number, over: Partial<SafekeeperConfig> = {}): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, String(nodeId)), nodeId, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: endpoint(), availabilityZone: "az-1", ...over };
  const safekeeper = await startSafekeeper(config, { platform, log: testLogger() });
  safekeepers.push(safekeeper);
  return safekeeper;
}

async function push(safekeeper: RunningSafekeeper, wal: SampleWal, commitLsn: number): Promise<ProposerDriver> {
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.greet();
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: START }], START);
  proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: commitLsn });
  await proposer.flushedTo(wal.endLsn);
  return proposer;
}

/** As an operator makes a timeline of which nobody has any WAL yet. */
async function makeNew(safekeeper: RunningSafekeeper): Promise<void> {
  const body = JSON.stringify({ tenant_id: ID.tenantId, timeline_id: ID.timelineId, pg_version: 170002, start_lsn: "0/0", wal_seg_size: MIB });
  expect((await fetch(`http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/timeline`, { method: "POST", body })).status).toBe(200);
}

const url = (safekeeper: RunningSafekeeper): string => `http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}`;
const status = async (safekeeper: RunningSafekeeper) => (await (await fetch(url(safekeeper))).json()) as { commit_lsn: string; flush_lsn: string; peers: { sk_id: number }[]; acceptor_state: unknown };

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await condition()) return;
    await Bun.sleep(50);
  }
  throw new Error("it did not come true within 5 s");
}

test("what is committed on one becomes known on the other, and a discovery request is answered", async () => {
  const [one, two] = [await start(1), await start(2)];
  for (const safekeeper of [one, two]) await makeNew(safekeeper);
  const wal = new SampleWal(START).growTo(START + 30_000);
  const first = await push(one, wal, wal.endLsn);
  const second = await push(two, wal, START);
  await eventually(async () => (await status(two)).commit_lsn === lsnToString(wal.endLsn));
  await eventually(async () => (await status(two)).peers.length === 2);
  const client = connectBroker({ endpoint: endpoint() });
  const abort = new AbortController();
  const heard: BrokerMessage[] = [];
  const listening = client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO, MESSAGE_TYPE_DISCOVERY_RESPONSE], timeline: ID }, (message) => heard.push(message), abort.signal).catch(() => undefined);
  await eventually(async () => {
    await client.publishOne({ type: "discovery-request", request: ID });
    return heard.some((message) => message.type === "discovery-response" && message.response.safekeeperId === 2);
  });
  const infoOfOne = () => heard.find((message) => message.type === "timeline-info" && message.info.safekeeperId === 1);
  await eventually(async () => infoOfOne() !== undefined);
  expect(infoOfOne()).toMatchObject({ info: { ...ID, term: 1, lastLogTerm: 1, flushLsn: wal.endLsn, commitLsn: wal.endLsn, availabilityZone: "az-1", safekeeperConnstr: `127.0.0.1:${one.pgPort}` } });
  abort.abort();
  await listening;
  client.close();
  first.close();
  second.close();
}, 15_000);

test("what a majority took in from one proposer is known as committed without it, also after all were killed; and is saved when it rests", async () => {
  const all = [await start(1), await start(2)];
  const wal = new SampleWal(START).growTo(START + 30_000);
  const proposers = await Promise.all(all.map(async (one) => {
    const proposer = await ProposerDriver.connect({ port: one.pgPort, ...ID, peers: all.filter((other) => other !== one).map(({ pgPort }) => `127.0.0.1:${pgPort}`) });
    await proposer.greet();
    return proposer;
  }));
  const half = wal.ends[wal.ends.length >> 1];
  const ends = [wal.endLsn, half];
  for (const [index, proposer] of proposers.entries()) {
    await proposer.requestVote(1);
    proposer.elected([{ term: 1, lsn: START }], START);
    proposer.append(wal, { from: START, to: ends[index], commitLsn: START });
    await proposer.flushedTo(ends[index]);
    expect((await status(all[0])).commit_lsn).toBe(lsnToString(START));
  }
  for (const proposer of proposers) proposer.close();
  const saved = (nodeId: number): number => decodeControlFile(readFileSync(join(directory, String(nodeId), ID.tenantId, ID.timelineId, "safekeeper.control"))).commitLsn;
  for (const one of all) await eventually(async () => (await status(one)).commit_lsn === lsnToString(half));
  for (const nodeId of [1, 2]) await eventually(async () => saved(nodeId) === half);
}, 20_000);

test("a safekeeper that is behind fetches what it lacks from a peer, and drops what nobody else has", async () => {
  const [ahead, behind] = [await start(1), await start(2, { peerRecovery: true })];
  for (const safekeeper of [ahead, behind]) await makeNew(safekeeper);
  const wal = new SampleWal(START).growTo(START + 2 * MIB);
  const early = await push(behind, wal, START);
  early.close();
  // The one ahead follows a leader of term 2 that had less of term 1 and went on differently.
  const parting = wal.ends[100];
  const other = new SampleWal(parting, { previousLsn: new Map(wal.records).get(parting) ?? 0, seed: 77 }).growTo(parting + 3 * MIB);
  const proposer = await ProposerDriver.connect({ port: ahead.pgPort, ...ID });
  await proposer.greet();
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: START }], START);
  proposer.append(wal, { from: START, to: parting, commitLsn: START });
  await proposer.flushedTo(parting);
  await proposer.requestVote(2);
  proposer.elected([{ term: 1, lsn: START }, { term: 2, lsn: parting }], parting);
  proposer.append(other, { from: parting, to: other.endLsn, commitLsn: other.endLsn });
  await proposer.flushedTo(other.endLsn);
  await eventually(async () => (await status(behind)).flush_lsn === lsnToString(other.endLsn));
  await eventually(async () => (await status(behind)).commit_lsn === lsnToString(other.endLsn));
  expect((await status(behind)).acceptor_state).toMatchObject({ term: 2, epoch: 2, term_history: [{ term: 1 }, { term: 2, lsn: lsnToString(parting) }] });
  const digest = async (safekeeper: RunningSafekeeper): Promise<unknown> => (await fetch(`${url(safekeeper)}/digest?from_lsn=${lsnToString(START)}&until_lsn=${lsnToString(other.endLsn)}`)).json();
  expect(await digest(behind)).toEqual(await digest(ahead));
  proposer.close();
}, 20_000);

test("a timeline is pulled whole from the most advanced host, and votes once a configuration makes it a new member", async () => {
  const [source, destination] = [await start(1), await start(2)];
  await makeNew(source);
  const wal = new SampleWal(START).growTo(START + 3 * MIB);
  const proposer = await push(source, wal, wal.endLsn);
  const mconf = { generation: 1, members: [{ id: 1, host: "127.0.0.1", pg_port: source.pgPort }, { id: 2, host: "127.0.0.1", pg_port: destination.pgPort }] };
  const pull = (hosts: string[]): Promise<Response> =>
    fetch(`http://127.0.0.1:${destination.httpPort}/v1/pull_timeline`, { method: "POST", body: JSON.stringify({ tenant_id: ID.tenantId, timeline_id: ID.timelineId, http_hosts: hosts, mconf }) });
  const host = `http://127.0.0.1:${source.httpPort}`;
  expect((await pull([`http://127.0.0.1:${destination.httpPort}`])).status).toBe(503);
  expect(await (await pull([`http://127.0.0.1:${destination.httpPort}`, host])).json()).toEqual({ safekeeper_host: host });
  expect(await (await pull([host])).json()).toEqual({ safekeeper_host: null });
  expect((await status(destination)).flush_lsn).toBe(lsnToString(wal.endLsn));
  const digest = async (safekeeper: RunningSafekeeper): Promise<unknown> => (await fetch(`${url(safekeeper)}/digest?from_lsn=${lsnToString(START)}&until_lsn=${lsnToString(wal.endLsn)}`)).json();
  expect(await digest(destination)).toEqual(await digest(source));
  const next = await ProposerDriver.connect({ port: destination.pgPort, ...ID });
  await next.greet();
  next.send({ kind: "vote-request", generation: 1, term: 2 });
  expect(await next.receive()).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn, termHistory: [{ term: 1, lsn: START }] });
  next.close();
  proposer.close();
}, 15_000);
