/**
 * A mixed workload on an endpoint: every index manager, vacuum and freeze, multixacts, subtransactions, two-phase commit,
 * databases made both ways, tablespaces, drops, truncations, sequences, large rows, unlogged and temporary tables.
 */
import postgres from "postgres";

export interface WorkloadTarget {
  readonly port: number;
  readonly major: number;
  /** Called half-way, with everything before it committed. */
  readonly halfWay: () => Promise<void>;
}

export const WORKLOAD_SETTINGS: Readonly<Record<string, string>> = {
  max_prepared_transactions: "20",
  track_commit_timestamp: "on",
  autovacuum_naptime: "1s",
  // Small, so that pages are written and read again, and checkpoints and evictions happen.
  shared_buffers: "4MB",
};

export function connect(port: number, database = "postgres", connections = 1): postgres.Sql {
  return postgres({ host: "127.0.0.1", port, username: "postgres", database, max: connections, onnotice: () => undefined, idle_timeout: 5 });
}

/** Runs statements one by one in one session, each its own transaction. */
async function run(sql: postgres.Sql, statements: readonly string[]): Promise<void> {
  const session = await sql.reserve();
  try {
    for (const statement of statements) await session.unsafe(statement);
  } finally {
    session.release();
  }
}

const TABLES = [
  "CREATE TABLE plain (id int PRIMARY KEY, a int, b text, c point, d int[], e tsvector, f int4range)",
  `INSERT INTO plain SELECT i, i % 97, md5(i::text), point(i % 100, i / 100), ARRAY[i % 7, i % 11, i % 13], to_tsvector('simple', md5(i::text) || ' word' || i % 50), int4range(i, i + i % 20 + 1)
   FROM generate_series(1, 20000) i`,
  "CREATE INDEX plain_btree ON plain (a, b)",
  "CREATE INDEX plain_hash ON plain USING hash (b)",
  "CREATE INDEX plain_gin ON plain USING gin (d)",
  "CREATE INDEX plain_gin_text ON plain USING gin (e) WITH (fastupdate = on)",
  "CREATE INDEX plain_gist ON plain USING gist (c)",
  "CREATE INDEX plain_gist_range ON plain USING gist (f)",
  "CREATE INDEX plain_spgist ON plain USING spgist (c)",
  "CREATE INDEX plain_spgist_text ON plain USING spgist (b)",
  "CREATE INDEX plain_brin ON plain USING brin (id) WITH (pages_per_range = 4)",
  "CREATE TABLE wide (id serial PRIMARY KEY, body text)",
  "ALTER TABLE wide ALTER body SET STORAGE EXTERNAL",
  "INSERT INTO wide (body) SELECT repeat(md5(i::text), 600) FROM generate_series(1, 150) i",
  "INSERT INTO wide (body) SELECT string_agg(md5((i * k)::text), '') FROM generate_series(1, 40) i, generate_series(1, 300) k GROUP BY i",
  "CREATE UNLOGGED TABLE forgotten (id int PRIMARY KEY, b text)",
  "INSERT INTO forgotten SELECT i, md5(i::text) FROM generate_series(1, 3000) i",
  "CREATE TABLE lead AS SELECT i AS id, 'x' || i AS t FROM generate_series(1, 5000) i",
  "CREATE SEQUENCE counter CACHE 5",
  "CREATE MATERIALIZED VIEW summary AS SELECT a, count(*) FROM plain GROUP BY a",
  "CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id)",
  "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000)",
  "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (3000)",
  "INSERT INTO parted SELECT i, md5(i::text) FROM generate_series(0, 2999) i",
];

