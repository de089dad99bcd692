/** SQL that makes records of most kinds: what storage must keep up with. */
import type { StockMajor, StockPostgres } from "./stock-postgres.ts";

/** The server needs max_prepared_transactions of 1 or more; a prepared transaction is left behind. */
export async function mixedWorkload(server: StockPostgres, major: StockMajor): Promise<void> {
  const sql = server.sql();
  const connection = await sql.reserve();
  const other = await sql.reserve();
  const run = (text: string) => connection.unsafe(text);
  await run(`create table t (id serial primary key, a int, b text); create index on t (b); create index on t using hash (a);
    insert into t (a, b) select i, repeat(md5(i::text), 8) from generate_series(1, 2000) i;
    create unlogged table u (x int); insert into u select generate_series(1, 100);
    create table gone (x int); insert into gone select generate_series(1, 1000);`);
  await run("vacuum (freeze, analyze) t");
  await run("update t set a = a + 1 where id % 3 = 0; delete from t where id > 1500");
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
  await run("create table cut as select generate_series(1, 8000) x");
  await run("vacuum cut");
  await run("delete from cut where x > 100");
  await run("vacuum cut");
  await run("truncate u");
  await run("vacuum full t");
  await run(`create table many (id int, words text[], area box, tag text, stamp timestamp);
    create index on many using gin (words); create index on many using gist (area); create index on many using spgist (tag);
    create index on many using brin (stamp); create index on many using hash (id)`);
  for (let round = 0; round < 3; round++) {
    await run(`insert into many select i, array['w' || i % 97, 'v' || i % 13], box(point(i, i), point(i + 5, i + 7)), 'tag' || md5(i::text), now() + i * interval '1 min'
      from generate_series(${round * 800}, ${round * 800 + 799}) i`);
    await run(`delete from many where id % 4 = ${round}`);
    await run("vacuum many");
  }
  await run("create sequence s; select nextval('s') from generate_series(1, 100)");
  await run("alter table cut set unlogged; alter table cut set logged");
  connection.release();
}
