/** What storage tells a compute to hold back: commits while the pageserver lags, writes when the timeline is too big. In a whole cluster. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import postgres from "postgres";
import { type ComputeStatus, computeStatusSchema } from "../../src/compute/api/status.ts";
import { startCompute } from "../../src/compute/compute.ts";
import type { Compute } from "../../src/compute/compute-context.ts";
import type { ComputeConfig } from "../../src/compute/config.ts";
import { NO_LAG_LIMITS } from "../../src/compute/proposer/pageserver-positions.ts";
import { parseLsn } from "../../src/kit/lsn.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { TestCluster } from "../support/dev-cluster.ts";

const platform = realPlatform();
const HOST = "127.0.0.1";
const MB = 1024 ** 2;
const log = new RecordingLogger();
let cluster: TestCluster;
const cleanups: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  cluster = await TestCluster.start({ pgVersion: 17 });
  await cluster.compute.stop();
}, 180_000);
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, 60_000);
afterAll(async () => {
  await cluster?.destroy();
  log.assertQuiet();
}, 60_000);

async function start(name: string, limits: Partial<ComputeConfig>): Promise<{ compute: Compute; sql: postgres.Sql }> {
  const { ports, tenantId, branches } = cluster.cluster;
  const compute = await startCompute({
    tenantId, timelineId: branches[0].timelineId, safekeepers: ports.safekeepers.map(({ pg }) => ({ host: HOST, port: pg })), pageserver: { host: HOST, port: ports.pageserver.pg },
    pgVersion: 17, dataDirectory: join(cluster.directory, name), pgPort: 0, httpPort: 0, mode: "primary", superuser: "postgres", settings: { shared_buffers: "16MB", autovacuum: "off" }, ...limits,
  }, { platform, log });
  const sql = postgres({ host: HOST, port: compute.pgPort, user: "postgres", database: "postgres", max: 3, onnotice: () => {} });
  cleanups.push(() => compute.kill(), () => sql.end({ timeout: 1 }));
  return { compute, sql };
}

async function statusOf(compute: Compute): Promise<ComputeStatus> {
  return computeStatusSchema.parse(await (await fetch(`http://${HOST}:${compute.httpPort}/v1/compute/status`)).json());
}

async function metricOf(compute: Compute, name: string): Promise<number> {
  const text = await (await fetch(`http://${HOST}:${compute.httpPort}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition()) return;
    await Bun.sleep(50);
  }
  throw new Error(`waited in vain for: ${what}`);
}

/** True when the promise is still pending after a while. */
async function waits(promise: Promise<unknown>): Promise<boolean> {
  return (await Promise.race([promise.then(() => "done"), Bun.sleep(1_200).then(() => "waits")])) === "waits";
}

function pausePageserver(): { resume(): void } {
  const pid = cluster.pageserver.pid ?? 0;
  expect(pid).toBeGreaterThan(1);
  process.kill(pid, "SIGSTOP");
  const resume = (): void => void process.kill(pid, "SIGCONT");
  cleanups.push(async () => resume());
  return { resume };
}

/** More WAL than the limit of these tests. */
const wal = (sql: postgres.Sql): Promise<unknown> => sql`insert into bulk select g, repeat(md5(g::text), 8) from generate_series(1, 12000) g`.execute();

test("commits wait for the quorum alone until the pageserver lags by more than the limit; then for the pageserver as well", async () => {
  const { compute, sql } = await start("lag", { lagLimits: { ...NO_LAG_LIMITS, writeBytes: MB } });
  await sql`create table bulk (id int, v text)`;
  await until("the pageserver's word", async () => (await statusOf(compute)).proposer?.pageserver !== null);
  const { resume } = pausePageserver();
  await sql`insert into bulk values (0, 'small enough')`;
  const big = wal(sql);
  expect(await waits(big)).toBe(true);
  const small = sql`insert into bulk values (-1, 'behind it')`.execute();
  expect(await waits(small)).toBe(true);
  const { proposer } = await statusOf(compute);
  expect(proposer?.throttled).toBe(true);
  // The quorum has it all: only the answer is held back.
  expect(parseLsn(proposer?.commit_lsn ?? "0/0") - parseLsn(proposer?.pageserver?.last_received_lsn ?? "0/0")).toBeGreaterThan(2 * MB);
  expect(await metricOf(compute, "compute_backpressure_throttled")).toBe(1);
  expect(await metricOf(compute, "compute_backpressure_throttling_seconds_total")).toBeGreaterThan(1);
  expect((await sql`select count(*)::int as n from bulk`)[0].n).toBe(1);
  resume();
  await Promise.all([big, small]);
  expect((await sql`select count(*)::int as n from bulk`)[0].n).toBe(12_002);
  await until("the end of throttling", async () => (await statusOf(compute)).proposer?.throttled === false);
}, 90_000);

test("a compute that stops does not wait for a pageserver that lags", async () => {
  const { compute, sql } = await start("stop", { lagLimits: { ...NO_LAG_LIMITS, writeBytes: MB }, shutdownTimeoutMs: 40_000 });
  await sql`select pg_switch_wal()`;
  await until("the pageserver's word", async () => (await statusOf(compute)).proposer?.pageserver !== null);
  pausePageserver();
  const big = wal(sql).catch((error: postgres.PostgresError) => error);
  expect(await waits(big)).toBe(true);
  const startMs = performance.now();
  await compute.stop();
  expect(performance.now() - startMs).toBeLessThan(35_000);
  expect(log.entries.some((entry) => entry.message === "compute stopped: a quorum has all of its WAL")).toBe(true);
}, 90_000);

test("at its size quota the timeline is read-only for whoever does not insist; room made, it can be written again", async () => {
  log.expectWarn("size quota");
  const sized = await start("size", {});
  await until("the pageserver's word", async () => ((await statusOf(sized.compute)).proposer?.pageserver?.current_timeline_size ?? 0) > MB);
  const sizeBytes = (await statusOf(sized.compute)).proposer?.pageserver?.current_timeline_size ?? 0;
  await sized.compute.stop();

  const maxClusterSizeBytes = Math.ceil(sizeBytes / 0.95);
  const { compute, sql } = await start("quota", { maxClusterSizeBytes });
  const state = async (): Promise<string | undefined> => (await statusOf(compute)).size_quota?.state;
  await until("the warning", async () => (await state()) === "near");
  await sql`create table filler as select g, repeat(md5(g::text), 30) as v from generate_series(1, 8000) g`;
  await until("the quota", async () => (await state()) === "exceeded");
  expect(await metricOf(compute, "compute_cluster_size_exceeded")).toBe(1);
  expect(await metricOf(compute, "compute_timeline_logical_size_bytes")).toBeGreaterThan(maxClusterSizeBytes);
  const refused = async (): Promise<boolean> => (await sql`insert into filler values (0, '')`.catch((error: postgres.PostgresError) => error)) instanceof Error;
  await until("the refusal", refused);
  expect(await sql`create table no (id int)`.catch((error: postgres.PostgresError) => error)).toMatchObject({ code: "25006" });
  expect((await sql`select count(*)::int as n from filler where g > 0`)[0].n).toBe(8000);
  await sql`vacuum filler`;
  await sql.begin("read write", (transaction) => transaction`truncate filler`);
  await until("room", async () => (await state()) !== "exceeded");
  await until("writes", async () => !(await refused()));
}, 120_000);
