/** What operators do to a safekeeper: initialize, look, patch, copy, limit, delete for good. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString } from "../../src/kit/lsn.ts";
import type { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { decodeControlFile } from "../../src/safekeeper/control-file/codec.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { Tombstones } from "../../src/safekeeper/timeline/tombstones.ts";
import { testLogger } from "../support/test-logger.ts";
import { platform, ProposerDriver } from "./support/driver.ts";
import { readWal } from "./support/read-wal.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const COPY = "33333333333333333333333333333333";
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let log: RecordingLogger;
let safekeeper: RunningSafekeeper | null = null;

async function start(over: Partial<SafekeeperConfig> = {}, stored = false): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const remote = stored ? { remoteStorage: await LocalDirectoryStorage.open(join(directory, "remote"), platform) } : {};
  safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "sk"), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, ...over }, { platform, log, ...remote });
  return safekeeper;
}

async function stop(): Promise<void> {
  await safekeeper?.stop();
  safekeeper = null;
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-operator-"));
  log = testLogger();
});
afterEach(async () => {
  await stop();
  rmSync(directory, { recursive: true, force: true });
});

async function http(method: string, path: string, body?: unknown): Promise<{ status: number; json: Record<string, unknown> }> {
  const reply = await fetch(`http://127.0.0.1:${safekeeper?.httpPort}/v1/tenant/${ID.tenantId}/timeline/${path}`, {
    method, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  return { status: reply.status, json: ((await reply.json().catch(() => null)) ?? {}) as Record<string, unknown> };
}

async function eventually(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 120 && !condition(); tries++) await Bun.sleep(50);
  expect(condition()).toBe(true);
}

const target = () => ({ port: safekeeper?.pgPort ?? 0, ...ID });

async function pushed(wal: SampleWal): Promise<void> {
  const proposer = await ProposerDriver.connect(target());
  await proposer.pushNew(wal, 1);
  proposer.close();
}

describe("deleted timelines", () => {
  test("a compute cannot bring one back, not after a restart either; an operator can, and that lasts as well", async () => {
    await start();
    await pushed(new SampleWal(START).growTo(START + 5000));
    expect((await http("DELETE", ID.timelineId)).json).toEqual({ dir_existed: true });
    await stop();
    await start();
    const refused = await ProposerDriver.connect(target());
    await expect(refused.greet()).rejects.toThrow(/deleted/);
    const created = await fetch(`http://127.0.0.1:${safekeeper?.httpPort}/v1/tenant/timeline`, {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ tenant_id: ID.tenantId, timeline_id: ID.timelineId, pg_version: 170002, system_id: 7, wal_seg_size: MIB, start_lsn: lsnToString(START) }),
    });
    expect(created.status).toBe(200);
    await stop();
    await start();
    const accepted = await ProposerDriver.connect(target());
    expect((await accepted.greet()).kind).toBe("greeting");
    accepted.close();
  });

  test("the file survives a torn line and is written anew when it is mostly history", async () => {
    const files = new RealFiles();
    const open = async (): Promise<Tombstones> => {
      const tombstones = new Tombstones({ files, directory, sync: false });
      await tombstones.load();
      return tombstones;
    };
    const key = (number: number): string => `${ID.tenantId}/${number.toString(16).padStart(32, "0")}`;
    const path = join(directory, "deleted-timelines");
    const first = await open();
    await Promise.all([first.add(key(1)), first.add(key(2)), first.remove(key(1))]);
    appendFileSync(path, `+ ${key(3).slice(0, 40)}`);
    const second = await open();
    expect([1, 2, 3].map((number) => second.has(key(number)))).toEqual([false, true, false]);
    await second.add(key(4));
    expect(readFileSync(path, "utf8")).toBe(`+ ${key(1)}\n+ ${key(2)}\n- ${key(1)}\n+ ${key(4)}\n`);
    for (let round = 0; round < 5100; round++) {
      await second.add(key(5));
      await second.remove(key(5));
    }
    expect(readFileSync(path, "utf8").split("\n").length).toBeLessThan(1000);
    const third = await open();
    expect([2, 4, 5].map((number) => third.has(key(number)))).toEqual([true, true, false]);
  });
});

test("more WAL than allowed is refused; what is there stays and is served", async () => {
  await start({ maxTimelineDiskUsageBytes: 2 * MIB });
  log.expectWarn(/./);
  const wal = new SampleWal(START).growTo(6 * MIB + 100_000);
  const proposer = await ProposerDriver.connect(target());
  await proposer.pushNew(wal, 1);
  const end = wal.endLsn;
  wal.growTo(7 * MIB + 1000);
  proposer.append(wal, { from: end, to: wal.endLsn, commitLsn: end });
  await proposer.flushedTo(wal.endLsn);
  const over = wal.endLsn;
  wal.add(100);
  proposer.append(wal, { from: over, to: wal.endLsn, commitLsn: over });
  await expect(proposer.flushedTo(wal.endLsn)).rejects.toThrow(/at most 2097152 are allowed/);
  const metrics = await (await fetch(`http://127.0.0.1:${safekeeper?.httpPort}/metrics`)).text();
  expect(metrics).toMatch(/safekeeper_wal_storage_limit_errors 1\b/);
  expect((await http("GET", ID.timelineId)).json.flush_lsn).toBe(lsnToString(over));
});

test("fields of the control file are changed by name, durably, and nothing else", async () => {
  await start();
  log.expectWarn("control file changed by hand");
  const wal = new SampleWal(START).growTo(8 * MIB);
  await pushed(wal);
  const patched = await http("PATCH", `${ID.timelineId}/control_file`, { updates: { backup_lsn: "0/600000", peer_horizon_lsn: "0/1" }, apply_fields: ["backup_lsn"] });
  expect(patched.status).toBe(200);
  expect((patched.json.new_control_file as Record<string, unknown>).backup_lsn).toBe("0/600000");
  const state = decodeControlFile(readFileSync(join(directory, "sk", ID.tenantId, ID.timelineId, "safekeeper.control")));
  expect([state.backupLsn, state.peerHorizonLsn]).toEqual([0x600000, START]);
  // Back again, below what memory had.
  await http("PATCH", `${ID.timelineId}/control_file`, { updates: { backup_lsn: lsnToString(START) }, apply_fields: ["backup_lsn"] });
  expect((await http("GET", ID.timelineId)).json.backup_lsn).toBe(lsnToString(START));
  for (const body of [{ updates: {}, apply_fields: ["backup_lsn"] }, { updates: { tenant_id: COPY }, apply_fields: ["tenant_id"] }, { updates: { commit_lsn: "what" }, apply_fields: ["commit_lsn"] }]) {
    expect((await http("PATCH", `${ID.timelineId}/control_file`, body)).status).toBe(400);
  }
});

test("a control file is not made to say what cannot be: what is refused changes nothing", async () => {
  await start();
  const wal = new SampleWal(START).growTo(6 * MIB + 300_000);
  const proposer = await ProposerDriver.connect(target());
  await proposer.greet();
  await proposer.requestVote(3);
  proposer.elected([{ term: 3, lsn: START }], START);
  const committed = wal.lastEnd(6 * MIB + 100_000);
  proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: committed });
  await proposer.flushedTo(wal.endLsn);
  const before = (await http("GET", ID.timelineId)).json;
  const refused = async (updates: Record<string, unknown>, why: RegExp): Promise<void> => {
    const reply = await http("PATCH", `${ID.timelineId}/control_file`, { updates, apply_fields: Object.keys(updates) });
    expect([reply.status, String(reply.json.msg)]).toEqual([400, expect.stringMatching(why) as unknown as string]);
  };
  const at = lsnToString;
  await refused({ commit_lsn: at(wal.endLsn + 8) }, /beyond the end of the log/);
  await refused({ commit_lsn: at(START - 8) }, /below where the WAL begins/);
  await refused({ commit_lsn: at(committed - 8) }, /no record of the log ends/);
  for (const field of ["backup_lsn", "peer_horizon_lsn", "remote_consistent_lsn"]) await refused({ [field]: at(wal.endLsn) }, new RegExp(`${field} .* is beyond commit_lsn`));
  await refused({ timeline_start_lsn: at(START + 8) }, /cannot begin below the timeline/);
  await refused({ local_start_lsn: "0/0" }, /nor one of the two be unknown/);
  await refused({ timeline_start_lsn: "0/0", local_start_lsn: "0/0" }, /the timeline has a start/);
  const history = [{ term: 3, lsn: at(START) }];
  await refused({ acceptor_state: { term: 2, term_history: [] } }, /in which this node may have voted/);
  await refused({ acceptor_state: { term: 3, term_history: [] } }, /does not begin where the timeline does/);
  await refused({ acceptor_state: { term: 3, term_history: [...history, { term: 4, lsn: at(committed) }] } }, /of later terms than 3/);
  await refused({ acceptor_state: { term: 9, term_history: [...history, { term: 2, lsn: at(committed) }] } }, /term/);
  await refused({ partial_backup: { segments: [{ status: "Uploaded", name: "../else/where", commit_lsn: "0/0", flush_lsn: "0/0", term: 1 }] } }, /partial_backup/);
  expect((await http("GET", ID.timelineId)).json).toEqual(before);

  // What may be: a record's end below, and a term above.
  log.expectWarn("control file changed by hand");
  const lower = wal.lastEnd(6 * MIB + 50_000);
  const patched = await http("PATCH", `${ID.timelineId}/control_file`, { updates: { commit_lsn: at(lower), acceptor_state: { term: 7, term_history: history } }, apply_fields: ["commit_lsn", "acceptor_state"] });
  expect([patched.status, (await http("GET", ID.timelineId)).json.commit_lsn]).toEqual([200, at(lower)]);
  await refused({ mconf: { generation: 0, members: [{ id: 1, host: "a", pg_port: 1 }], new_members: null } }, /decided once for its generation/);
  proposer.close();
  await stop();
  await start();
  const after = (await http("GET", ID.timelineId)).json;
  expect([after.commit_lsn, after.flush_lsn, (after.acceptor_state as { term: number }).term]).toEqual([at(lower), at(wal.endLsn), 7]);
});

test("a copy ends where WAL is committed and a record ends; it gives no votes before it is known that nobody has more of it", async () => {
  const first = await start();
  const wal = new SampleWal(START).growTo(6 * MIB);
  const committed = wal.lastEnd(5 * MIB + 600_000);
  const proposer = await ProposerDriver.connect(target());
  await proposer.greet();
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: START }], START);
  proposer.append(wal, { from: START, to: wal.endLsn, commitLsn: committed });
  await proposer.flushedTo(wal.endLsn);
  const copy = (until: number) => http("POST", `${ID.timelineId}/copy`, { target_timeline_id: COPY, until_lsn: lsnToString(until) });
  const beyond = await copy(wal.endLsn);
  expect([beyond.status, String(beyond.json.msg)]).toEqual([409, expect.stringContaining("known to be committed up to") as unknown as string]);
  expect((await copy(committed - 8)).status).toBe(400);
  expect((await copy(committed)).status).toBe(200);
  expect((await http("GET", COPY)).json.recovering).toBe(true);
  proposer.close();

  const peer = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "peer"), nodeId: 2, pgAddress: { host: "127.0.0.1", port: 0 }, httpAddress: { host: "127.0.0.1", port: 0 }, brokerEndpoint: null }, { platform, log });
  try {
    const known = await ProposerDriver.connect({ port: first.pgPort, tenantId: ID.tenantId, timelineId: COPY, peers: [`127.0.0.1:${peer.pgPort}`] });
    await known.greet();
    expect(await known.requestVote(1)).toMatchObject({ voteGiven: true, flushLsn: committed });
    known.close();
  } finally {
    await peer.stop();
  }
}, 20_000);

test("a copy has the WAL up to its end, whether it was on the disk or in the store", async () => {
  await start({}, true);
  const wal = new SampleWal(START).growTo(8 * MIB + 5000);
  await pushed(wal);
  const remote = join(directory, "remote", ID.tenantId, ID.timelineId);
  await eventually(() => existsSync(remote) && readdirSync(remote).length === 3);
  const until = wal.lastEnd(7 * MIB + 300_000);
  expect((await http("POST", `${ID.timelineId}/copy`, { target_timeline_id: COPY, until_lsn: lsnToString(until) })).status).toBe(200);
  const status = (await http("GET", COPY)).json;
  expect([status.commit_lsn, status.flush_lsn, status.timeline_start_lsn, status.backup_lsn]).toEqual([lsnToString(until), lsnToString(until), lsnToString(START), "0/700000"]);
  expect(readdirSync(join(directory, "sk", ID.tenantId, COPY)).sort()).toEqual(["000000010000000000000007.partial", "safekeeper.control"]);
  expect((await readWal({ ...target(), timelineId: COPY }, { from: START, to: until })).equals(wal.bytes(START, until))).toBe(true);
  expect((await http("POST", `${ID.timelineId}/copy`, { target_timeline_id: "44".repeat(16), until_lsn: lsnToString(wal.endLsn + 800) })).status).toBe(400);
  await stop();
  await start({}, true);
  expect((await http("GET", COPY)).json.flush_lsn).toBe(lsnToString(until));
});

test("the backup of an unfinished segment is forgotten and removed", async () => {
  await start({ partialBackupTimeoutMs: 30 }, true);
  await pushed(new SampleWal(START).growTo(5 * MIB + 200_000));
  const remote = join(directory, "remote", ID.tenantId, ID.timelineId);
  await eventually(() => existsSync(remote) && readdirSync(remote).some((name) => name.endsWith("_sk1.partial")));
  const [name] = readdirSync(remote);
  await stop();
  await start({ partialBackupTimeoutMs: 3_600_000 }, true);
  expect((await http("POST", `${ID.timelineId}/backup_partial_reset`)).json as unknown).toEqual([name]);
  expect(readdirSync(remote)).toEqual([]);
  expect((await http("POST", `${ID.timelineId}/backup_partial_reset`)).json as unknown).toEqual([]);
});

test("--init makes the directory and ends; --dump-control-file prints one", async () => {
  const main = join(import.meta.dir, "../../src/main.ts");
  const run = async (...args: string[]): Promise<{ code: number; out: string }> => {
    const child = Bun.spawn([process.execPath, main, "--role", "safekeeper", ...args], { stdout: "pipe", stderr: "ignore" });
    return { out: await new Response(child.stdout).text(), code: await child.exited };
  };
  expect((await run("--init", "--id", "9", "--datadir", join(directory, "made"))).code).toBe(0);
  expect(readFileSync(join(directory, "made", "safekeeper.id"), "utf8").trim()).toBe("9");
  await start();
  await pushed(new SampleWal(START).growTo(START + 5000));
  await stop();
  const { code, out } = await run("--dump-control-file", join(directory, "sk", ID.tenantId, ID.timelineId, "safekeeper.control"));
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ tenant_id: ID.tenantId, timeline_start_lsn: lsnToString(START), server: { wal_seg_size: MIB }, eviction_state: "Present" });
}, 20_000);
