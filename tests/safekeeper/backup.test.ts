/** WAL backup over a real safekeeper and a directory as object storage. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString } from "../../src/kit/lsn.ts";
import { FaultInjectingStorage } from "../../src/remote-storage/fault-injecting.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { EMPTY_PAGESERVER_FEEDBACK, encodePageserverFeedback } from "../../src/safekeeper/api/pageserver-feedback.ts";
import { electOffloader } from "../../src/safekeeper/backup/elect-offloader.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { decodeControlFile } from "../../src/safekeeper/control-file/codec.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import type { PgClient } from "../../src/wire/client.ts";
import type { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { testLogger } from "../support/test-logger.ts";
import { connectTo, platform, ProposerDriver } from "./support/driver.ts";
import { readWal } from "./support/read-wal.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
/** What stays here when everything whole is in the store. */
const LEFT = "000000010000000000000008.partial,safekeeper.control";
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let log: RecordingLogger;
let storage: FaultInjectingStorage;
let safekeeper: RunningSafekeeper;
const others: RunningSafekeeper[] = [];

/** @param name of the data directory: an unused one makes a safekeeper that has lost everything */
async function start(name: string, over: Partial<SafekeeperConfig> = {}): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, name), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, ...over };
  return startSafekeeper(config, { platform, log, remoteStorage: storage });
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata-backup-"));
  log = testLogger();
  storage = new FaultInjectingStorage(await LocalDirectoryStorage.open(join(directory, "remote"), platform), platform);
  safekeeper = await start("sk");
});
afterEach(async () => {
  for (const running of [safekeeper, ...others.splice(0)]) await running.stop();
  rmSync(directory, { recursive: true, force: true });
});

const remoteNames = (): string[] => {
  const remote = join(directory, "remote", ID.tenantId, ID.timelineId);
  return existsSync(remote) ? readdirSync(remote).sort() : [];
};
const localNames = (name = "sk"): string[] => readdirSync(join(directory, name, ID.tenantId, ID.timelineId)).sort();

/** As a pageserver that has everything up to `lsn` in object storage. */
async function reportConsistent(port: number, lsn: number): Promise<PgClient> {
  const pageserver = await connectTo({ port, ...ID, applicationName: "pageserver" });
  const feedback = await pageserver.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(lsn)}`);
  feedback.write(Buffer.concat([Buffer.from("z"), Buffer.alloc(8), encodePageserverFeedback({ ...EMPTY_PAGESERVER_FEEDBACK, remoteConsistentLsn: lsn })]));
  return pageserver;
}

async function eventually(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 120 && !condition(); tries++) await Bun.sleep(50);
  expect(condition()).toBe(true);
}

test("committed segments are uploaded, then removed here, and still served; a deletion takes them along", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 5000);
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.pushNew(wal, 1);
  const names = ["000000010000000000000005", "000000010000000000000006", "000000010000000000000007"];
  await eventually(() => remoteNames().join() === names.join());
  expect(readFileSync(join(directory, "remote", ID.tenantId, ID.timelineId, names[1])).equals(wal.bytes(6 * MIB, 7 * MIB))).toBe(true);

  const pageserver = await reportConsistent(safekeeper.pgPort, wal.endLsn);
  await eventually(() => localNames().join() === LEFT);
  expect((await readWal({ port: safekeeper.pgPort, ...ID }, { from: START, to: wal.endLsn })).equals(wal.bytes())).toBe(true);
  pageserver.destroy();
  proposer.close();
  await fetch(`http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}`, { method: "DELETE" });
  await eventually(() => remoteNames().length === 0);
}, 15_000);

test("what could not be uploaded is not removed here, however far the pageserver is", async () => {
  log.expectWarn("WAL backup failed");
  storage.plan.failBefore = 1;
  const wal = new SampleWal(START).growTo(8 * MIB + 5000);
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.pushNew(wal, 1);
  const pageserver = await reportConsistent(safekeeper.pgPort, wal.endLsn);
  const before = localNames();
  const tried = storage.faults;
  await eventually(() => storage.faults > tried + 3);
  expect(localNames()).toEqual(before);
  expect(before).toContain("000000010000000000000005");
  storage.plan.failBefore = 0;
  await eventually(() => localNames().join() === LEFT);
  pageserver.destroy();
  proposer.close();
}, 15_000);

test("a restarted safekeeper, and one that lost its disk, serve from the store what they do not have", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 5000);
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.pushNew(wal, 1);
  const pageserver = await reportConsistent(safekeeper.pgPort, wal.endLsn);
  await eventually(() => localNames().join() === LEFT);
  pageserver.destroy();
  proposer.close();
  await safekeeper.stop();
  safekeeper = await start("sk");
  expect((await readWal({ port: safekeeper.pgPort, ...ID }, { from: START, to: wal.endLsn })).equals(wal.bytes())).toBe(true);

  // The copy brings the control file and what is on the other's disk: the rest is in the store for all.
  const wiped = await start("empty", { nodeId: 2 });
  others.push(wiped);
  const body = JSON.stringify({ tenant_id: ID.tenantId, timeline_id: ID.timelineId, http_hosts: [`http://127.0.0.1:${safekeeper.httpPort}`] });
  const reply = await fetch(`http://127.0.0.1:${wiped.httpPort}/v1/pull_timeline`, { method: "POST", headers: { "content-type": "application/json" }, body });
  expect(reply.status).toBe(200);
  expect(localNames("empty").join()).toBe(LEFT);
  expect((await readWal({ port: wiped.pgPort, ...ID }, { from: START, to: wal.endLsn })).equals(wal.bytes())).toBe(true);
}, 20_000);

