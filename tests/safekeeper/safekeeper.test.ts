import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { isStrataError } from "../../src/kit/errors.ts";
import { type Lsn, lsnToString } from "../../src/kit/lsn.ts";
import type { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { EMPTY_PAGESERVER_FEEDBACK, encodePageserverFeedback } from "../../src/safekeeper/api/pageserver-feedback.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { decodeSenderMessage, encodeHotStandbyFeedback, encodeStandbyStatus } from "../../src/wire/replication-messages.ts";
import type { ClientCopyStream } from "../../src/wire/client-copy-stream.ts";
import { testLogger } from "../support/test-logger.ts";
import { connectTo, platform, ProposerDriver, type Target } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const TENANT = "11111111111111111111111111111111";
const TIMELINE = "22222222222222222222222222222222";
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let log: RecordingLogger;
let running: RunningSafekeeper | null = null;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-safekeeper-"));
  log = testLogger();
});
afterEach(async () => {
  await running?.stop();
  running = null;
  rmSync(directory, { recursive: true, force: true });
});

async function start(over: Partial<SafekeeperConfig> = {}): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  running = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, ...over }, { platform, log });
  return running;
}

async function restart(over: Partial<SafekeeperConfig> = {}): Promise<RunningSafekeeper> {
  await running?.stop();
  return start(over);
}

