import { afterAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { compareDatadir } from "../../support/compare-datadir.ts";
import { copyOfDirectory, importStopped, ingestWal } from "../../support/ingest-wal.ts";
import { type StockMajor, StockPostgres } from "../../support/stock-postgres.ts";

const context = { task: "test" };
const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function workload(server: StockPostgres, major: StockMajor): Promise<void> {
  const sql = server.sql();
  const connection = await sql.reserve();
  const other = await sql.reserve();
  const run = (text: string) => connection.unsafe(text);
  await run(`create table t (id serial primary key, a int, b text); create index on t (b); create index on t using hash (a);
    insert into t (a, b) select i, repeat(md5(i::text), 8) from generate_series(1, 4000) i;
    create unlogged table u (x int); insert into u select generate_series(1, 100);
    create table gone (x int); insert into gone select generate_series(1, 1000);`);
  await run("vacuum (freeze, analyze) t");
  await run("update t set a = a + 1 where id % 3 = 0; delete from t where id > 3000");
  await run("vacuum t");
  await run("insert into t (a, b) select i, 'x' from generate_series(1, 300) i");
  await run("drop table gone");
  await run("begin; create table rolled (x int); insert into rolled values (1); rollback");
  await run("do $$ begin for i in 1..300 loop begin insert into t (a) values (i); exception when others then null; end; end loop; end $$");
  await run("begin; select * from t where id <= 50 for share");
  await other.unsafe("begin; select * from t where id <= 50 for share; commit");
  await run("commit");
  other.release();
  await run("create table prepared (x int)");
  await run("begin; insert into prepared values (1); prepare transaction 'kept'");
  await run("begin; insert into t (a) values (-2); prepare transaction 'ended'");
  await run("commit prepared 'ended'");
  await run("create database copied");
  if (major >= 15) await run("create database filecopied template template0 strategy file_copy");
  await run("create database dropped");
  await run("drop database dropped");
  await run("create table cut as select generate_series(1, 20000) x");
  await run("vacuum cut");
  await run("delete from cut where x > 100");
  await run("vacuum cut");
  await run("truncate u");
  await run("vacuum full t");
  connection.release();
}

for (const major of [14, 15, 16, 17] as const) {
  describe(`ingest of PostgreSQL ${major}`, () => {
    test("the directory after a mixed workload equals PostgreSQL's own", async () => {
      const conf = ["full_page_writes = off", "max_prepared_transactions = 5", "autovacuum = off", "wal_keep_size = 1GB"];
      const server = await StockPostgres.create({ major, conf });
      cleanups.push(() => server.remove());
      const initial = copyOfDirectory(server.dataDirectory);
      cleanups.push(() => rmSync(initial, { recursive: true, force: true }));
      const timeline = await importStopped(initial);
      const atImport = await compareDatadir(timeline.datadir.at(timeline.lsn, context), initial);
      expect(atImport.differences).toEqual([]);
      expect(atImport.pages).toBeGreaterThan(500);

      await server.start();
      await workload(server, major);
      await server.stop();
      const records = await ingestWal(timeline, server.dataDirectory);
      const reader = timeline.datadir.at(timeline.store.lastRecordLsn, context);
      const result = await compareDatadir(reader, server.dataDirectory);
      console.log(`PostgreSQL ${major}: ${records} records, ${result.pages} pages and ${result.slruPages} SLRU pages compared, ${result.differences.length} differences`);
      expect(result.differences).toEqual([]);
      expect(records).toBeGreaterThan(5000);
    }, 30_000);
  });
}
