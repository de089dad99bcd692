/** A real server's backup and WAL, imported over libpq and over HTTP; a server started from the result knows what the first one did. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { writeStarter } from "../../../src/compute/base-backup/starter.ts";
import { BackupUnpacker } from "../../../src/compute/base-backup/unpack.ts";
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import { inspectDatadir } from "../../../src/pageserver/import/import-datadir.ts";
import { findPostgresBinaries, resolvePostgresUser } from "../../../src/platform/postgres-binaries.ts";
import { startPostgres } from "../../../src/platform/postgres-process.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { StockPostgres } from "../../support/stock-postgres.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const BY_LIBPQ = "aa".repeat(16);
const BY_HTTP = "bb".repeat(16);
const QUESTION = `select count(*)::int n, sum(length(b))::int length, (select count(*)::int from pg_class) relations, (select sum(i)::int from elsewhere) elsewhere,
  (select string_agg(gid, ',') from pg_prepared_xacts) prepared, (select string_agg(remote_lsn::text, ',') from pg_replication_origin_status) origins from t where i > 0`;
const WORK = `create table t as select i, repeat('x', 100) b from generate_series(1, 20000) i; create index on t (i); update t set b = 'y' where i % 7 = 0;
  create unlogged table u (x int); select pg_replication_origin_create('o'); select pg_replication_origin_advance('o', '1/2345678')`;
const files = new RealFiles();
const pageserver = new TestPageserver();
let server: StockPostgres;
let backup: Uint8Array;
/** Of the server at its end. */
let last: Uint8Array;
let wal: Uint8Array;
let baseLsn: Lsn;
let endLsn: Lsn;
let answer: unknown;

async function tarOf(directory: string, names: readonly string[]): Promise<Uint8Array> {
  const archive = Bun.spawn(["tar", "-c", "-C", directory, ...names], { stdout: "pipe" });
  const bytes = await new Response(archive.stdout).bytes();
  expect(await archive.exited).toBe(0);
  return bytes;
}

const stoppedAt = async (): Promise<Lsn> => (await inspectDatadir(files, server.dataDirectory)).endLsn;

beforeAll(async () => {
  server = await StockPostgres.create({ major: 16, conf: ["full_page_writes = off", "autovacuum = off", "wal_keep_size = 1GB", "max_prepared_transactions = 2", "allow_in_place_tablespaces = on"] });
  baseLsn = await stoppedAt();
  backup = await tarOf(server.dataDirectory, ["."]);
  await server.start();
  const sql = server.sql();
  await sql.unsafe(WORK);
  await sql.unsafe("create tablespace place location ''");
  await sql.unsafe("create table elsewhere tablespace place as select i from generate_series(1, 1000) i");
  const session = await sql.reserve();
  await session.unsafe("begin; insert into t values (0, 'prepared'); prepare transaction 'waiting'");
  session.release();
  answer = (await sql.unsafe(QUESTION))[0];
  await server.stop();
  endLsn = await stoppedAt();
  const segments = join(server.dataDirectory, "pg_wal");
  wal = await tarOf(segments, readdirSync(segments).filter((name) => /^[0-9A-F]{24}$/.test(name)));
  last = await tarOf(server.dataDirectory, ["."]);
  await pageserver.start();
  expect((await pageserver.attach(1)).status).toBe(200);
}, 60_000);
afterAll(async () => {
  await pageserver.remove();
  await server.remove();
});