const target = (over: Partial<Target> = {}): Target => ({ port: running?.pgPort ?? 0, tenantId: TENANT, timelineId: TIMELINE, ...over });
const http = (path: string, init?: RequestInit): Promise<Response> => fetch(`http://127.0.0.1:${running?.httpPort}${path}`, init);
const status = async (): Promise<Record<string, never>> => (await http(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`)).json() as Promise<Record<string, never>>;

async function codeOf(action: Promise<unknown>): Promise<string | null> {
  try {
    await action;
    return null;
  } catch (error) {
    if (isStrataError(error)) return error.message;
    throw error;
  }
}

/** Reads WAL from `from` until `to`; keepalives are skipped. */
async function readWal(copy: ClientCopyStream, from: Lsn, to: Lsn): Promise<Buffer> {
  const out = Buffer.alloc(to - from);
  for (let at = from; at < to; ) {
    const bytes = await copy.read();
    if (bytes === null) throw new Error("the stream ended");
    const message = decodeSenderMessage(bytes);
    if (message.kind !== "wal-data") continue;
    expect(message.startLsn).toBe(at);
    out.set(message.data.subarray(0, to - at), at - from);
    at += message.data.length;
  }
  return out;
}

for (const version of [2, 3] as const) {
  test(`a proposer of version ${version} is elected, its WAL durable and served`, async () => {
    await start();
    const wal = new SampleWal(START).growTo(7 * MIB + 5000);
    const proposer = await ProposerDriver.connect(target(), { version });
    expect(await proposer.greet()).toMatchObject({ nodeId: 1, term: 0 });
    expect(await proposer.requestVote(3)).toMatchObject({ voteGiven: true, term: 3, flushLsn: 0, termHistory: [] });
    proposer.elected([{ term: 3, lsn: START }], START);
    proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: START });
    expect(await proposer.flushedTo(wal.endLsn)).toMatchObject({ term: 3, flushLsn: wal.endLsn, commitLsn: START });
    // A heartbeat brings the commit position.
    proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    await proposer.flushedTo(wal.endLsn);

    const client = await connectTo(target());
    expect((await client.query("TIMELINE_STATUS")).rows).toEqual([[lsnToString(wal.endLsn), lsnToString(wal.endLsn)]]);
    expect((await client.query("IDENTIFY_SYSTEM")).rows).toEqual([["7", "1", lsnToString(wal.endLsn), null]]);
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    expect(await readWal(copy, START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
    client.close();
    proposer.close();
  });
}

describe("small appends that arrive together", () => {
  /** Pieces that respect no record's bounds, all sent before the first answer. */
  function burst(proposer: ProposerDriver, wal: SampleWal, range: { from: Lsn; to: Lsn }): number {
    let count = 0;
    for (let at = range.from; at < range.to; count++) {
      const end = Math.min(range.to, at + 100 + ((count * 37) % 900));
      const walData = wal.bytes(at, end);
      proposer.send({ kind: "append", generation: 0, term: proposer.term, beginLsn: at, endLsn: end, commitLsn: at, truncateLsn: range.from, walData });
      // A heartbeat between two appends is a link of the chain.
      if (count % 50 === 0) proposer.append(wal, { from: end, to: end, commitLsn: at });
      at = end;
    }
    return count;
  }

  async function elect(): Promise<ProposerDriver> {
    const proposer = await ProposerDriver.connect(target());
    await proposer.greet();
    await proposer.requestVote(1);
    proposer.elected([{ term: 1, lsn: START }], START);
    return proposer;
  }

  test("share writes and fsyncs, and are the same bytes, over segment ends", async () => {
    await start();
    const wal = new SampleWal(START).growTo(7 * MIB + 5000, 700);
    const proposer = await elect();
    const sent = burst(proposer, wal, { from: START, to: wal.endLsn });
    const answer = await proposer.flushedTo(wal.endLsn);
    expect(answer.flushLsn).toBe(wal.endLsn);
    proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    await proposer.flushedTo(wal.endLsn);
    const client = await connectTo(target());
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    expect(await readWal(copy, START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
    client.close();
    proposer.close();
    const metrics = await (await http("/metrics")).text();
    const value = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(metrics)?.[1]);
    expect(value(`safekeeper_proposer_acceptor_messages_total\\{outcome="success"\\}`)).toBeGreaterThan(sent);
    expect(value("safekeeper_write_wal_bytes_count")).toBeLessThan(sent / 4);
    expect(value("safekeeper_flush_wal_seconds_count")).toBeLessThan(sent / 4);
    expect(value("safekeeper_wal_receiver_queue_depth_total")).toBe(0);
    expect(value("safekeeper_wal_receiver_queue_size_total")).toBe(0);
  });

  test("up to one that leaves a gap are kept", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 60_000, 700);
    const whole = wal.ends[20];
    const proposer = await elect();
    burst(proposer, wal, { from: START, to: whole });
    burst(proposer, wal, { from: whole + 8, to: wal.endLsn });
    expect(await codeOf(proposer.flushedTo(wal.endLsn))).toContain("leaves a gap");
    proposer.close();
    const next = await ProposerDriver.connect(target());
    await next.greet();
    expect(await next.requestVote(2)).toMatchObject({ voteGiven: true, flushLsn: whole });
    next.close();
  });
});

describe("readers", () => {
  test("get only what is committed, and the rest when it is", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 50_000);
    const committed = wal.ends[3];
    const proposer = await ProposerDriver.connect(target());
    await proposer.greet();
    await proposer.requestVote(1);
    proposer.elected([{ term: 1, lsn: START }], START);
    proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: committed });
    await proposer.flushedTo(wal.endLsn);
    const client = await connectTo(target());
    // From the start of the segment: what lies before the timeline is made up.
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(5 * MIB)} TIMELINE 1`);
    const prefix = await readWal(copy, 5 * MIB, committed);
    expect(prefix.subarray(START - 5 * MIB)).toEqual(Buffer.from(wal.bytes(START, committed)));
    expect(prefix.readUInt16LE(0)).toBe(0xd116);
    proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    expect(await readWal(copy, committed, wal.endLsn)).toEqual(Buffer.from(wal.bytes(committed)));
    client.close();
    proposer.close();
  });

  test("with the current term get all of the log, with another nothing", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 50_000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.greet();
    await proposer.requestVote(4);
    proposer.elected([{ term: 4, lsn: START }], START);
    proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: START });
    await proposer.flushedTo(wal.endLsn);
    const client = await connectTo(target());
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)} (term='4')`);
    expect(await readWal(copy, START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
    client.close();
    const other = await connectTo(target());
    const refused = await other.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)} (term='3')`);
    expect(await codeOf(readWal(refused, START, wal.endLsn))).toContain("the term is 4 now");
    proposer.close();
  });

  test("their feedback reaches the proposer and the timeline", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 50_000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 1);
    const client = await connectTo(target({ applicationName: "pageserver" }));
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    await readWal(copy, START, wal.endLsn);
    const feedback = { ...EMPTY_PAGESERVER_FEEDBACK, currentTimelineSizeBytes: 123, lastReceivedLsn: wal.endLsn, remoteConsistentLsn: wal.ends[2] };
    copy.write(Buffer.concat([Buffer.from("z"), Buffer.alloc(8), encodePageserverFeedback(feedback)]));
    const reply = await proposer.receive();
    expect(reply).toMatchObject({ kind: "append", pageserverFeedback: feedback });
    expect(await status()).toMatchObject({ remote_consistent_lsn: lsnToString(wal.ends[2]), walsenders: [{ Vanilla: { appname: "pageserver" } }] } as never);

    const standby = await connectTo(target({ applicationName: "standby" }));
    const follow = await standby.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(wal.endLsn)}`);
    follow.write(encodeHotStandbyFeedback({ timestamp: 5n, xmin: 700, xminEpoch: 1, catalogXmin: 0, catalogXminEpoch: 0 }));
    follow.write(encodeStandbyStatus({ writeLsn: 1, flushLsn: 1, applyLsn: wal.ends[0], timestamp: 5n, replyRequested: false }));
    for (let seen = 0n; seen === 0n; ) {
      proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
      const answer = await proposer.flushedTo(wal.endLsn);
      seen = answer.hotStandbyFeedback.xmin;
      if (seen !== 0n) expect(answer.hotStandbyFeedback).toEqual({ timestamp: 5n, xmin: (1n << 32n) | 700n, catalogXmin: 0n });
    }
    standby.close();
    client.close();
    proposer.close();
  });

  test("a pageserver that has everything is let go when no compute writes", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 5000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 1);
    proposer.close();
    const client = await connectTo(target({ applicationName: "pageserver" }));
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    await readWal(copy, START, wal.endLsn);
    copy.write(Buffer.concat([Buffer.from("z"), Buffer.alloc(8), encodePageserverFeedback({ ...EMPTY_PAGESERVER_FEEDBACK, remoteConsistentLsn: wal.endLsn })]));
    expect(await codeOf(readWal(copy, wal.endLsn, wal.endLsn + 8))).toContain("ending streaming");
  });

  test("bad requests are told so", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 5000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 1);
    const client = await connectTo(target());
    expect(await codeOf(client.query("DROP TABLE t"))).toContain("unsupported command");
    expect(await codeOf(client.copyBoth("START_REPLICATION PHYSICAL 0/100"))).toContain("before the timeline's start");
    client.close();
    const unknown = await connectTo(target({ timelineId: TENANT }));
    expect((await unknown.query("TIMELINE_STATUS")).rows).toEqual([]);
    expect(await codeOf(unknown.copyBoth("START_REPLICATION PHYSICAL 0/100"))).toContain("was not found");
    unknown.close();
    proposer.close();
  });
});

describe("a restart", () => {
  test("keeps every byte that was acknowledged, the term and the history", async () => {
    await start();
    const wal = new SampleWal(START).growTo(6 * MIB + 77_000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 5);
    await restart();
    const again = await ProposerDriver.connect(target());
    expect(await again.greet()).toMatchObject({ term: 5 });
    expect(await again.requestVote(5)).toMatchObject({ voteGiven: false });
    expect(await again.requestVote(6)).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn, termHistory: [{ term: 5, lsn: START }] });
    const more = new SampleWal(wal.endLsn, { previousLsn: wal.lastRecordLsn, seed: 9 }).growTo(wal.endLsn + 40_000);
    again.elected([{ term: 5, lsn: START }, { term: 6, lsn: wal.endLsn }], wal.endLsn);
    again.append(more, { from: wal.endLsn, to: more.endLsn, commitLsn: more.endLsn });
    await again.flushedTo(more.endLsn);
    const digest = createHash("sha256").update(wal.bytes()).update(more.bytes()).digest("hex");
    const reply = await http(`/v1/tenant/${TENANT}/timeline/${TIMELINE}/digest?from_lsn=${lsnToString(START)}&until_lsn=${lsnToString(more.endLsn)}`);
    expect(await reply.json()).toEqual({ sha256: digest });
    again.close();
  });

  test("the node id and the directory's lock are held", async () => {
    await start();
    const anyPort = { host: "127.0.0.1", port: 0 };
    const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null };
    expect(await codeOf(startSafekeeper({ ...config, nodeId: 1 }, { platform, log }))).toContain("locked");
    await running?.stop();
    running = null;
    expect(await codeOf(startSafekeeper({ ...config, nodeId: 2 }, { platform, log }))).toContain("says node id 1");
    running = await startSafekeeper({ ...config, nodeId: null }, { platform, log });
    expect(await (await http("/v1/status")).json()).toEqual({ id: 1 });
  });

  test("stray files are left alone, a timeline that cannot be read does not keep the others from serving", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 5000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 1);
    const broken = target({ timelineId: "33333333333333333333333333333333" });
    await (await ProposerDriver.connect(broken)).greet();
    await running?.stop();
    writeFileSync(join(directory, "notes.txt"), "hello");
    writeFileSync(join(directory, TENANT, "README"), "hello");
    const controlFile = join(directory, TENANT, broken.timelineId, "safekeeper.control");
    const bytes = readFileSync(controlFile);
    bytes[20] ^= 1;
    writeFileSync(controlFile, bytes);
    log.expectWarn("timeline cannot be opened");
    await start();
    expect(await status()).toMatchObject({ flush_lsn: lsnToString(wal.endLsn) } as never);
    expect(readdirSync(directory)).toContain("notes.txt");
  });
});

describe("proposers", () => {
  test("the newer fences the older", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 20_000);
    const older = await ProposerDriver.connect(target());
    await older.pushNew(wal, 1);
    const newer = await ProposerDriver.connect(target());
    await newer.greet();
    expect(await newer.requestVote(2)).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn });
    older.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    for (;;) {
      const reply = await older.receive();
      if (reply.kind === "append" && reply.term === 2) {
        expect(reply.flushLsn).toBe(0);
        break;
      }
    }
    older.close();
    newer.close();
  });

  test("garbage, gaps and WAL that is none end the connection and nothing else", async () => {
    await start();
    const wal = new SampleWal(START).growTo(START + 20_000);
    const good = await ProposerDriver.connect(target());
    await good.pushNew(wal, 1);
    const client = await connectTo(target());
    const copy = await client.copyBoth("START_WAL_PUSH (proto_version '3')");
    copy.write(Buffer.from("this is not a proposer's message"));
    expect(await codeOf(copy.read())).toContain("unknown proposer message");
    const gap = await ProposerDriver.connect(target());
    await gap.greet();
    gap.term = 1;
    gap.send({ kind: "append", generation: 0, term: 1, beginLsn: wal.endLsn + 8, endLsn: wal.endLsn + 8, commitLsn: 0, truncateLsn: 0, walData: new Uint8Array(0) });
    expect(await codeOf(gap.receive())).toContain("leaves a gap");
    const wrong = await ProposerDriver.connect(target());
    expect(await codeOf(wrong.greet({ pgVersion: 160001 }))).toContain("cannot go on with the WAL");
    const noise = await ProposerDriver.connect(target());
    await noise.greet();
    noise.term = 1;
    noise.send({ kind: "append", generation: 0, term: 1, beginLsn: wal.endLsn, endLsn: wal.endLsn + 8000, commitLsn: 0, truncateLsn: 0, walData: Buffer.alloc(8000, 0x5a) });
    expect(await codeOf(noise.receive())).toContain("WAL");
    expect(await status()).toMatchObject({ flush_lsn: lsnToString(wal.endLsn), commit_lsn: lsnToString(wal.endLsn) } as never);
    good.close();
  });

  test("may not create a timeline when told so, nor bring a deleted one back", async () => {
    await start();
    const refused = await ProposerDriver.connect(target(), { create: false });
    expect(await codeOf(refused.greet())).toContain("was not found");
    const wal = new SampleWal(START).growTo(START + 20_000);
    const proposer = await ProposerDriver.connect(target());
    await proposer.pushNew(wal, 1);
    const deleted = await http(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`, { method: "DELETE" });
    expect(await deleted.json()).toEqual({ dir_existed: true });
    expect(await codeOf(proposer.flushedTo(wal.endLsn + 1))).not.toBeNull();
    expect(readdirSync(join(directory, TENANT))).toEqual([]);
    const back = await ProposerDriver.connect(target());
    expect(await codeOf(back.greet())).toContain("has been deleted");
    expect((await http(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`)).status).toBe(404);
  });
});

describe("HTTP", () => {
  test("create, list, status, term bump, membership, checkpoint, debug dump, delete", async () => {
    await start();
    log.expectWarn("is not a member of the configuration");
    const body = { tenant_id: TENANT, timeline_id: TIMELINE, mconf: { generation: 1, members: [{ id: 1, host: "a", pg_port: 1 }], new_members: null }, pg_version: 170002, system_id: "18446744073709551615", wal_seg_size: MIB, start_lsn: lsnToString(START) };
    const post = (path: string, value: unknown, method = "POST"): Promise<Response> => http(path, { method, body: JSON.stringify(value) });
    expect((await post("/v1/tenant/timeline", body)).status).toBe(200);
    expect((await post("/v1/tenant/timeline", body)).status).toBe(200);
    expect((await post("/v1/tenant/timeline", { ...body, timeline_id: TENANT, pg_version: 90000 })).status).toBe(400);
    expect(await (await http("/v1/tenant/timeline")).json()).toEqual([{ tenant_id: TENANT, timeline_id: TIMELINE }]);
    expect(await (await http(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`)).text()).toContain('"system_id":18446744073709551615');
    expect(await status()).toMatchObject({ commit_lsn: lsnToString(START), acceptor_state: { term: 0, term_history: [{ term: 0, lsn: lsnToString(START) }] }, mconf: body.mconf } as never);
    const path = `/v1/tenant/${TENANT}/timeline/${TIMELINE}`;
    expect(await (await post(`${path}/term_bump`, { term: 7 })).json()).toEqual({ previous_term: 0, current_term: 7 });
    expect(await (await post(`${path}/term_bump`, {})).json()).toEqual({ previous_term: 7, current_term: 8 });
    const next = { ...body.mconf, generation: 2 };
    expect(await (await post(`${path}/membership`, next, "PUT")).json()).toMatchObject({ previous_conf: body.mconf, current_conf: next });
    expect((await post(`${path}/membership`, body.mconf, "PUT")).status).toBe(409);
    expect((await post(`${path}/membership`, { generation: 3, members: [{ id: 9, host: "a", pg_port: 1 }] }, "PUT")).status).toBe(403);
    expect((await post(`${path}/checkpoint`, {})).status).toBe(200);
    const dump = (await (await http("/v1/debug_dump?dump_all=true")).json()) as { timelines: { control_file: { acceptor_state: unknown }; disk_content: { files: unknown[] } }[] };
    expect(dump.timelines[0].control_file.acceptor_state).toMatchObject({ term: 8 });
    expect(dump.timelines[0].disk_content.files).toHaveLength(1);
    expect((await http("/v1/debug_dump?no_such=1")).status).toBe(400);
    const metrics = await (await http("/metrics")).text();
    expect(metrics).toContain("safekeeper_timelines 1");
    expect(metrics).toContain(`safekeeper_acceptor_term{tenant_id="${TENANT}",timeline_id="${TIMELINE}"} 8`);
    await restart();
    expect(await status()).toMatchObject({ acceptor_state: { term: 8 }, mconf: next } as never);
    expect(await (await http(`/v1/tenant/${TENANT}`, { method: "DELETE" })).json()).toEqual({ [TIMELINE]: { dir_existed: true } });
    expect(await (await http("/v1/tenant/timeline")).json()).toEqual([]);
  });

  test("a timeline created with its start takes WAL from there", async () => {
    await start();
    const body = { tenant_id: TENANT, timeline_id: TIMELINE, pg_version: 170002, wal_seg_size: MIB, start_lsn: lsnToString(START) };
    expect((await http("/v1/tenant/timeline", { method: "POST", body: JSON.stringify(body) })).status).toBe(200);
    const wal = new SampleWal(START).growTo(START + 5000);
    const proposer = await ProposerDriver.connect(target(), { create: false });
    await proposer.greet();
    expect(await proposer.requestVote(1)).toMatchObject({ flushLsn: START, termHistory: [{ term: 0, lsn: START }] });
    proposer.elected([{ term: 0, lsn: START }, { term: 1, lsn: START }], START);
    proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: wal.endLsn });
    await proposer.flushedTo(wal.endLsn);
    proposer.close();
    await restart();
    expect(await status()).toMatchObject({ flush_lsn: lsnToString(wal.endLsn) } as never);
  });
});

