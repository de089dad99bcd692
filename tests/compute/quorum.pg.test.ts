/** A stock PostgreSQL committing through the proposer to three real safekeepers, each a process of its own. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import type { Compute } from "../../src/compute/compute-context.ts";
import { startCompute } from "../../src/compute/compute.ts";
import type { ComputeConfig } from "../../src/compute/config.ts";
import { connectSafekeeper, timelineStatus } from "../../src/compute/proposer/safekeeper-client.ts";
import { settleLog } from "../../src/compute/proposer/settle-log.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../src/platform/postgres-binaries.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import type { PgMajor } from "../../src/postgres/versions/major.ts";
import { FakePageserver, endOfLog } from "./fake-storage.ts";

const platform = realPlatform();
const log = new RecordingLogger();
const MAIN = join(import.meta.dir, "../../src/main.ts");
let base = "";
const cleanups: (() => Promise<unknown>)[] = [];

class SafekeeperProcess {
  readonly #directory: string;
  readonly #nodeId: number;
  readonly port = freePort();
  readonly #httpPort = freePort();
  #child: Bun.Subprocess | null = null;

  constructor(directory: string, nodeId: number) {
    this.#directory = directory;
    this.#nodeId = nodeId;
  }

  async start(): Promise<this> {
    this.#child = Bun.spawn([
      process.execPath, MAIN, "--role", "safekeeper", "--datadir", this.#directory, "--id", String(this.#nodeId),
      "--listen-pg", `127.0.0.1:${this.port}`, "--listen-http", `127.0.0.1:${this.#httpPort}`, "--broker-endpoint", "http://127.0.0.1:1",
    ], { stdout: "ignore", stderr: Bun.file(`${this.#directory}.log`) });
    for (let tries = 0; tries < 300; tries++) {
      if (await fetch(`http://127.0.0.1:${this.#httpPort}/v1/status`).then((answer) => answer.ok, () => false)) return this;
      await Bun.sleep(30);
    }
    throw new Error(`safekeeper ${this.#nodeId} does not start: ${await Bun.file(`${this.#directory}.log`).text()}`);
  }

  /** The timeline is new, says who makes it: otherwise it first finds that out, and the last of three joins later. */
  async tell(timeline: { readonly tenantId: string; readonly timelineId: string }, major: PgMajor): Promise<void> {
    const json = { tenant_id: timeline.tenantId, timeline_id: timeline.timelineId, pg_version: major * 10_000, start_lsn: "0/0" };
    const reply = await fetch(`http://127.0.0.1:${this.#httpPort}/v1/tenant/timeline`, { method: "POST", body: JSON.stringify(json), headers: { "content-type": "application/json" } });
    expect(reply.status).toBe(200);
  }

  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
    this.#child?.kill(signal);
    await this.#child?.exited;
  }

  get address(): { host: string; port: number } {
    return { host: "127.0.0.1", port: this.port };
  }
}

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "strata-quorum-"));
  await chmod(base, 0o755);
});
afterAll(async () => await rm(base, { recursive: true, force: true }), 120_000);
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, 30_000);

async function cluster(major: PgMajor, name: string) {
  const source = join(base, `${name}-initdb`);
  await initdb({ binaries: await findPostgresBinaries({ major }), user: await resolvePostgresUser(), dataDirectory: source, superuser: "cloud_admin" });
  const pageserver = await new FakePageserver(platform, log, { directory: source, lsn: await endOfLog(source) }).start();
  cleanups.push(() => pageserver.stop());
  const safekeepers = [1, 2, 3].map((nodeId) => new SafekeeperProcess(join(base, `${name}-sk${nodeId}`), nodeId));
  cleanups.push(...safekeepers.map((safekeeper) => () => safekeeper.kill()));
  await Promise.all(safekeepers.map((safekeeper) => safekeeper.start()));
  await Promise.all(safekeepers.map((safekeeper) => safekeeper.tell(pageserver, major)));
  const config: ComputeConfig = {
    tenantId: pageserver.tenantId, timelineId: pageserver.timelineId, safekeepers: safekeepers.map(({ address }) => address), pageserver: pageserver.address,
    pgVersion: major, dataDirectory: join(base, `${name}-compute`), pgPort: 0, httpPort: 0, mode: "primary", settings: { shared_buffers: "16MB" }, shutdownTimeoutMs: 5_000,
  };
  const statuses = (): Promise<string[]> => Promise.all(safekeepers.map(async ({ address }) => {
    const client = await connectSafekeeper(platform, address, config);
    const status = await timelineStatus(client);
    client.destroy();
    return `${status?.flushLsn}/${status?.commitLsn}`;
  }));
  return { pageserver, safekeepers, config, statuses };
}

async function start(config: ComputeConfig): Promise<{ compute: Compute; sql: postgres.Sql }> {
  const compute = await startCompute(config, { platform, log });
  const sql = postgres({ host: "127.0.0.1", port: compute.pgPort, user: "cloud_admin", database: "postgres", max: 4, onnotice: () => {} });
  cleanups.push(() => compute.kill(), () => sql.end({ timeout: 1 }));
  return { compute, sql };
}

/** Waits until all have the same WAL. */
async function inStep(statuses: () => Promise<string[]>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (new Set((await statuses()).map((position) => position.split("/")[0])).size === 1) return;
    await Bun.sleep(50);
  }
  throw new Error(`the safekeepers never meet: ${(await statuses()).join(", ")}`);
}

