import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import type { Compute } from "../../src/compute/compute-context.ts";
import { startCompute } from "../../src/compute/compute.ts";
import type { ComputeConfig } from "../../src/compute/config.ts";
import { Candidacy } from "../../src/compute/proposer/candidacy.ts";
import { LocalWal } from "../../src/compute/proposer/local-wal.ts";
import { settleLog } from "../../src/compute/proposer/settle-log.ts";
import { EMPTY_CONFIGURATION } from "../../src/safekeeper/api/membership.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../src/platform/postgres-binaries.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import type { PgMajor } from "../../src/postgres/versions/major.ts";
import { FakePageserver, FakeSafekeeper, endOfLog } from "./fake-storage.ts";
import { SEGMENT } from "./proposer/memory-acceptor.ts";

const platform = realPlatform();
const log = new RecordingLogger();
let base = "";
const cleanups: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "strata-compute-"));
  await chmod(base, 0o755);
});
afterAll(async () => await rm(base, { recursive: true, force: true }), 120_000);
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  log.assertQuiet();
}, 30_000);

async function storage(major: PgMajor) {
  const source = join(base, `initdb-${major}`);
  const binaries = await findPostgresBinaries({ major });
  await initdb({ binaries, user: await resolvePostgresUser(), dataDirectory: source, superuser: "cloud_admin", extraArguments: ["--wal-segsize=16"] }).catch(() => {});
  const pageserver = await new FakePageserver(platform, log, { directory: source, lsn: await endOfLog(source) }).start();
  const safekeepers = await Promise.all([1, 2, 3].map((nodeId) => new FakeSafekeeper(platform, log, { nodeId, major }).start()));
  cleanups.push(() => pageserver.stop(), ...safekeepers.map((safekeeper) => () => safekeeper.stop()));
  const config = (name: string): ComputeConfig => ({
    tenantId: pageserver.tenantId, timelineId: pageserver.timelineId, safekeepers: safekeepers.map(({ address }) => address), pageserver: pageserver.address,
    pgVersion: major, dataDirectory: join(base, `${name}-${major}`), pgPort: 0, httpPort: 0, mode: "primary", settings: { shared_buffers: "16MB" },
  });
  return { pageserver, safekeepers, config };
}

async function start(config: ComputeConfig): Promise<{ compute: Compute; sql: postgres.Sql }> {
  const compute = await startCompute(config, { platform, log });
  const sql = postgres({ host: "127.0.0.1", port: compute.pgPort, user: "cloud_admin", database: "postgres", max: 2, onnotice: () => {} });
  cleanups.push(() => compute.kill(), () => sql.end({ timeout: 1 }));
  return { compute, sql };
}

describe.each([14, 15, 16, 17] as const)("PostgreSQL %d", (major) => {
  test("commits through the quorum; its log shows a plain start; its WAL is on all safekeepers without a gap", async () => {
    const { pageserver, safekeepers, config } = await storage(major);
    const { compute, sql } = await start(config("plain"));
    await sql`create table t (id int primary key, v text)`;
    for (let id = 0; id < 20; id++) await sql`insert into t values (${id}, ${"x".repeat(id)})`;
    const [{ lsn }] = await sql`select pg_current_wal_flush_lsn()::text as lsn`;
    expect(lsn).toBeString();
    const lines = compute.postgresLog().join("\n");
    expect(lines).toContain("database system was shut down at");
    expect(lines).not.toMatch(/recovery|redo|resetwal|not properly shut down|FATAL|PANIC|ERROR/);
    expect((await sql`show shared_preload_libraries`)[0].shared_preload_libraries).toBe("");
    expect((await sql`select sync_state from pg_stat_replication`)[0].sync_state).toBe("sync");
    await compute.stop();
    const [a, b, c] = safekeepers.map(({ acceptor }) => acceptor.log);
    expect(a.startLsn).toBe(pageserver.lsn);
    expect(Buffer.compare(a.bytes, b.bytes)).toBe(0);
    expect(Buffer.compare(a.bytes, c.bytes)).toBe(0);
    expect(a.flushed).toBe(await endOfLog(join(config("plain").dataDirectory, "pgdata")));
    expect(safekeepers.map(({ acceptor }) => acceptor.acceptor.volatile.commitLsn)).toEqual([a.flushed, a.flushed, a.flushed]);
  }, 120_000);
});

