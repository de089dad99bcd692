/** A cluster whose pageserver receives interpreted WAL: what a compute wrote is there for the next one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import postgres from "postgres";
import { TestCluster } from "../../support/dev-cluster.ts";

let cluster: TestCluster;
beforeAll(async () => {
  const pageserverConfig = `wal_receiver_protocol = { type = "interpreted", args = { format = "protobuf", compression = { zstd = { level = 1 } } } }`;
  cluster = await TestCluster.start({ pgVersion: 17, pageserverConfig });
}, 180_000);
afterAll(async () => await cluster?.destroy(), 60_000);

const connect = (): postgres.Sql => postgres({ host: "127.0.0.1", port: cluster.pgPort, user: "postgres", database: "postgres", max: 1, onnotice: () => {} });

test("tables, dropped and truncated ones, subtransactions and databases survive the compute", async () => {
  const sql = connect();
  await sql`create table t as select g as id, repeat(md5(g::text), 4) as v from generate_series(1, 20000) g`;
  await sql`create index on t (id)`;
  await sql`update t set v = 'changed' where id % 7 = 0`;
  await sql`create table gone as select * from t`;
  await sql`drop table gone`;
  await sql`create table cut as select * from t`;
  await sql`truncate cut`;
  await sql`do $$ begin for i in 1..50 loop begin insert into cut values (i, 'sub'); exception when others then null; end; end loop; end $$`;
  await sql`create database other`;
  await sql`vacuum t`;
  const [before] = await sql`select count(*)::int as n, md5(string_agg(id || v, ',' order by id)) as sum from t`;
  const reply = await fetch(`http://127.0.0.1:${cluster.cluster.ports.safekeepers[0].http}/v1/tenant/${cluster.cluster.tenantId}/timeline/${cluster.cluster.branches[0].timelineId}`);
  expect(reply.ok).toBe(true);
  await sql.end({ timeout: 1 });
  await cluster.kill(cluster.compute);
  await cluster.startCompute();
  const again = connect();
  expect((await again`select count(*)::int as n, md5(string_agg(id || v, ',' order by id)) as sum from t`)[0]).toEqual(before);
  expect((await again`select count(*)::int as n from cut`)[0].n).toBe(50);
  expect((await again`select count(*)::int as n from pg_database where datname = 'other'`)[0].n).toBe(1);
  expect((await again`select to_regclass('gone') as gone`)[0].gone).toBeNull();
  await again.end({ timeout: 1 });
}, 120_000);