const CHANGES = [
  "UPDATE plain SET a = a + 1 WHERE id % 3 = 0",
  "DELETE FROM plain WHERE id % 5 = 0",
  "VACUUM plain",
  "INSERT INTO plain SELECT i, i % 97, md5(i::text), point(i % 100, i / 100), ARRAY[i % 7], to_tsvector('simple', 'late' || i), int4range(i, i + 3) FROM generate_series(20001, 24000) i",
  "UPDATE plain SET b = b || 'x', c = point(c[1], c[0]), d = d || 3 WHERE id % 7 = 0",
  "DELETE FROM plain WHERE id BETWEEN 9000 AND 12000",
  "VACUUM (FREEZE, ANALYZE) plain",
  "UPDATE plain SET a = 0 WHERE id < 200",
  "DELETE FROM wide WHERE id % 2 = 0",
  "VACUUM wide",
  "UPDATE wide SET body = body || 'tail' WHERE id % 3 = 0",
  "DELETE FROM lead WHERE id > 500",
  "VACUUM lead",
  "CLUSTER plain USING plain_btree",
  "REINDEX TABLE parted",
  "REFRESH MATERIALIZED VIEW summary",
  "ALTER TABLE parted ADD COLUMN extra int DEFAULT 7",
  "ALTER TABLE lead ALTER COLUMN id TYPE bigint",
  "TRUNCATE parted_2",
  "INSERT INTO parted SELECT i, md5(i::text) FROM generate_series(1500, 1700) i",
  "SELECT nextval('counter') FROM generate_series(1, 100)",
  "SELECT setval('counter', 5000)",
  "SELECT nextval('counter') FROM generate_series(1, 7)",
  "CREATE TABLE doomed AS SELECT * FROM plain LIMIT 1000",
  "DROP TABLE doomed",
  "CREATE TEMP TABLE passing AS SELECT * FROM plain LIMIT 100",
  "DROP TABLE passing",
  "SELECT brin_summarize_new_values('plain_brin')",
  "SELECT gin_clean_pending_list('plain_gin_text')",
  "SELECT lo_from_bytea(0, decode(repeat('ab', 20000), 'hex'))",
  "VACUUM FULL lead",
  "VACUUM (FREEZE)",
  "CHECKPOINT",
];

async function subtransactions(sql: postgres.Sql): Promise<void> {
  const savepoints = Array.from({ length: 90 }, (_, i) => `SAVEPOINT s${i}; INSERT INTO nested VALUES (${i}); ${i % 3 === 0 ? `ROLLBACK TO s${i};` : ""}`).join("\n");
  await run(sql, ["CREATE TABLE nested (id int)", `BEGIN; ${savepoints} COMMIT`, "BEGIN; SAVEPOINT a; INSERT INTO nested VALUES (-1); ROLLBACK"]);
}

/** Two sessions lock the same rows: multixacts with several members, updates of locked rows among them. */
async function multixacts(port: number): Promise<void> {
  const [first, second] = [connect(port), connect(port)];
  await run(first, ["CREATE TABLE shared_rows (id int PRIMARY KEY, v int)", "INSERT INTO shared_rows SELECT i, 0 FROM generate_series(1, 500) i"]);
  for (let round = 0; round < 20; round++) {
    await first.unsafe("BEGIN");
    await second.unsafe("BEGIN");
    await first.unsafe(`SELECT * FROM shared_rows WHERE id % 20 = ${round} FOR SHARE`);
    await second.unsafe(`SELECT * FROM shared_rows WHERE id % 20 = ${round} FOR ${round % 2 === 0 ? "SHARE" : "KEY SHARE"}`);
    await second.unsafe("COMMIT");
    if (round % 4 !== 3) await first.unsafe(`UPDATE shared_rows SET v = v + 1 WHERE id % 20 = ${round}`);
    await first.unsafe(round % 5 === 4 ? "ROLLBACK" : "COMMIT");
  }
  await run(first, ["VACUUM FREEZE shared_rows", "BEGIN; SELECT * FROM shared_rows WHERE id = 1 FOR SHARE; COMMIT"]);
  await first.end();
  await second.end();
}