test("tokens: default deny, the tenant's own timelines only, on both protocols", async () => {
  const keys = generateTokenKeys();
  const other = generateTokenKeys();
  const keyPath = join(directory, "key.pem");
  writeFileSync(keyPath, keys.publicKeyPem);
  const anyPort = { host: "127.0.0.1", port: 0 };
  await start({ pgAuthPublicKeyPath: keyPath, pgTenantOnlyAuthPublicKeyPath: keyPath, pgTenantOnlyAddress: anyPort, httpAuthPublicKeyPath: keyPath });
  log.expectWarn("request refused");
  const token = (scope: "tenant" | "safekeeperdata" | "pageserverapi" | "admin", tenantId?: string, key = keys.privateKeyPem): string => signToken({ scope, ...(tenantId === undefined ? {} : { tenantId }) }, key);
  const pg = async (password: string | undefined, port = running?.pgPort ?? 0): Promise<boolean> => {
    try {
      const client = await connectTo(target({ port, ...(password === undefined ? {} : { password }) }));
      await client.query("TIMELINE_STATUS");
      client.close();
      return true;
    } catch (error) {
      if (isStrataError(error)) return false;
      throw error;
    }
  };
  const tenantOnly = running?.pgTenantOnlyPort ?? 0;
  expect(await pg(token("safekeeperdata"))).toBe(true);
  expect(await pg(token("tenant", TENANT))).toBe(true);
  expect(await pg(token("tenant", TIMELINE))).toBe(false);
  expect(await pg(token("pageserverapi"))).toBe(false);
  expect(await pg(token("admin"))).toBe(false);
  expect(await pg(token("safekeeperdata", undefined, other.privateKeyPem))).toBe(false);
  expect(await pg(undefined)).toBe(false);
  expect(await pg(token("safekeeperdata"), tenantOnly)).toBe(false);
  expect(await pg(token("tenant", TENANT), tenantOnly)).toBe(true);
  const get = async (path: string, bearer?: string): Promise<number> => (await http(path, bearer === undefined ? {} : { headers: { authorization: `Bearer ${bearer}` } })).status;
  expect(await get("/v1/status")).toBe(200);
  expect(await get("/v1/tenant/timeline")).toBe(401);
  expect(await get("/v1/tenant/timeline?x=/v1/status")).toBe(401);
  expect(await get("/v1/tenant/timeline", token("tenant", TENANT))).toBe(403);
  expect(await get("/v1/tenant/timeline", token("safekeeperdata"))).toBe(200);
  expect(await get(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`, token("tenant", TENANT))).toBe(404);
  expect(await get(`/v1/tenant/${TENANT}/timeline/${TIMELINE}`, token("tenant", TIMELINE))).toBe(403);
});