describe.each([14, 17] as const)("PostgreSQL %d on three safekeepers", (major) => {
  test("commits, stops, is settled at once, starts again at exactly that place", async () => {
    const { pageserver, config, statuses } = await cluster(major, `plain${major}`);
    const first = await start(config);
    await first.sql`create table t as select generate_series(1, 20000) as id, repeat('x', 100) as v`;
    await inStep(statuses);
    await first.compute.stop();
    const directory = join(config.dataDirectory, "pgdata");
    const end = await endOfLog(directory);
    expect(await statuses()).toEqual([1, 2, 3].map(() => `${end}/${end}`));
    pageserver.directory = directory;
    pageserver.lsn = end;
    const second = await start({ ...config, dataDirectory: `${config.dataDirectory}-2` });
    expect(second.compute.startLsn).toBe(end);
    expect((await second.sql`select count(*)::int as n from t`)[0].n).toBe(20000);
  }, 150_000);
});

describe("safekeepers come and go", () => {
  test("kill -9 of one under load: no commit is refused, it catches up afterwards; SIGTERM of all: commits wait and go on", async () => {
    const { safekeepers, config, statuses } = await cluster(17, "kill");
    const { sql, compute } = await start(config);
    await sql`create table t (id int primary key, v text)`;
    let next = 0;
    const insert = async (until: number): Promise<void> => {
      while (performance.now() < until) await sql`insert into t values (${next++}, repeat('y', 500))`;
    };
    const load = Promise.all([1, 2, 3].map(() => insert(performance.now() + 1500)));
    await Bun.sleep(300);
    await safekeepers[2].kill();
    await load;
    const acknowledged = next;
    expect((await sql`select count(*)::int as n from t`)[0].n).toBe(acknowledged);
    await safekeepers[2].start();
    await Promise.all(safekeepers.map((safekeeper) => safekeeper.kill("SIGTERM")));
    let done = false;
    const waiting = sql`insert into t values (-1, '')`.then(() => (done = true));
    await Bun.sleep(300);
    expect(done).toBe(false);
    await Promise.all(safekeepers.map((safekeeper) => safekeeper.start()));
    await waiting;
    await inStep(statuses);
    await compute.stop();
    expect(new Set(await statuses()).size).toBe(1);
  }, 150_000);

  test("one that was away for two computes gets the first one's WAL from a donor and the second one's from its segment files", async () => {
    const { pageserver, safekeepers, config, statuses } = await cluster(17, "away");
    const first = await start(config);
    await first.sql`create table t (id int, v text)`;
    await safekeepers[2].kill();
    await first.sql`insert into t select g, repeat('a', 200) from generate_series(1, 5000) g`;
    await first.compute.stop();
    pageserver.directory = join(config.dataDirectory, "pgdata");
    pageserver.lsn = await endOfLog(pageserver.directory);
    const second = await start({ ...config, dataDirectory: `${config.dataDirectory}-2` });
    // More than the proposer keeps in memory.
    for (let part = 0; part < 6; part++) await second.sql`insert into t select g, repeat('b', 200) from generate_series(1, 30000) g`;
    await safekeepers[2].start();
    await inStep(statuses);
    await second.sql`checkpoint`;
    await second.compute.stop();
    expect(new Set(await statuses()).size).toBe(1);
  }, 150_000);

  test("one that was away for more WAL than the server keeps for it gets that from the others", async () => {
    const { safekeepers, config, statuses } = await cluster(17, "bounded");
    const { sql, compute } = await start({ ...config, settings: { ...config.settings, max_slot_wal_keep_size: "16MB", max_wal_size: "48MB", min_wal_size: "32MB" } });
    await sql`create table t (id int, v text)`;
    await safekeepers[2].kill();
    // More than the proposer keeps in memory, and several times what the slot may hold.
    for (let part = 0; part < 12; part++) {
      await sql`insert into t select g, repeat('c', 200) from generate_series(1, 30000) g`;
      await sql`checkpoint`;
    }
    const [slot] = await sql`select wal_status, restart_lsn from pg_replication_slots where slot_name = 'strata_proposer'`;
    expect(slot.wal_status).toBe("lost");
    await safekeepers[2].start();
    await inStep(statuses);
    await sql`insert into t values (0, 'goes on')`;
    expect((await sql`select count(*)::int as n from t`)[0].n).toBe(360_001);
    await compute.stop();
    expect(new Set(await statuses()).size).toBe(1);
  }, 120_000);

  test("an unacknowledged tail on one: settled to what a majority can have, and all safekeepers end alike", async () => {
    const { safekeepers, config, statuses } = await cluster(17, "tail");
    const { sql, compute } = await start(config);
    await sql`create table t (id int)`;
    await inStep(statuses);
    await safekeepers[1].kill();
    await safekeepers[2].kill();
    void sql`insert into t select generate_series(1, 5000)`.catch(() => {});
    await Bun.sleep(400);
    await compute.kill();
    await Promise.all([safekeepers[1].start(), safekeepers[2].start()]);
    const before = await statuses();
    expect(new Set(before).size).toBeGreaterThan(1);
    const identity = { tenantId: config.tenantId, timelineId: config.timelineId, systemId: 0n, pgVersion: 170000, walSegmentSizeBytes: 16 * 1024 * 1024 };
    const lsn = await settleLog({ identity, safekeepers: config.safekeepers, platform, log });
    expect(await statuses()).toEqual([1, 2, 3].map(() => `${lsn}/${lsn}`));
    expect(await settleLog({ identity, safekeepers: config.safekeepers, platform, log })).toBe(lsn);
  }, 150_000);
});
