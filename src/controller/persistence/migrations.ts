/**
 * Runs the SQL migrations: each file of the set once, in name order, each in a transaction with its entry in
 * `strata_migrations`, all under one advisory lock so that two controllers starting together take turns.
 */
import type { Sql } from "postgres";
import { StrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";

export interface Migration {
  /** File name, which orders it: `0001_initial.sql`. */
  readonly name: string;
  readonly sql: string;
}

/** Any constant of ours; it names the lock in pg_locks. */
const MIGRATION_LOCK = 0x5374_7261;

async function applyOne(connection: Sql, migration: Migration): Promise<void> {
  await connection`BEGIN`;
  try {
    await connection.unsafe(migration.sql).simple();
    await connection`INSERT INTO strata_migrations (name) VALUES (${migration.name})`;
    await connection`COMMIT`;
  } catch (error) {
    await connection`ROLLBACK`;
    throw new StrataError("unavailable", "migration-failed", `migration ${migration.name} failed and was rolled back`, { cause: error });
  }
}

/** @throws StrataError conflict `database-is-newer` when the database has a migration this version does not know */
export async function runMigrations(sql: Sql, migrations: readonly Migration[], log: Logger): Promise<void> {
  const ordered = [...migrations].sort((a, b) => (a.name < b.name ? -1 : 1));
  const known = new Set(ordered.map((migration) => migration.name));
  const connection = await sql.reserve();
  try {
    await connection`SELECT pg_advisory_lock(${MIGRATION_LOCK})`;
    await connection`CREATE TABLE IF NOT EXISTS strata_migrations (name TEXT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW())`;
    const rows = await connection<{ name: string }[]>`SELECT name FROM strata_migrations`;
    const applied = new Set(rows.map((row) => row.name));
    for (const name of applied) {
      if (!known.has(name)) throw new StrataError("conflict", "database-is-newer", `the database has migration ${name}, which this version does not know`);
    }
    for (const migration of ordered) {
      if (applied.has(migration.name)) continue;
      await applyOne(connection, migration);
      log.info("migration applied", { migration: migration.name });
    }
  } finally {
    await connection`SELECT pg_advisory_unlock(${MIGRATION_LOCK})`.catch(() => undefined);
    connection.release();
  }
}
