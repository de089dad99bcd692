/** Which manager each relation file belongs to, as the catalogs of all databases say. */
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { connect } from "./workload.ts";

/** `<database oid>/<file number>` → resource manager; database 0 for shared relations. */
export type RelationManagers = ReadonlyMap<string, number>;

const BY_ACCESS_METHOD: Readonly<Record<string, number>> = {
  heap: RMGR.HEAP, btree: RMGR.BTREE, hash: RMGR.HASH, gin: RMGR.GIN, gist: RMGR.GIST, spgist: RMGR.SPGIST, brin: RMGR.BRIN,
};

interface Row {
  readonly database: number;
  readonly file: number;
  readonly kind: string;
  readonly method: string | null;
}

export async function relationManagers(port: number): Promise<RelationManagers> {
  const managers = new Map<string, number>();
  const main = connect(port);
  const databases = await main<{ name: string }[]>`SELECT datname AS name FROM pg_database WHERE datallowconn`;
  await main.end();
  for (const { name } of databases) {
    const sql = connect(port, name);
    const rows = await sql<Row[]>`
      SELECT CASE WHEN c.relisshared THEN 0 ELSE d.oid::int END AS database, pg_relation_filenode(c.oid)::int AS file, c.relkind AS kind, a.amname AS method
      FROM pg_class c JOIN pg_database d ON d.datname = current_database() LEFT JOIN pg_am a ON a.oid = c.relam
      WHERE pg_relation_filenode(c.oid) IS NOT NULL AND c.relpersistence <> 't'`;
    for (const { database, file, kind, method } of rows) {
      const manager = kind === "S" ? RMGR.SEQ : BY_ACCESS_METHOD[method ?? "heap"];
      if (manager !== undefined) managers.set(`${database}/${file}`, manager);
    }
    await sql.end();
  }
  return managers;
}

/** Oid of a database by name, null when there is none. */
export async function databaseOid(port: number, name: string): Promise<number | null> {
  const sql = connect(port);
  const [row] = await sql<{ oid: number }[]>`SELECT oid::int AS oid FROM pg_database WHERE datname = ${name}`;
  await sql.end();
  return row?.oid ?? null;
}