describe("a compute", () => {
  test("starts again from nothing but storage; the next one begins where the log ends", async () => {
    const { pageserver, safekeepers, config } = await storage(17);
    const first = await start(config("first"));
    await first.sql`create table t as select generate_series(1, 1000) as id`;
    await first.compute.stop();
    pageserver.directory = join(config("first").dataDirectory, "pgdata");
    pageserver.lsn = await endOfLog(pageserver.directory);
    const second = await start(config("second"));
    expect(second.compute.startLsn).toBe(pageserver.lsn);
    expect((await second.sql`select count(*)::int as n from t`)[0].n).toBe(1000);
    await second.sql`insert into t values (0)`;
    await second.compute.stop();
    expect(safekeepers[0].acceptor.log.bytes.length).toBe(safekeepers[2].acceptor.log.bytes.length);
  }, 120_000);

  test("fills a half-emptied table again after a restart", async () => {
    const { pageserver, config } = await storage(17);
    const first = await start(config("before"));
    await first.sql`create table t as select g as id, repeat('x', 200) as v from generate_series(1, 20000) g`;
    await first.sql`delete from t where id % 2 = 0`;
    await first.sql`vacuum t`;
    const size = async (sql: postgres.Sql): Promise<number> => Number((await sql`select pg_relation_size('t')::int as n`)[0].n);
    const before = await size(first.sql);
    await first.compute.stop();
    pageserver.directory = join(config("before").dataDirectory, "pgdata");
    pageserver.lsn = await endOfLog(pageserver.directory);
    const second = await start(config("after"));
    await second.sql`insert into t select g, repeat('y', 200) from generate_series(1, 10000) g`;
    expect((await size(second.sql)) / before).toBeLessThan(1.05);
  }, 120_000);

  test("starts over when somebody writes between its base backup and its election", async () => {
    const { pageserver, safekeepers, config } = await storage(17);
    const before = pageserver.lsn;
    pageserver.afterBackup = async () => {
      const wal = new LocalWal({ files: platform.files, walDirectory: "/nonexistent", segmentSizeBytes: SEGMENT, startLsn: before });
      wal.append(before, new Uint8Array(96));
      const committed = Promise.withResolvers<void>();
      const other = new Candidacy({
        identity: { tenantId: pageserver.tenantId, timelineId: pageserver.timelineId, systemId: 0n, pgVersion: 170000, walSegmentSizeBytes: SEGMENT },
        safekeepers: safekeepers.map(({ address }) => address), platform, log, localWal: wal, configuration: EMPTY_CONFIGURATION,
        mode: { kind: "run", startLsn: before, availableLsn: wal.endLsn, previousTerm: null },
        onEffect: (effect) => void (effect.kind === "committed" && effect.lsn === wal.endLsn && committed.resolve()),
      });
      other.start();
      await committed.promise;
      await other.close();
      pageserver.lsn = wal.endLsn;
    };
    const { compute, sql } = await start(config("over"));
    expect(compute.startLsn).toBe(before + 96);
    expect(pageserver.queries.length).toBe(2);
    await sql`create table t (id int)`;
  }, 120_000);

  test("its start can be broken off while it waits for a quorum, and leaves nothing behind", async () => {
    const { safekeepers, config } = await storage(17);
    for (const safekeeper of safekeepers) await safekeeper.stop();
    const stop = new AbortController();
    const starting = startCompute(config("broken-off"), { platform, log, signal: stop.signal });
    setTimeout(() => stop.abort(), 200);
    await expect(starting).rejects.toThrow("broken off");
    const lock = await platform.files.lock(`${config("broken-off").dataDirectory}/compute.lock`);
    await lock.release();
  }, 120_000);

  test("runs where only root may go, its PostgreSQL elsewhere", async () => {
    const { config } = await storage(17);
    const closed = join(base, "closed");
    await mkdir(closed, { mode: 0o700 });
    const { compute, sql } = await start({ ...config("x"), dataDirectory: join(closed, "compute") });
    await sql`create table t (id int)`;
    await compute.stop();
    expect(await Bun.file(join(closed, "compute/postgres.log")).text()).toContain("database system is shut down");
  }, 120_000);

  test("one safekeeper down: commits go on; two down: they wait, and go on when one returns", async () => {
    const { safekeepers, config } = await storage(17);
    const { sql } = await start(config("down"));
    await sql`create table t (id int)`;
    await safekeepers[0].stop();
    await sql`insert into t values (1)`;
    await safekeepers[1].stop();
    let done = false;
    const waiting = sql`insert into t values (2)`.then(() => (done = true));
    await Bun.sleep(500);
    expect(done).toBe(false);
    await safekeepers[1].start();
    await waiting;
    await safekeepers[0].start();
    for (let tries = 0; tries < 100 && safekeepers[0].acceptor.log.flushed < safekeepers[2].acceptor.log.flushed; tries++) await Bun.sleep(50);
    expect(safekeepers[0].acceptor.log.flushed).toBeGreaterThanOrEqual(safekeepers[2].acceptor.log.flushed);
  }, 120_000);

  test("without a quorum it stops when the time for it is up, and says what may be lost", async () => {
    const { safekeepers, config } = await storage(17);
    const { compute, sql } = await start({ ...config("patience"), shutdownTimeoutMs: 1_500 });
    await sql`create table t (id int)`;
    await safekeepers[0].stop();
    await safekeepers[1].stop();
    const pending = sql`insert into t values (1)`.catch((error: Error) => error);
    await Bun.sleep(200);
    log.expectWarn(/before a quorum had all of its WAL/);
    const startMs = performance.now();
    await compute.stop();
    const tookMs = performance.now() - startMs;
    expect(tookMs).toBeGreaterThan(1_400);
    expect(tookMs).toBeLessThan(12_000);
    expect(await pending).toBeInstanceOf(Error);
    expect(await compute.ended).toBeNull();
  }, 120_000);

  test("is fenced by a later one and stops its PostgreSQL", async () => {
    const { safekeepers, config } = await storage(17);
    const { compute, sql } = await start(config("old"));
    await sql`create table t (id int)`;
    log.expectWarn(/proposer lost its leadership/);
    log.expectWarn(/proposer is fenced/);
    log.expectWarn(/compute ends/);
    // The later one: settles the log and is elected at its end, as its proposer would be.
    const { tenantId, timelineId } = config("old");
    const identity = { tenantId, timelineId, systemId: 0n, pgVersion: 170000, walSegmentSizeBytes: 16 * 1024 * 1024 };
    const addresses = safekeepers.map(({ address }) => address);
    const startLsn = await settleLog({ identity, safekeepers: addresses, platform, log });
    const elected = Promise.withResolvers<void>();
    const later = new Candidacy({
      identity, safekeepers: addresses, platform, log, localWal: null, configuration: EMPTY_CONFIGURATION, mode: { kind: "run", startLsn, availableLsn: startLsn, previousTerm: null },
      onEffect: (effect) => void (effect.kind === "elected" && elected.resolve()),
    });
    later.start();
    cleanups.push(() => later.close());
    await elected.promise;
    expect(await compute.ended).toMatchObject({ kind: "conflict", code: "log-moved-on" });
    await expect(sql`select 1`).rejects.toThrow();
  }, 120_000);

  test("with WAL beyond what was settled has to be started over by its caller's storage, not served stale", async () => {
    const { pageserver, config } = await storage(16);
    const first = await start(config("ahead"));
    await first.sql`create table t (id int)`;
    await first.compute.stop();
    await expect(startCompute(config("behind"), { platform, log })).rejects.toMatchObject({ code: "server-error", message: expect.stringContaining("only") });
    expect(pageserver.queries.length).toBe(2);
  }, 120_000);

  test("a crash of its PostgreSQL ends it; a directory in use and a port in use are refused", async () => {
    const { config } = await storage(17);
    const { compute } = await start(config("crash"));
    await expect(startCompute(config("crash"), { platform, log })).rejects.toMatchObject({ code: "directory-locked" });
    const status = (await (await fetch(`http://127.0.0.1:${compute.httpPort}/v1/compute/status`)).json()) as { status: string; proposer: { elected: boolean } };
    expect(status).toMatchObject({ status: "running", proposer: { elected: true } });
    expect(await (await fetch(`http://127.0.0.1:${compute.httpPort}/metrics`)).text()).toContain("compute_ctl_up");
    log.expectWarn(/compute ends/);
    process.kill(Number((await Bun.file(join(config("crash").dataDirectory, "pgdata/postmaster.pid")).text()).split("\n")[0]), "SIGKILL");
    expect(await compute.ended).toMatchObject({ code: "postgres-ended" });
  }, 120_000);
});
