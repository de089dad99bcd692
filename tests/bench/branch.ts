/**
 * Creation of branches over HTTP, durable in the bucket when answered, of a fresh cluster and of a large one, whose pages are
 * being read meanwhile; beside CREATE DATABASE … STRATEGY file_copy of the same databases by PostgreSQL on the same disk, with fsync.
 *
 *   bun run bench branch [--size-mib 256] [--branches 500] [--many 10000] [--executable dist/strata]
 *
 * Pageserver and broker are processes of their own, the bucket is a directory. A branch is timed from request to answer, one after
 * the other; then `--many` more are made, 16 at a time; then the pageserver is killed and started again. "the disk alone" is what a
 * durable object costs without us, measured between the branches: a file of 1 KiB written, synced, renamed, its directory synced.
 * Last line: `branch: p50 A ms, p99 B ms at M MiB (the disk alone D and E ms, file_copy C ms), N branches in S s, restart R s`.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import postgres from "postgres";
import { freePort } from "../../src/platform/free-port.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { UNSHARDED_IDENTITY } from "../../src/keyspace/shard.ts";
import { DatadirModification } from "../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir } from "../../src/pageserver/import/import-datadir.ts";
import { u32, u64, u8 } from "../conformance/bytes.ts";
import { RawLibpq } from "../conformance/raw-libpq.ts";
import { storageFixture, TENANT } from "../pageserver/timeline/storage-fixture.ts";
import { StockPostgres } from "../support/stock-postgres.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { answers, Bench, median, mib, residentBytes } from "./support/processes.ts";

const MAJOR = 17;
const SMALL = "aa".repeat(16);
const LARGE = "bb".repeat(16);
const AT_ONCE = 16;
const COPIES = 3;
/** Branches between two looks at what the disk alone takes. */
const DISK_EVERY = 3;
const STATUS_PAUSE_MS = 10;
const IDLE_MS = 10_000;
const READ_PAUSE_MS = 5;
const LATEST = 0xffff_ffff_ffff_ffffn;
/** Kind of message. */
const PAGE_ANSWER = 102;
const MIB = 1024 * 1024;

const { values: args } = parseArgs({ options: { "size-mib": { type: "string", default: "256" }, branches: { type: "string", default: "500" }, many: { type: "string", default: "10000" }, executable: { type: "string" } } });
const sizeMib = Number(args["size-mib"]);
let nextBranch = 1;

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];
}

interface Opponent {
  readonly server: StockPostgres;
  readonly smallMs: number;
  readonly largeMs: number;
}

async function copyMs(sql: postgres.Sql, template: string): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < COPIES; round++) {
    const startMs = performance.now();
    await sql.unsafe(`CREATE DATABASE copy_${template}_${round} TEMPLATE ${template} STRATEGY file_copy`);
    times.push(performance.now() - startMs);
    await sql.unsafe(`DROP DATABASE copy_${template}_${round}`);
  }
  return median(times);
}

/** A stopped server whose database `large` has the wanted size, and how long PostgreSQL takes to copy it. */
async function opponent(): Promise<Opponent> {
  const server = await StockPostgres.create({ major: MAJOR, conf: ["fsync = on", "wal_level = minimal", "max_wal_senders = 0", "max_wal_size = 8GB", "checkpoint_timeout = 1h", "autovacuum = off", "synchronous_commit = off"] });
  await server.start();
  const sql = server.sql();
  await sql.unsafe("CREATE DATABASE large");
  const inside = postgres({ host: server.directory, username: "postgres", database: "large", max: 1, onnotice: () => undefined });
  await inside.unsafe("CREATE TABLE t (id int, b text STORAGE PLAIN)");
  await inside.unsafe(`INSERT INTO t SELECT i, repeat('x', 1990) FROM generate_series(1, ${sizeMib * 512}) i`);
  await inside.end();
  await sql.unsafe("CHECKPOINT");
  const [smallMs, largeMs] = [await copyMs(sql, "template0"), await copyMs(sql, "large")];
  await server.stop();
  return { server, smallMs, largeMs };
}

/** The opponent's directory as a timeline in a bucket, as a pageserver that is gone left it. @returns the bucket */
async function importLarge(server: StockPostgres): Promise<{ readonly bucket: string; readonly sizeBytes: number; remove(): Promise<void> }> {
  const fixture = await storageFixture();
  const files = new RealFiles();
  const manager = await fixture.attach(1);
  const { endLsn } = await inspectDatadir(files, server.dataDirectory);
  const timeline = await manager.createTimeline({ timelineId: LARGE, initdbLsn: endLsn, pgVersion: MAJOR });
  await importDatadir(new DatadirModification(new TimelineDatadir(timeline, { version: MAJOR, shard: UNSHARDED_IDENTITY })), files, server.dataDirectory);
  await manager.shutdown({ flush: true });
  const objects = (await fixture.bucket.list({ prefix: "" })).objects;
  return { bucket: fixture.directory.replace(/local$/, "bucket"), sizeBytes: objects.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0), remove: () => fixture.close() };
}