/** In object storage, and a server from its base backup answers as the first one. */
async function expectTheSameCluster(timelineId: string): Promise<void> {
  const info = (await pageserver.http("GET", `/v1/tenant/${TENANT_ID}/timeline/${timelineId}`)).json as { last_record_lsn: string; disk_consistent_lsn: string };
  expect([info.last_record_lsn, info.disk_consistent_lsn]).toEqual([lsnToString(endLsn), lsnToString(endLsn)]);
  const root = mkdtempSync(join(tmpdir(), "strata-imported-"));
  try {
    chmodSync(root, 0o755);
    const directory = join(root, "data");
    mkdirSync(directory, { mode: 0o700 });
    await unpackBackup(timelineId, directory);
    if (process.getuid?.() === 0) chownSync(root, 65534, 65534);
    const started = await startPostgres({ binaries: await findPostgresBinaries({ major: 16 }), user: await resolvePostgresUser(), dataDirectory: directory, listenAddresses: "", port: 5432, socketDirectory: root, settings: { fsync: "off", max_prepared_transactions: "2" } });
    const client = postgres({ host: root, username: "postgres", database: "postgres", max: 1, onnotice: () => {} });
    try {
      expect<unknown>((await client.unsafe(QUESTION))[0]).toEqual(answer);
    } finally {
      await client.end();
      await started.stop("fast");
    }
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

async function unpackBackup(timelineId: string, directory: string): Promise<void> {
  const client = await pageserver.client();
  const unpacker = new BackupUnpacker(files, directory);
  const stream = await client.copyOut(`fullbasebackup ${TENANT_ID} ${timelineId}`);
  for (let piece = await stream.read(); piece !== null; piece = await stream.read()) await unpacker.push(piece);
  await writeStarter(files, directory, { backup: await unpacker.finish(), settledLsn: endLsn });
  client.destroy();
}

async function copyIn(command: string, bytes: Uint8Array): Promise<void> {
  const client = await pageserver.client();
  try {
    const stream = await client.copyIn(command);
    for (let at = 0; at < bytes.length; at += 65_536) {
      stream.write(bytes.subarray(at, at + 65_536));
      await stream.drained();
    }
    stream.done();
    await stream.finish();
  } finally {
    client.destroy();
  }
}

const put = (timeline: string, what: string, body: Uint8Array) =>
  fetch(`http://127.0.0.1:${pageserver.running.httpPort}/v1/tenant/${TENANT_ID}/timeline/${timeline}/${what}`, { method: "PUT", body: body as Uint8Array<ArrayBuffer> });

describe("import", () => {
  test("over libpq", async () => {
    await copyIn(`import basebackup ${TENANT_ID} ${BY_LIBPQ} ${lsnToString(baseLsn)} ${lsnToString(endLsn)} 16`, backup);
    await expect(copyIn(`import wal ${TENANT_ID} ${BY_LIBPQ} ${lsnToString(baseLsn + 8)} ${lsnToString(endLsn)}`, wal)).rejects.toThrow("the timeline ends at");
    await copyIn(`import wal ${TENANT_ID} ${BY_LIBPQ} ${lsnToString(baseLsn)} ${lsnToString(endLsn)}`, wal);
    await expectTheSameCluster(BY_LIBPQ);
  }, 60_000);

  test("over HTTP", async () => {
    expect((await put(BY_HTTP, `import_basebackup?base_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}&pg_version=16`, backup)).status).toBe(200);
    expect((await put(BY_HTTP, `import_wal?start_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}`, wal)).status).toBe(200);
    await expectTheSameCluster(BY_HTTP);
  }, 60_000);

  test("of a server with everything in it: tablespaces, prepared transactions, replication origins", async () => {
    const timeline = "ee".repeat(16);
    const reply = await put(timeline, `import_basebackup?base_lsn=${lsnToString(endLsn)}&end_lsn=${lsnToString(endLsn)}&pg_version=16`, last);
    expect([reply.status, await reply.text()]).toEqual([200, "null"]);
    await expectTheSameCluster(timeline);
  }, 60_000);

  test("of a full backup of the timeline itself: the same cluster again", async () => {
    const client = await pageserver.client();
    const stream = await client.copyOut(`fullbackup ${TENANT_ID} ${BY_HTTP} ${lsnToString(endLsn)}`);
    const pieces: Uint8Array[] = [];
    for (let piece = await stream.read(); piece !== null; piece = await stream.read()) pieces.push(piece);
    client.destroy();
    const again = "dd".repeat(16);
    await copyIn(`import basebackup ${TENANT_ID} ${again} ${lsnToString(endLsn)} ${lsnToString(endLsn)} 16`, Buffer.concat(pieces));
    await expectTheSameCluster(again);
  }, 60_000);

  test("what is no archive, of another version, or too short a log is refused, and leaves nothing behind", async () => {
    const query = `import_basebackup?base_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}`;
    const timeline = "cc".repeat(16);
    expect((await put(timeline, `${query}&pg_version=17`, backup)).status).toBe(400);
    expect((await put(timeline, `${query}&pg_version=16`, new Uint8Array(10_000).fill(7))).status).toBe(400);
    expect((await put(timeline, `${query}&pg_version=16`, backup.subarray(0, backup.length / 2))).status).toBeGreaterThanOrEqual(400);
    expect((await pageserver.http("GET", `/v1/tenant/${TENANT_ID}/timeline/${timeline}`)).status).toBe(404);
    expect((await put(BY_HTTP, `${query}&pg_version=16`, backup)).status).toBe(409);
    expect((await put(BY_HTTP, `import_wal?start_lsn=${lsnToString(endLsn)}&end_lsn=${lsnToString(endLsn + 2 ** 30)}`, wal)).status).toBe(400);
    const codeOf = async (reply: Promise<Response>): Promise<unknown> => [(await reply).status, (await reply).headers.get("x-error-code")];
    expect(await codeOf(put(BY_HTTP, `import_wal?start_lsn=${lsnToString(endLsn)}&end_lsn=${lsnToString(endLsn + 2 ** 30)}`, wal))).toEqual([400, "wal-missing"]);
    expect(await codeOf(put(timeline, `import_basebackup?base_lsn=${lsnToString(endLsn)}&end_lsn=${lsnToString(baseLsn)}&pg_version=16`, backup))).toEqual([400, "bad-range"]);
    expect(await codeOf(put(BY_HTTP, `import_wal?start_lsn=${lsnToString(endLsn)}&end_lsn=${lsnToString(baseLsn)}`, wal))).toEqual([400, "bad-range"]);
    expect(readdirSync(pageserver.workDirectory).filter((name) => name.startsWith("import-"))).toEqual([]);
  }, 60_000);

  test("damaged WAL is corrupt, and not its end", async () => {
    const timeline = "ff".repeat(16);
    expect((await put(timeline, `import_basebackup?base_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}&pg_version=16`, backup)).status).toBe(200);
    const bad = wal.slice();
    // Behind the header of the archive's first entry, half way to the end.
    const segmentBytes = 16 * 1024 * 1024;
    bad[512 + Math.floor(((baseLsn % segmentBytes) + Math.min(endLsn - baseLsn, segmentBytes - (baseLsn % segmentBytes)) / 2) / 8192) * 8192 + 4000] ^= 1;
    const reply = await put(timeline, `import_wal?start_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}`, bad);
    expect([reply.status, reply.headers.get("x-error-kind")]).toEqual([500, "corrupt"]);
    expect(reply.headers.get("x-error-code")).toMatch(/^wal-bad-/);
  }, 60_000);

  test("what an archive has links for, or has too large or not at all, is refused by name", async () => {
    const directory = mkdtempSync(join(tmpdir(), "strata-bad-backup-"));
    const refused = async (): Promise<unknown> => {
      const reply = await put("ab".repeat(16), `import_basebackup?base_lsn=${lsnToString(baseLsn)}&end_lsn=${lsnToString(endLsn)}&pg_version=16`, await tarOf(directory, ["."]));
      return [reply.status, reply.headers.get("x-error-code"), ((await reply.json()) as { msg: string }).msg];
    };
    try {
      expect(await refused()).toEqual([400, "bad-archive", expect.stringContaining("global/pg_control is missing")]);
      mkdirSync(join(directory, "global"));
      writeFileSync(join(directory, "global/pg_control"), new Uint8Array(8193));
      expect(await refused()).toEqual([400, "bad-archive", expect.stringContaining("global/pg_control has 8193 bytes")]);
      writeFileSync(join(directory, "global/pg_control"), readFileSync(join(server.dataDirectory, "global/pg_control")));
      writeFileSync(join(directory, "global/pg_filenode.map"), new Uint8Array(5000));
      expect(await refused()).toEqual([400, "bad-archive", expect.stringContaining("pg_filenode.map has 5000 bytes")]);
      mkdirSync(join(directory, "pg_tblspc"));
      symlinkSync("/somewhere", join(directory, "pg_tblspc/16400"));
      expect(await refused()).toEqual([400, "unsupported-archive", expect.stringContaining("pg_tblspc/16400")]);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }, 60_000);
});
