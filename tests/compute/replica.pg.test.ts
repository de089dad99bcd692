/** A stock standby that follows safekeepers, in a whole cluster of processes. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import postgres from "postgres";
import type { Compute } from "../../src/compute/compute-context.ts";
import { startCompute } from "../../src/compute/compute.ts";
import type { ComputeConfig } from "../../src/compute/config.ts";
import { parseLsn } from "../../src/kit/lsn.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { TestCluster } from "../support/dev-cluster.ts";

const platform = realPlatform();
const HOST = "127.0.0.1";

/** Until the replica has replayed what the primary has written. */
async function caughtUp(primary: postgres.Sql, replica: postgres.Sql): Promise<void> {
  const [{ lsn }] = await primary`select pg_current_wal_flush_lsn()::text as lsn`;
  for (let tries = 0; tries < 600; tries++) {
    const [{ replayed }] = await replica`select pg_last_wal_replay_lsn()::text as replayed`;
    if (parseLsn(replayed as string) >= parseLsn(lsn as string)) return;
    await Bun.sleep(50);
  }
  throw new Error("the replica does not catch up");
}

interface Replica {
  readonly compute: Compute;
  readonly sql: postgres.Sql;
}

interface Fixture {
  readonly primary: postgres.Sql;
  readonly cluster: TestCluster;
  readonly startReplica: (name: string, settings?: Readonly<Record<string, string>>) => Promise<Replica>;
}

async function opensAtCommit(f: Fixture): Promise<void> {
  const { primary, startReplica } = f;
  await primary`create table t (id int primary key, v text)`;
  await primary`insert into t select g, repeat('x', 100) from generate_series(1, 5000) g`;
  const open = await primary.reserve();
  await open`begin`;
  await open`insert into t values (100001, 'open at the start')`;
  await open`savepoint s`;
  await open`insert into t values (100002, 'in a subtransaction')`;
  // So that the commit position lies behind the open transaction's records.
  await primary`insert into t values (5001, 'committed')`;
  const { compute, sql } = await startReplica("plain");
  expect((await sql`select pg_is_in_recovery() as standby`)[0].standby).toBe(true);
  expect((await sql`select count(*)::int as n from t`)[0].n).toBe(5001);
  expect(compute.postgresLog().join("\n")).not.toMatch(/PANIC|FATAL|invalid|incorrect/);

  await open`commit`;
  open.release();
  await primary`update t set v = 'changed' where id <= 10`;
  await caughtUp(primary, sql);
  expect((await sql`select v from t where id > 100000 order by id`).map(({ v }) => v)).toEqual(["open at the start", "in a subtransaction"]);
  expect((await sql`select count(*)::int as n from t where v = 'changed'`)[0].n).toBe(10);
  await expect(sql`insert into t values (0)`.execute()).rejects.toThrow(/read-only/);
}

async function startsBehindCheckpoint(f: Fixture): Promise<void> {
  const { primary, startReplica } = f;
  await primary`create table u as select g as id, repeat('y', 300) as v from generate_series(1, 20000) g`;
  await primary`checkpoint`;
  await primary`delete from u where id > 100`;
  await primary`vacuum u`;
  await primary`create index on u (id)`;
  const { compute, sql } = await startReplica("online");
  expect((await sql`select count(*)::int as n, sum(id)::int as total from u`)[0]).toEqual({ n: 100, total: 5050 });
  expect((await sql`select pg_relation_size('u')::int as size`)[0].size).toBe((await primary`select pg_relation_size('u')::int as size`)[0].size as number);
  const redo = /redo starts at ([0-9A-F/]+)/.exec(compute.postgresLog().join("\n"))?.[1] ?? "";
  const [{ checkpoint }] = await primary`select redo_lsn::text as checkpoint from pg_control_checkpoint()`;
  expect(redo).toBe(checkpoint as string);
  await primary`insert into u values (-1, 'later')`;
  await caughtUp(primary, sql);
  expect((await sql`select v from u where id = -1`)[0].v).toBe("later");
}