interface Pageserver {
  readonly child: Bun.Subprocess;
  readonly pid: number;
  readonly pgPort: number;
  readonly base: string;
}

async function startPageserver(bench: Bench, bucket: string): Promise<Pageserver> {
  const [brokerPort, pgPort, httpPort] = [freePort(), freePort(), freePort()];
  bench.role(["--role", "broker", "--listen-addr", `127.0.0.1:${brokerPort}`]);
  const directory = join(bench.directory, "pageserver");
  mkdirSync(directory);
  writeFileSync(join(directory, "identity.toml"), "id = 1\n");
  writeFileSync(
    join(directory, "pageserver.toml"),
    `listen_pg_addr = "127.0.0.1:${pgPort}"\nlisten_http_addr = "127.0.0.1:${httpPort}"\nbroker_endpoint = "http://127.0.0.1:${brokerPort}"\ninitdb_directory = "${tmpdir()}"\nremote_storage = { local_path = "${bucket}" }\n`,
  );
  return await runPageserver(bench, { pgPort, base: `http://127.0.0.1:${httpPort}/v1` });
}

async function runPageserver(bench: Bench, at: Pick<Pageserver, "pgPort" | "base">): Promise<Pageserver> {
  const child = bench.role(["--role", "pageserver", "-D", join(bench.directory, "pageserver")]);
  await answers(`${at.base}/status`);
  return { ...at, child, pid: child.pid };
}

/** Killed and started again: how long until all branches are there, and the longest that a request for the status took meanwhile. */
async function restart(bench: Bench, before: Pageserver): Promise<{ readonly after: Pageserver; readonly seconds: number; readonly longestMs: number }> {
  before.child.kill("SIGKILL");
  await before.child.exited;
  const startMs = performance.now();
  const after = await runPageserver(bench, before);
  let longestMs = 0;
  for (let isActive = false; !isActive; await Bun.sleep(STATUS_PAUSE_MS)) {
    const askedMs = performance.now();
    const { state } = (await http(`${after.base}/tenant/${TENANT.tenantId}`, "GET")) as { state: { slug: string } };
    longestMs = Math.max(longestMs, performance.now() - askedMs);
    isActive = state.slug === "Active";
  }
  return { after, seconds: (performance.now() - startMs) / 1000, longestMs };
}