test("an unfinished segment that rests is uploaded under a name that says what it holds; the next one replaces it", async () => {
  await safekeeper.stop();
  safekeeper = await start("sk", { partialBackupTimeoutMs: 50, nodeId: 1 });
  const wal = new SampleWal(START).growTo(5 * MIB + 200_000);
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.pushNew(wal, 3);
  const hex = (lsn: number): string => lsn.toString(16).toUpperCase().padStart(16, "0");
  const nameAt = (lsn: number): string => `000000010000000000000005_3_${hex(lsn)}_${hex(lsn)}_sk1.partial`;
  const firstEnd = wal.endLsn;
  await eventually(() => remoteNames().join() === nameAt(firstEnd));
  const content = readFileSync(join(directory, "remote", ID.tenantId, ID.timelineId, nameAt(firstEnd)));
  expect(content.length).toBe(firstEnd - 5 * MIB);
  expect(content.subarray(START - 5 * MIB).equals(wal.bytes())).toBe(true);
  const controlFile = () => decodeControlFile(readFileSync(join(directory, "sk", ID.tenantId, ID.timelineId, "safekeeper.control")));
  await eventually(() => controlFile().partialBackup[0]?.status === "uploaded");
  expect(controlFile().partialBackup).toEqual([{ status: "uploaded", name: nameAt(firstEnd), commitLsn: firstEnd, flushLsn: firstEnd, term: 3 }]);

  // A failed upload leaves the old one, and is named in the control file until it is gone.
  log.expectWarn("WAL backup failed");
  storage.plan.failAfter = 1;
  wal.growTo(5 * MIB + 300_000);
  proposer.append(wal, { from: firstEnd, to: wal.endLsn, commitLsn: wal.endLsn });
  await proposer.flushedTo(wal.endLsn);
  await eventually(() => remoteNames().join() === [nameAt(firstEnd), nameAt(wal.endLsn)].join());
  expect(controlFile().partialBackup.map(({ name, status }) => [name, status])).toEqual([[nameAt(firstEnd), "uploaded"], [nameAt(wal.endLsn), "in-progress"]]);
  storage.plan.failAfter = 0;
  await eventually(() => remoteNames().join() === nameAt(wal.endLsn));
  await eventually(() => controlFile().partialBackup.length === 1 && controlFile().partialBackup[0].name === nameAt(wal.endLsn));
  proposer.close();
}, 20_000);

test("all elect the same one, who has what comes next and is not far behind", () => {
  const candidate = (safekeeperId: number, commitLsn: number, localStartLsn = 0) => ({ safekeeperId, commitLsn, localStartLsn });
  const options = { backupLsn: 100, maxLagBytes: 50, timelineId: "00000000000000000000000000000001" };
  expect(electOffloader([candidate(3, 200), candidate(1, 190), candidate(2, 195)], options)).toBe(2);
  expect(electOffloader([candidate(2, 195), candidate(1, 190), candidate(3, 200)], options)).toBe(2);
  expect(electOffloader([candidate(1, 100), candidate(2, 200), candidate(3, 200, 150)], options)).toBe(2);
  expect(electOffloader([candidate(3, 200, 150)], options)).toBeNull();
  expect(electOffloader([], options)).toBeNull();
});

test("the backup of an unfinished segment that cannot be removed now is not forgotten", async () => {
  await safekeeper.stop();
  safekeeper = await start("sk", { partialBackupTimeoutMs: 20 });
  log.expectWarn("WAL backup failed");
  log.expectWarn(/./);
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, ...ID });
  await proposer.pushNew(new SampleWal(START).growTo(5 * MIB + 200_000), 1);
  proposer.close();
  const isThere = (): boolean => remoteNames().some((name) => name.endsWith("_sk1.partial"));
  await eventually(isThere);
  const [name] = remoteNames();
  const reset = () => fetch(`http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}/backup_partial_reset`, { method: "POST" });
  storage.plan = { ...storage.plan, failBefore: 1 };
  expect((await reset()).ok).toBe(false);
  expect(decodeControlFile(readFileSync(join(directory, "sk", ID.tenantId, ID.timelineId, "safekeeper.control"))).partialBackup.map((segment) => segment.name)).toContain(name);
  storage.plan = { ...storage.plan, failBefore: 0 };
  expect(await (await reset()).json()).toContain(name);
}, 20_000);
