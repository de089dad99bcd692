import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { writeStarter } from "../../../src/compute/base-backup/starter.ts";
import { BackupUnpacker } from "../../../src/compute/base-backup/unpack.ts";
import { baseBackup, type BaseBackupOptions } from "../../../src/pageserver/basebackup/base-backup.ts";
import { GZIP_SMALL, gzipped } from "../../../src/pageserver/basebackup/gzip.ts";
import type { DatadirReader } from "../../../src/pageserver/datadir/datadir-reader.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { startPostgres } from "../../../src/platform/postgres-process.ts";
import { findPostgresBinaries, resolvePostgresUser } from "../../../src/platform/postgres-binaries.ts";
import postgres from "postgres";
import { importStopped, ingestWal } from "../../support/ingest-wal.ts";
import { StockPostgres } from "../../support/stock-postgres.ts";

const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
}, 60_000);

const options: BaseBackupOptions = { form: "stock", replica: false, prevLsn: 0, isBranchPoint: false, wallMs: 1_700_000_000_000 };

/** Commit timestamps of the first and the last transaction that wrote to `t`. */
const STAMPS = "select min(pg_xact_commit_timestamp(xmin))::text as first, max(pg_xact_commit_timestamp(xmin))::text as last from t";

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

async function unpacked(reader: DatadirReader): Promise<string> {
  const root = mkdtempSync(join(tmpdir(), "strata-backup-"));
  cleanups.push(() => rmSync(root, { recursive: true, force: true }));
  chmodSync(root, 0o755);
  const directory = join(root, "data");
  mkdirSync(directory, { mode: 0o700 });
  const files = new RealFiles();
  const unpacker = new BackupUnpacker(files, directory);
  for await (const piece of baseBackup(reader, options)) await unpacker.push(piece);
  await writeStarter(files, directory, { backup: await unpacker.finish(), settledLsn: reader.lsn });
  if (process.getuid?.() === 0) chownSync(root, 65534, 65534);
  return directory;
}

for (const major of [14, 17] as const) {
  describe(`base backup of PostgreSQL ${major}`, () => {
    test("an unmodified server starts from it, at the LSN, with the right rows, checksums and commit timestamps", async () => {
      const server = await StockPostgres.create({ major, initdbArgs: ["--data-checksums"], conf: ["full_page_writes = off", "autovacuum = off", "wal_keep_size = 1GB", "track_commit_timestamp = on"] });
      cleanups.push(() => server.remove());
      const timeline = await importStopped(server.dataDirectory);
      await server.start();
      const sql = server.sql();
      await sql.unsafe("create table t as select i, repeat('x', 100) b from generate_series(1, 5000) i");
      await sql.unsafe("create unlogged table u (x int primary key); insert into u values (1)");
      await sql.unsafe("create index on t (i)");
      await sql.unsafe("do $$ begin for i in 1..900 loop insert into u values (1000 + i); commit; end loop; end $$");
      await sql.unsafe("insert into t values (-1, 'last')");
      const [stamps] = await sql.unsafe(STAMPS);
      await server.stop();
      await ingestWal(timeline, server.dataDirectory);
      const directory = await unpacked(timeline.datadir.at(timeline.store.lastRecordLsn, { task: "test" }));

      const socketDirectory = join(directory, "..");
      const binaries = await findPostgresBinaries({ major });
      const started = await startPostgres({ binaries, user: await resolvePostgresUser(), dataDirectory: directory, listenAddresses: "", port: 5432, socketDirectory, settings: { fsync: "off", track_commit_timestamp: "on" } });
      try {
        const client = postgres({ host: socketDirectory, username: "postgres", database: "postgres", max: 1, onnotice: () => {} });
        expect<unknown>((await client.unsafe("select count(*)::int n, sum(length(b))::int s from t"))[0]).toEqual({ n: 5001, s: 500004 });
        expect(stamps?.last).not.toBeNull();
        expect<unknown>((await client.unsafe(STAMPS))[0]).toEqual(stamps);
        expect<unknown>((await client.unsafe("select count(*)::int n from u"))[0]).toEqual({ n: 0 });
        await client.unsafe("insert into u values (2); insert into t values (0, 'new'); checkpoint");
        expect<unknown>((await client.unsafe("show data_checksums"))[0]).toEqual({ data_checksums: "on" });
        await client.end();
        expect(started.logTail().some((line) => /redo starts|automatic recovery|not properly shut down/i.test(line))).toBe(false);
      } finally {
        await started.stop("fast");
      }
    }, 30_000);
  });
}

describe("base backup forms", () => {
  test("the form for patched servers is small, has signal files, headers-only WAL and no relations", async () => {
    const server = await StockPostgres.create({ major: 16 });
    cleanups.push(() => server.remove());
    const timeline = await importStopped(server.dataDirectory);
    const reader = timeline.datadir.at(timeline.lsn, { task: "test" });
    const zipped = await collect(gzipped(baseBackup(reader, { ...options, form: "neon", prevLsn: 0x1234 }), GZIP_SMALL));
    const archive = gunzipSync(zipped);
    const names = [...archive.toString("latin1").matchAll(/([\w./-]+)\0{1,100}0000[67]00\0/g)].map((match) => match[1]);
    expect(names).toContain("zenith.signal");
    expect(names).toContain("pg_xact/0000");
    expect(names.some((name) => name.startsWith("pg_wal/0"))).toBe(true);
    expect(names.some((name) => /base\/\d+\/\d/.test(name))).toBe(false);
    expect(archive.includes("PREV LSN: 0/1234")).toBe(true);
    console.log(`base backup of a fresh timeline: ${zipped.length} bytes gzipped`);
    expect(zipped.length).toBeLessThanOrEqual(20 * 1024);
    expect(readdirSync(server.dataDirectory)).toContain("base");
  }, 30_000);
});
