/**
 * Safekeeper and broker as processes: profiles while they work, request ids, and SIGTERM with all kinds of connections open. They end
 * soon and in order, whatever the others do, and what was acknowledged is there afterwards.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { perftools } from "pprof/proto/profile";
import { connectBroker } from "../../src/broker/api/client.ts";
import { MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { lsnToString } from "../../src/kit/lsn.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { RawLibpq } from "../conformance/raw-libpq.ts";
import { ProposerDriver } from "../safekeeper/support/driver.ts";
import { MIB, SampleWal } from "../safekeeper/support/sample-wal.ts";
import { RoleProcess } from "../support/role-process.ts";

const ROOT = join(import.meta.dir, "../..");
const PROGRAM = process.env.STRATA_TEST_PROGRAM !== undefined ? [process.env.STRATA_TEST_PROGRAM] : [process.execPath, join(ROOT, "src/main.ts")];
const IDS = { tenantId: "1".repeat(32), timelineId: "2".repeat(32) };
const START = 5 * MIB + 3 * 8192 + 1000;
const LIMIT_MS = 60_000;
/** Well below what supervisors give before they kill. */
const STOP_LIMIT_MS = 30_000;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, LIMIT_MS);

async function role(name: "safekeeper" | "broker"): Promise<{ readonly process: RoleProcess; readonly pgPort: number; readonly url: string; readonly httpPort: number }> {
  const directory = mkdtempSync(join(tmpdir(), "strata-stop-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  const [pgPort, httpPort] = [freePort(), freePort()];
  const args = name === "broker"
    ? ["--listen-addr", `127.0.0.1:${httpPort}`]
    : ["--id", "1", "--datadir", join(directory, "data"), "--listen-pg", `127.0.0.1:${pgPort}`, "--listen-http", `127.0.0.1:${httpPort}`, "--broker-endpoint", ""];
  const url = `http://127.0.0.1:${httpPort}`;
  const running = new RoleProcess({ name, command: [...PROGRAM, "--role", name, ...args], environment: {}, logPath: join(directory, "log"), readyUrl: `${url}/status` });
  cleanups.push(() => running.killTree());
  running.start();
  await running.waitReady(LIMIT_MS / 2);
  return { process: running, pgPort, url, httpPort };
}

/** How long it took. */
async function stopped(process: RoleProcess): Promise<number> {
  const startedMs = performance.now();
  await process.stop();
  return performance.now() - startedMs;
}

describe.each(["safekeeper", "broker"] as const)("%s", (name) => {
  test("profiles: one at a time, another by force, heap; request ids come back", async () => {
    const { url, process } = await role(name);
    const first = fetch(`${url}/profile/cpu?seconds=30`);
    await Bun.sleep(300);
    expect((await fetch(`${url}/profile/cpu?seconds=1`)).status).toBe(409);
    const second = await fetch(`${url}/profile/cpu?seconds=1&force=true`);
    expect((await first).status).toBe(200);
    expect(second.status).toBe(200);
    const profile = perftools.profiles.Profile.decode(gunzipSync(await second.bytes()));
    expect(profile.sampleType.length).toBeGreaterThan(0);
    const heap = perftools.profiles.Profile.decode(gunzipSync(await (await fetch(`${url}/profile/heap`)).bytes()));
    expect(heap.sample.length).toBeGreaterThan(0);
    expect(await (await fetch(`${url}/profile/heap?format=svg`)).text()).toStartWith("<svg");
    const id = "11111111-2222-3333-4444-555555555555";
    const missing = await fetch(`${url}/v1/nothing`, { headers: { "x-request-id": id } });
    expect([missing.status, missing.headers.get("x-request-id")]).toEqual([404, id]);
    expect(process.log()).toContain(id);
  }, LIMIT_MS);
});

test("a safekeeper stops while a proposer streams, a reader takes nothing, one is silent and a profile is taken; nothing acknowledged is lost", async () => {
  const { process, pgPort, url } = await role("safekeeper");
  const target = { port: pgPort, ...IDS };
  const proposer = await ProposerDriver.connect(target);
  const wal = new SampleWal(START).growTo(START + 40 * MIB, 60_000);
  await proposer.pushNew(wal, 1);
  const options = `-c tenant_id=${IDS.tenantId} timeline_id=${IDS.timelineId}`;
  const deaf = await RawLibpq.session(pgPort, { user: "test", options });
  deaf.raw.query(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
  await deaf.raw.expect("W");
  deaf.raw.pause();
  const silent = await RawLibpq.session(pgPort, { user: "test", options });
  const half = await RawLibpq.open(pgPort);
  half.write(Buffer.of(0, 0));
  const profile = fetch(`${url}/profile/cpu?seconds=60`).catch(() => null);
  await Bun.sleep(500);
  const tail = new SampleWal(wal.endLsn, { previousLsn: wal.lastRecordLsn, seed: 3 }).growTo(wal.endLsn + 100_000);
  proposer.append(tail, { from: tail.startLsn, to: tail.endLsn, commitLsn: tail.endLsn });
  await proposer.flushedTo(tail.endLsn);
  expect(await stopped(process)).toBeLessThan(STOP_LIMIT_MS);
  await profile;
  for (const raw of [deaf.raw, silent.raw, half]) raw.close();
  proposer.close();
  expect(process.log()).not.toMatch(/"level":"error"|ERROR/);
  process.start();
  await process.waitReady(LIMIT_MS / 2);
  const status = (await (await fetch(`${url}/v1/tenant/${IDS.tenantId}/timeline/${IDS.timelineId}`)).json()) as object;
  expect(status).toMatchObject({ flush_lsn: lsnToString(tail.endLsn), commit_lsn: lsnToString(tail.endLsn) });
}, LIMIT_MS);

test("a broker stops while somebody publishes, others listen, and a request hangs", async () => {
  const { process, httpPort } = await role("broker");
  const client = connectBroker({ endpoint: `http://127.0.0.1:${httpPort}` });
  cleanups.push(() => client.close());
  const listening = client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: null }, () => undefined, AbortSignal.timeout(LIMIT_MS)).then(() => "ended", (error: Error) => error.message);
  const publisher = client.publisher();
  publisher.ended.catch(() => undefined);
  const half = await RawLibpq.open(httpPort);
  half.write(Buffer.from("POST /v1/thing HTTP/1.1\r\nContent-Length: 10\r\n"));
  await Bun.sleep(300);
  expect(await stopped(process)).toBeLessThan(STOP_LIMIT_MS);
  expect(typeof (await listening)).toBe("string");
  half.close();
  publisher.end();
  expect(process.log()).not.toMatch(/"level":"error"|ERROR/);
}, LIMIT_MS);