async function http(url: string, method: string, body?: unknown): Promise<unknown> {
  const reply = await fetch(url, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${method} ${url}: ${reply.status} ${text}`);
  return text === "" ? null : JSON.parse(text);
}

async function createBranch(base: string, ancestor: string): Promise<number> {
  const id = (nextBranch++).toString(16).padStart(32, "0");
  const startMs = performance.now();
  await http(`${base}/tenant/${TENANT.tenantId}/timeline`, "POST", { new_timeline_id: id, ancestor_timeline_id: ancestor });
  return performance.now() - startMs;
}

/** Reads of the source's pages, one after the other, until told to stop. */
async function readSource(pageserver: Pageserver, timelineId: string, signal: AbortSignal): Promise<number> {
  const { raw } = await RawLibpq.session(pageserver.pgPort, { user: "bench", database: "bench" });
  raw.query(`pagestream_v3 ${TENANT.tenantId} ${timelineId}`);
  await raw.expect("W");
  let reads = 0;
  for (; !signal.aborted; reads++) {
    // GetPage of pg_class's first block, at the latest LSN.
    raw.copyData(u8(2), u64(reads), u64(LATEST), u64(8), u32(1663), u32(5), u32(1259), u8(0), u32(0));
    const answer = await raw.expect("d");
    if (answer[0] !== PAGE_ANSWER) throw new Error("a page of the source could not be read");
    await Bun.sleep(READ_PAUSE_MS);
  }
  raw.close();
  return reads;
}

/** Branch after branch of a source that is being read. @returns milliseconds of each, and of the disk alone in between */
async function oneByOne(pageserver: Pageserver, ancestor: string, directory: string): Promise<{ readonly times: number[]; readonly disk: number[] }> {
  const stop = new AbortController();
  const reading = readSource(pageserver, ancestor, stop.signal);
  const times: number[] = [];
  const disk: number[] = [];
  for (let i = 0; i < Number(args.branches); i++) {
    times.push(await createBranch(pageserver.base, ancestor));
    if (i % DISK_EVERY === 0) disk.push(diskAlone(directory, i));
  }
  stop.abort();
  if ((await reading) === 0) throw new Error("the source was not read");
  return { times, disk };
}

async function many(pageserver: Pageserver, count: number): Promise<number> {
  const startMs = performance.now();
  let left = count;
  const work = async (): Promise<void> => {
    while (left-- > 0) await createBranch(pageserver.base, left % 2 === 0 ? SMALL : LARGE);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return (performance.now() - startMs) / 1000;
}

function sync(path: string): void {
  const file = openSync(path, "r");
  fsyncSync(file);
  closeSync(file);
}

/** What a durable small object costs without us, in milliseconds. */
function diskAlone(directory: string, round: number): number {
  const objects = join(directory, "disk");
  mkdirSync(objects, { recursive: true });
  const startMs = performance.now();
  const file = openSync(join(directory, "temporary"), "w");
  writeSync(file, new Uint8Array(1024));
  fsyncSync(file);
  closeSync(file);
  renameSync(join(directory, "temporary"), join(objects, String(round)));
  sync(objects);
  return performance.now() - startMs;
}

function tell(what: string, times: readonly number[], more = ""): void {
  console.log(`${what.padEnd(34)} p50 ${median(times).toFixed(2)} ms, p99 ${percentile(times, 0.99).toFixed(2)} ms, max ${Math.max(...times).toFixed(1)} ms${more}`);
}

async function compare(bench: Bench, theirs: Opponent, bucket: string): Promise<void> {
  const pageserver = await startPageserver(bench, bucket);
  await http(`${pageserver.base}/tenant/${TENANT.tenantId}/location_config`, "PUT", { mode: "AttachedSingle", generation: 2, tenant_conf: {} });
  await http(`${pageserver.base}/tenant/${TENANT.tenantId}/timeline`, "POST", { new_timeline_id: SMALL, pg_version: MAJOR });
  const cpuBefore = cpuTimeMs([pageserver.pid]);
  const small = await oneByOne(pageserver, SMALL, bench.directory);
  const large = await oneByOne(pageserver, LARGE, bench.directory);
  const cpuEach = (cpuTimeMs([pageserver.pid]) - cpuBefore) / (small.times.length + large.times.length);
  const disk = [...small.disk, ...large.disk];
  tell("the disk alone", disk);
  tell("branch of a fresh cluster", small.times, ` (file_copy ${theirs.smallMs.toFixed(0)} ms)`);
  tell(`branch of ${sizeMib} MiB`, large.times, ` (file_copy ${theirs.largeMs.toFixed(0)} ms)`);
  console.log(`processor time of the pageserver: ${cpuEach.toFixed(2)} ms a branch, with the reads beside it`);
  const seconds = await many(pageserver, Number(args.many));
  const again = await afterMany(bench, pageserver, seconds);
  const [p50, p99, disk50, disk99] = [median(large.times), percentile(large.times, 0.99), median(disk), percentile(disk, 0.99)].map((ms) => ms.toFixed(2));
  console.log(`branch: p50 ${p50} ms, p99 ${p99} ms at ${sizeMib} MiB (the disk alone ${disk50} and ${disk99} ms, file_copy ${theirs.largeMs.toFixed(0)} ms), ${args.many} branches in ${seconds.toFixed(1)} s, restart ${again.toFixed(1)} s`);
}

/** What many branches cost: made, at rest, one more beside them, and started again. @returns seconds of the restart */
async function afterMany(bench: Bench, pageserver: Pageserver, seconds: number): Promise<number> {
  console.log(`${args.many} branches, ${AT_ONCE} at a time: ${seconds.toFixed(1)} s, ${mib(residentBytes(pageserver.pid))} MiB of memory`);
  const idleBefore = cpuTimeMs([pageserver.pid]);
  await Bun.sleep(IDLE_MS);
  console.log(`afterwards, with ${nextBranch - 1} branches and nothing to do: ${(((cpuTimeMs([pageserver.pid]) - idleBefore) / IDLE_MS) * 100).toFixed(1)} % of a processor, ${mib(residentBytes(pageserver.pid))} MiB; load average ${loadavg()[0].toFixed(1)}`);
  tell("a branch beside them", (await oneByOne(pageserver, LARGE, bench.directory)).times);
  const { after, seconds: restartSeconds, longestMs } = await restart(bench, pageserver);
  console.log(`killed and started again: all ${nextBranch - 1} branches after ${restartSeconds.toFixed(1)} s and ${(cpuTimeMs([after.pid]) / 1000).toFixed(1)} s of processor time; longest answer meanwhile ${longestMs.toFixed(0)} ms, ${mib(residentBytes(after.pid))} MiB`);
  return restartSeconds;
}

async function main(): Promise<void> {
  const bench = new Bench("branch", args.executable);
  const theirs = await opponent();
  try {
    const store = await importLarge(theirs.server);
    console.log(`the large source: ${mib(store.sizeBytes)} MiB of layers, ${(store.sizeBytes / MIB / sizeMib).toFixed(2)} of its size`);
    try {
      await compare(bench, theirs, store.bucket);
    } finally {
      await bench.end();
      await store.remove();
    }
  } finally {
    await theirs.server.remove();
  }
}

await main();