async function changesDonor(f: Fixture): Promise<void> {
  const { primary, cluster, startReplica } = f;
  await primary`create table w (id int)`;
  const { compute, sql } = await startReplica("donors");
  const donorPort = async (): Promise<number> => {
    for (let tries = 0; tries < 200; tries++) {
      const [row] = await sql`select sender_port as port from pg_stat_wal_receiver where status = 'streaming'`;
      if (row !== undefined) return row.port as number;
      await Bun.sleep(50);
    }
    throw new Error("the replica is connected to nobody");
  };
  const first = await donorPort();
  const index = cluster.cluster.ports.safekeepers.findIndex(({ pg }) => pg === first);
  expect(index).toBeGreaterThanOrEqual(0);
  await cluster.kill(cluster.safekeepers[index]);
  await primary`insert into w select generate_series(1, 1000)`;
  await caughtUp(primary, sql);
  expect(await donorPort()).not.toBe(first);
  expect((await sql`select count(*)::int as n from w`)[0].n).toBe(1000);
  expect(compute.postgresLog().join("\n")).not.toMatch(/PANIC|FATAL:(?!  could not)/);
  cluster.safekeepers[index].start();
  await cluster.safekeepers[index].waitReady(60_000);

  const second = await donorPort();
  const hung = cluster.safekeepers[cluster.cluster.ports.safekeepers.findIndex(({ pg }) => pg === second)].pid ?? 0;
  expect(hung).toBeGreaterThan(1);
  process.kill(hung, "SIGSTOP");
  try {
    await primary`insert into w select generate_series(1, 500)`;
    await caughtUp(primary, sql);
    expect((await sql`select count(*)::int as n from w`)[0].n).toBe(1500);
  } finally {
    process.kill(hung, "SIGCONT");
  }
}

/** What is open at the commit position in ways that a standby has to be told of. */
interface OpenTransactions {
  commit(): Promise<void>;
}

async function openTransactions({ primary }: Fixture, table: string): Promise<OpenTransactions> {
  await primary.unsafe(`create table ${table} (id int primary key, v text); insert into ${table} values (1, 'locked'), (2, 'locked and updated')`);
  const prepared = await primary.reserve();
  await prepared.unsafe(`begin; insert into ${table} values (10, 'prepared'); savepoint a; insert into ${table} values (11, 'prepared, in a subtransaction'); prepare transaction '${table}'`);
  prepared.release();
  const [nested, one, two] = await Promise.all([primary.reserve(), primary.reserve(), primary.reserve()]);
  await nested`begin`;
  // More than the 64 that a backend tells of: others are found only through pg_subtrans.
  for (let id = 100; id < 200; id++) await nested.unsafe(`savepoint s${id}; insert into ${table} values (${id}, 'nested')`);
  await one.unsafe(`begin; select * from ${table} for key share`);
  await two.unsafe(`begin; select * from ${table} where id = 1 for key share; update ${table} set v = 'updated beside a lock' where id = 2`);
  // So that the commit position lies behind all of it.
  await primary.unsafe(`insert into ${table} values (3, 'committed')`);
  return {
    commit: async () => {
      for (const session of [nested, one, two]) {
        await session`commit`;
        session.release();
      }
      await primary.unsafe(`commit prepared '${table}'`);
    },
  };
}

async function seesWhatWasOpen({ primary }: Fixture, sql: postgres.Sql, table: string): Promise<void> {
  const summary = `select count(*)::int as n, count(*) filter (where v = 'nested')::int as nested, string_agg(v, ',' order by id) filter (where id < 20) as others from ${table}`;
  expect((await sql.unsafe(summary))[0]).toEqual((await primary.unsafe(summary))[0]);
  expect((await sql.unsafe(summary))[0]).toMatchObject({ n: 105, nested: 100, others: "locked,updated beside a lock,committed,prepared,prepared, in a subtransaction" });
}

async function opensWithPrepared(f: Fixture): Promise<void> {
  const open = await openTransactions(f, "open_after");
  const { sql, compute } = await f.startReplica("open-after");
  expect((await sql`select id from open_after order by id`).map(({ id }) => id)).toEqual([1, 2, 3]);
  expect((await sql`select v from open_after where id = 2`)[0].v).toBe("locked and updated");
  await open.commit();
  await caughtUp(f.primary, sql);
  await seesWhatWasOpen(f, sql, "open_after");
  expect(compute.postgresLog().join("\n")).not.toMatch(/PANIC|FATAL|invalid|incorrect/);
}

/** Its replay begins behind all of it: subtransactions that it was not told of keep it closed until they have ended. */
async function waitsForOverflowed(f: Fixture): Promise<void> {
  const open = await openTransactions(f, "open_before");
  await f.primary`checkpoint`;
  await f.primary`insert into open_before values (4, 'committed')`;
  const starting = f.startReplica("open-before");
  const early = await Promise.race([starting.then(() => "opened"), Bun.sleep(4_000).then(() => "closed")]);
  expect(early).toBe("closed");
  await open.commit();
  await f.primary`delete from open_before where id = 4`;
  // Tells standbys what runs now; the background writer does so every 15 seconds.
  await f.primary`checkpoint`;
  const { sql, compute } = await starting;
  await caughtUp(f.primary, sql);
  await seesWhatWasOpen(f, sql, "open_before");
  expect(compute.postgresLog().join("\n")).not.toMatch(/PANIC|FATAL:(?!  the database system is)|invalid|incorrect/);
}

