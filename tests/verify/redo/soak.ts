/**
 * Random SQL from a seed, on several connections at once: tables of random shape with indexes of every kind, changed,
 * locked, vacuumed and rebuilt. What each session sends follows from the seed; how they interleave does not.
 */
import { Sessions } from "./corpus.ts";

export interface SoakRound {
  readonly socket: string;
  readonly major: number;
  readonly seed: number;
  /** performance.now() at which the sessions stop. */
  readonly untilMs: number;
}

const SESSIONS = 4;
const TABLES = 3;

/** A small generator of its own, so that a seed means the same everywhere (mulberry32). */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to `limit` − 1. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)];
  }
}

const INDEXES = [
  "btree (id)", "btree (k)", "btree (k, t)", "btree (t) WITH (deduplicate_items = off)", "hash (k)", "hash (t)", "gin (a)",
  "gin (a) WITH (fastupdate = off)", "gin (a) WITH (gin_pending_list_limit = 64)", "gist (p)", "gist (r)", "spgist (p)", "spgist (t)", "spgist (r)",
  "brin (id) WITH (pages_per_range = 2)", "brin (t) WITH (pages_per_range = 1)", "btree (k) WHERE id % 2 = 0", "btree (id) INCLUDE (t)",
] as const;

function createTables(dice: Dice): string[] {
  const statements: string[] = ["CREATE SCHEMA soak"];
  for (let table = 0; table < TABLES; table++) {
    const fill = dice.pick([10, 50, 70, 100]);
    statements.push(`CREATE TABLE soak.t${table} (id int, k int, t text, a int[], p point, r int4range) WITH (fillfactor = ${fill}, autovacuum_enabled = off)`);
    const wanted = new Set<string>();
    for (let i = 0; i < 4; i++) wanted.add(dice.pick(INDEXES));
    for (const index of wanted) statements.push(`CREATE INDEX ON soak.t${table} USING ${index}`);
    if (dice.below(2) === 0) statements.push(`ALTER TABLE soak.t${table} REPLICA IDENTITY FULL`);
  }
  statements.push("CREATE TABLE soak.u (k int PRIMARY KEY, n int, t text) WITH (fillfactor = 80)", "CREATE SEQUENCE soak.s");
  return statements;
}

function rows(dice: Dice): string {
  const width = dice.pick([3, 20, 90, 500]);
  const text = dice.pick([`repeat('x', i % ${width})`, `left(md5(i::text) || repeat('y', ${width}), ${width})`, "NULL", "md5((i % 20)::text)"]);
  const spread = dice.pick([5, 300, 100000]);
  const from = dice.below(3000);
  const count = dice.pick([1, 3, 30, 200, 600]);
  const keys = `i, i % ${spread}, ${text}, ARRAY[i % 5, i % ${spread}]`;
  return `SELECT ${keys}, point(i % ${spread}, i % 71), int4range(i % 300, i % 300 + i % 17) FROM generate_series(${from}, ${from + count}) i`;
}

function where(dice: Dice): string {
  const modulus = dice.pick([2, 5, 17, 100]);
  const from = dice.below(3000);
  return dice.pick([
    `id % ${modulus} = ${dice.below(modulus)}`, `id BETWEEN ${from} AND ${from + dice.below(200)}`, `k = ${dice.below(300)}`,
    `p <@ box(point(0, 0), point(${dice.below(60)}, 30))`, `a @> ARRAY[${dice.below(5)}]`, `r && int4range(${dice.below(300)}, 310)`, `t = md5('${dice.below(20)}')`,
  ]);
}

function change(dice: Dice, table: string): string {
  return dice.pick([
    () => `INSERT INTO ${table} ${rows(dice)}`,
    () => `INSERT INTO ${table} ${rows(dice)}`,
    () => `UPDATE ${table} SET k = k + 1 WHERE ${where(dice)}`,
    () => `UPDATE ${table} SET t = t || 'z' WHERE ${where(dice)}`,
    () => `UPDATE ${table} SET a = a || ${dice.below(50)}, p = point(p[1], p[0]) WHERE ${where(dice)}`,
    () => `DELETE FROM ${table} WHERE ${where(dice)}`,
    () => `SELECT count(*) FROM (SELECT id FROM ${table} WHERE ${where(dice)} LIMIT 50 FOR ${dice.pick(["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])} SKIP LOCKED) l`,
    () => `INSERT INTO soak.u SELECT i, 1, repeat('u', i % 40) FROM generate_series(1, ${1 + dice.below(12)}) i ON CONFLICT (k) DO UPDATE SET n = soak.u.n + 1`,
    () => `INSERT INTO soak.u VALUES (${dice.below(200)}, 0, 'n') ON CONFLICT DO NOTHING`,
    () => `DELETE FROM soak.u WHERE k % 7 = ${dice.below(7)}`,
    () => `SELECT count(t) FROM ${table} WHERE ${where(dice)}`,
    () => `SELECT nextval('soak.s') FROM generate_series(1, ${1 + dice.below(60)})`,
    () => `COPY ${table} (id, k) FROM PROGRAM 'seq -f "%g\t${dice.below(9)}" 1 ${1 + dice.below(300)}'`,
  ])();
}