/** Prepared transactions: some committed, some rolled back, two left open. */
async function twoPhase(sql: postgres.Sql): Promise<void> {
  await run(sql, ["CREATE TABLE prepared_rows (id int)"]);
  for (let id = 0; id < 8; id++) await run(sql, [`BEGIN; INSERT INTO prepared_rows VALUES (${id}); SAVEPOINT s; INSERT INTO prepared_rows VALUES (${id + 100}); PREPARE TRANSACTION 'p${id}'`]);
  await run(sql, ["COMMIT PREPARED 'p0'", "COMMIT PREPARED 'p1'", "ROLLBACK PREPARED 'p2'", "CHECKPOINT", "COMMIT PREPARED 'p3'", "ROLLBACK PREPARED 'p4'", "COMMIT PREPARED 'p5'"]);
}

async function databases(sql: postgres.Sql, target: WorkloadTarget): Promise<void> {
  const both = target.major >= 15;
  await run(sql, [
    "CREATE DATABASE gone",
    `CREATE DATABASE copied TEMPLATE postgres${both ? " STRATEGY file_copy" : ""}`.replace("TEMPLATE postgres", "TEMPLATE template0"),
    ...(both ? ["CREATE DATABASE logged TEMPLATE template0 STRATEGY wal_log"] : []),
    "DROP DATABASE gone",
  ]);
  for (const name of ["copied", ...(both ? ["logged"] : [])]) {
    const other = connect(target.port, name);
    await run(other, ["CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 4000) i", "UPDATE t SET v = v || v WHERE id % 2 = 0", "VACUUM t"]);
    await other.end();
  }
}

/** Relations and a database in a tablespace, one that is empty, one that is gone. */
async function tablespaces(sql: postgres.Sql, target: WorkloadTarget): Promise<void> {
  await run(sql, [
    "SET allow_in_place_tablespaces = on",
    ...["used", "empty", "gone"].map((name) => `CREATE TABLESPACE space_${name} LOCATION ''`),
    "CREATE TABLE in_space (id int PRIMARY KEY USING INDEX TABLESPACE space_used, v text) TABLESPACE space_used",
    "INSERT INTO in_space SELECT i, md5(i::text) FROM generate_series(1, 3000) i",
    "CREATE TABLE brief (id int) TABLESPACE space_gone",
    "DROP TABLE brief",
    "DROP TABLESPACE space_gone",
    "ALTER TABLE parted_1 SET TABLESPACE space_used",
    "UPDATE in_space SET v = v || 'x' WHERE id % 3 = 0",
    "VACUUM in_space",
    `CREATE DATABASE spaced TEMPLATE template0 TABLESPACE space_used${target.major >= 15 ? " STRATEGY file_copy" : ""}`,
  ]);
  const other = connect(target.port, "spaced");
  await run(other, ["CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 1000) i"]);
  await other.end();
}

/** Concurrent small transactions, as an application makes them. */
async function clients(port: number): Promise<void> {
  const sql = connect(port, "postgres", 4);
  await sql.unsafe("CREATE TABLE accounts (id int PRIMARY KEY, balance int, filler char(80) DEFAULT '')");
  await sql.unsafe("INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 1000) i");
  const one = async (session: number): Promise<void> => {
    for (let n = 0; n < 150; n++) await sql.unsafe(`UPDATE accounts SET balance = balance + 1 WHERE id = ${((n * 7 + session * 331) % 1000) + 1}`);
  };
  await Promise.all([one(0), one(1), one(2), one(3)]);
  await sql.end();
}

export async function runWorkload(target: WorkloadTarget): Promise<void> {
  const sql = connect(target.port);
  await run(sql, TABLES);
  await subtransactions(sql);
  await multixacts(target.port);
  await target.halfWay();
  await run(sql, CHANGES);
  await twoPhase(sql);
  await databases(sql, target);
  await tablespaces(sql, target);
  await clients(target.port);
  await run(sql, ["DELETE FROM accounts WHERE id % 2 = 0", "VACUUM accounts"]);
  await sql.end();
}