async function holdsBackVacuum(f: Fixture): Promise<void> {
  const { primary } = f;
  await primary`create table h as select g as id, repeat('h', 500) as v from generate_series(1, 2000) g`;
  // Without feedback a conflict would end the reader at once.
  const { compute, sql } = await f.startReplica("feedback", { hot_standby_feedback: "on", wal_receiver_status_interval: "1s", max_standby_streaming_delay: "0" });
  await sql.begin("isolation level repeatable read", async (reader) => {
    expect((await reader`select count(*)::int as n from h`)[0].n).toBe(2000);
    await xminOf(primary, (xmin) => xmin !== null);
    await primary`delete from h`;
    // Empty pages at the end, cut off under a lock, would be a conflict of another kind.
    await primary`vacuum (truncate off) h`;
    await primary`insert into h values (0, 'later')`;
    await Bun.sleep(1_500);
    expect((await reader`select count(*)::int as n, min(length(v))::int as least from h`)[0]).toEqual({ n: 2000, least: 500 });
  });
  await primary`delete from h`;
  let size = 1;
  for (let tries = 0; size > 0 && tries < 100; tries++) {
    await primary`vacuum h`;
    size = (await primary`select pg_relation_size('h')::int as size`)[0].size as number;
    if (size > 0) await Bun.sleep(200);
  }
  expect(size).toBe(0);
  // A standby that is gone needs nothing any more.
  await sql.end({ timeout: 1 });
  await compute.stop();
  await xminOf(primary, (xmin) => xmin === null);
}

/** Waits for what the primary holds back for standbys to be so. */
async function xminOf(primary: postgres.Sql, right: (xmin: string | null) => boolean): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    const [{ xmin }] = await primary`select backend_xmin::text as xmin from pg_stat_replication where application_name = 'strata_proposer'`;
    if (right(xmin as string | null)) return;
    await Bun.sleep(100);
  }
  throw new Error("the primary does not hear what its standby needs");
}

describe.each([17, 15] as const)("a replica of PostgreSQL %d", (pgVersion) => {
  let cluster: TestCluster;
  let primary: postgres.Sql;
  const log = new RecordingLogger();
  const replicas: Replica[] = [];

  beforeAll(async () => {
    cluster = await TestCluster.start({ pgVersion, settings: { max_connections: "120", max_prepared_transactions: "5" } });
    primary = postgres({ host: HOST, port: cluster.pgPort, user: "postgres", database: "postgres", max: 6, onnotice: () => {} });
  }, 180_000);
  afterEach(async () => {
    for (const { compute, sql } of replicas.splice(0)) {
      await sql.end({ timeout: 1 });
      await compute.stop();
    }
  }, 60_000);
  afterAll(async () => {
    await primary?.end({ timeout: 1 });
    await cluster?.destroy();
    log.assertQuiet();
  }, 60_000);

  async function startReplica(name: string, settings: Readonly<Record<string, string>> = {}): Promise<Replica> {
    const { ports, tenantId, branches, pgBinDir } = cluster.cluster;
    const config: ComputeConfig = {
      tenantId, timelineId: branches[0].timelineId, safekeepers: ports.safekeepers.map(({ pg }) => ({ host: HOST, port: pg })), pageserver: { host: HOST, port: ports.pageserver.pg },
      pgVersion, dataDirectory: join(cluster.directory, name), pgPort: 0, httpPort: 0, mode: "replica", superuser: "postgres", settings: { shared_buffers: "16MB", ...settings },
      ...(pgBinDir === null ? {} : { pgBinDirectory: pgBinDir }),
    };
    const compute = await startCompute(config, { platform, log });
    const replica = { compute, sql: postgres({ host: HOST, port: compute.pgPort, user: "postgres", database: "postgres", max: 1, onnotice: () => {} }) };
    replicas.push(replica);
    return replica;
  }

  const fixture = (): Fixture => ({ primary, cluster, startReplica });

  test("opens at the commit position, sees what comes later, and what was open when it started", () => opensAtCommit(fixture()), 120_000);

  test("starts behind an online checkpoint, with a relation truncated and an index built since", () => startsBehindCheckpoint(fixture()), 120_000);

  test("knows prepared, nested and locking transactions that were open when it started", () => opensWithPrepared(fixture()), 120_000);

  test("stays closed while subtransactions are open that its checkpoint does not tell of", () => waitsForOverflowed(fixture()), 120_000);

  test("what it reads is not vacuumed away on the primary, until it is done or gone", () => holdsBackVacuum(fixture()), 120_000);

  test("goes on when its donor dies, and when the next one hangs", () => changesDonor(fixture()), 120_000);

  test("ends when somebody promotes it", async () => {
    if (pgVersion !== 17) return;
    const { compute, sql } = await startReplica("promoted");
    log.expectWarn("replica ends");
    // The answer may be lost with the server.
    await sql`select pg_promote(false)`.catch(() => undefined);
    expect((await compute.ended)?.code).toBe("promoted");
  }, 120_000);
});