function maintenance(dice: Dice, table: string): string {
  return dice.pick([
    `VACUUM ${table}`, `VACUUM ${table}`, `VACUUM ${table}`, `VACUUM (FREEZE) ${table}`, "VACUUM soak.u", `VACUUM (INDEX_CLEANUP off) ${table}`,
    "CHECKPOINT", `ANALYZE ${table}`, `REINDEX TABLE ${table}`, `VACUUM FULL ${table}`, `TRUNCATE ${table}`, `DELETE FROM ${table}`,
    `CREATE INDEX ON ${table} USING ${dice.pick(INDEXES)}`,
  ]);
}

/**
 * For the check, hash cleanup logs images of bucket pages it has only pinned. One that another session changes meanwhile
 * makes the record's checksum wrong, and PostgreSQL could not recover from that log either. So while sessions run side by
 * side hash records come without check images; their pages are compared with the server's files afterwards.
 */
const ALL_BUT_HASH = "heap,heap2,btree,gin,gist,sequence,spgist,brin,generic";

/** A relation of the round, as it lies in the data directory after a checkpoint. */
export interface RelationFile {
  /** `base/DATABASE/RELATION`. */
  readonly path: string;
  readonly accessMethod: string;
}

async function runSession(sessions: Sessions, name: string, round: SoakRound): Promise<void> {
  const dice = new Dice(round.seed * 1009 + name.charCodeAt(0));
  const preamble = [`SET wal_consistency_checking = '${ALL_BUT_HASH}'`, "SET deadlock_timeout = '20ms'", "SET lock_timeout = '500ms'", `SET enable_seqscan = ${dice.pick(["on", "off"])}`, `SET enable_bitmapscan = ${dice.pick(["on", "off"])}`];
  for (const statement of preamble) await sessions.run(name, statement);
  let inTransaction = false;
  while (performance.now() < round.untilMs) {
    const table = `soak.t${dice.below(TABLES)}`;
    const roll = dice.below(100);
    let statement = change(dice, table);
    if (inTransaction && roll < 25) statement = dice.pick(["COMMIT", "COMMIT", "ROLLBACK"]);
    else if (inTransaction && roll < 35) statement = dice.pick(["SAVEPOINT s", "ROLLBACK TO s"]);
    else if (!inTransaction && roll < 20) statement = "BEGIN";
    else if (!inTransaction && roll < 30) statement = maintenance(dice, table);
    // Deadlocks, timeouts and missing savepoints are part of the game.
    const failed = await sessions.run(name, statement).then(() => false, () => true);
    if (statement === "BEGIN" && !failed) inTransaction = true;
    else if (statement === "COMMIT" || (statement === "ROLLBACK" && !failed)) inTransaction = false;
    else if (failed && inTransaction) {
      await sessions.run(name, "ROLLBACK");
      inTransaction = false;
    }
  }
  if (inTransaction) await sessions.run(name, "ROLLBACK");
}

/**
 * Leaves its tables behind, so that they can be looked at; the next round drops them.
 * @returns their files, but not those of sequences, which run ahead in the log
 */
export async function runSoakRound(round: SoakRound): Promise<RelationFile[]> {
  const sessions = new Sessions(round.socket);
  try {
    await dropSoak(sessions);
    for (const statement of createTables(new Dice(round.seed))) await sessions.run("a", statement);
    const names = Array.from({ length: SESSIONS }, (_, index) => String.fromCharCode(97 + index));
    await Promise.all(names.map((name) => runSession(sessions, name, round)));
    const rows = await sessions.query(
      "a",
      `SELECT pg_relation_filepath(c.oid) AS path, amname AS method
         FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE relnamespace = 'soak'::regnamespace AND relkind IN ('r', 'i')`,
    );
    return rows.map((row) => ({ path: String(row.path), accessMethod: String(row.method) }));
  } finally {
    await sessions.close();
  }
}

async function dropSoak(sessions: Sessions): Promise<void> {
  await sessions.run("a", "DROP SCHEMA IF EXISTS soak CASCADE");
}
