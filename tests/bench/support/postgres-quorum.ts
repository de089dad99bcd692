/**
 * Two PostgreSQL 15 servers whose commits wait until two of three others have their WAL on disk: a stock one that streams to
 * three `pg_receivewal --synchronous` (the opponent), and one on three safekeepers. Same settings where both have them; the
 * opponent's own data directory is fsynced, ours is not, because there the safekeepers are what is durable.
 */
import { existsSync } from "node:fs";
import { chmod, chown, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import postgres, { type Sql } from "postgres";
import { startCompute } from "../../../src/compute/compute.ts";
import { LocalWal } from "../../../src/compute/proposer/local-wal.ts";
import { LocalWalStream, PROPOSER_APPLICATION_NAME } from "../../../src/compute/proposer/local-wal-stream.ts";
import { createLogger } from "../../../src/observability/log.ts";
import { freePort } from "../../../src/platform/free-port.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../../src/platform/postgres-binaries.ts";
import { startPostgres } from "../../../src/platform/postgres-process.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { FakePageserver, endOfLog } from "../../compute/fake-storage.ts";
import type { Bench } from "./processes.ts";

const MAJOR = 15;
const TOOLS = `/usr/lib/postgresql/${MAJOR}/bin`;
const SUPERUSER = "cloud_admin";
const START_TRIES = 500;
const SEGMENT_BYTES = 16 * 1024 * 1024;
const SETTINGS = { shared_buffers: "256MB", max_wal_size: "4GB", max_connections: "200" };

export interface CommitServer {
  readonly name: string;
  readonly port: number;
  /** Roots of process trees, by what they are. */
  readonly processes: Readonly<Record<string, readonly number[]>>;
  /** The three that make WAL durable. */
  readonly writers: readonly number[];
}

/** Null where it is not installed, which is said. */
export function findTool(name: string): string | null {
  const path = join(TOOLS, name);
  if (existsSync(path)) return path;
  console.log(`${name}: skipped, ${path} is not installed`);
  return null;
}

/** Arguments of psql, pgbench and their like. */
export function connection(port: number): string[] {
  return ["-h", "127.0.0.1", "-p", String(port), "-U", SUPERUSER];
}

/** One session, until the benchmark ends. */
export function connect(bench: Bench, port: number): Sql {
  const sql = postgres({ host: "127.0.0.1", port, user: SUPERUSER, database: "postgres", max: 1, onnotice: () => undefined });
  bench.onEnd(() => sql.end({ timeout: 1 }));
  return sql;
}

/** @throws Error with what it said, when it does not end with 0 */
export async function runTool(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<{ readonly out: string; readonly cpuUs: number }> {
  const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe", env: { ...process.env, ...environment } });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${err}`);
  return { out, cpuUs: Number(child.resourceUsage()?.cpuTime.total ?? 0) };
}

async function cluster(bench: Bench, name: string): Promise<string> {
  const user = await resolvePostgresUser();
  await chmod(bench.directory, 0o755);
  if (user !== null) await chown(bench.directory, user.uid, user.gid);
  const dataDirectory = join(bench.directory, name);
  await initdb({ binaries: await findPostgresBinaries({ major: MAJOR }), user, dataDirectory, superuser: SUPERUSER, dataChecksums: true });
  return dataDirectory;
}

/** Null where pg_receivewal is not installed. When it returns, all three stream. */
export async function startReceivers(bench: Bench, settings: Readonly<Record<string, string>> = {}): Promise<CommitServer | null> {
  const receiver = findTool("pg_receivewal");
  if (receiver === null) return null;
  const dataDirectory = await cluster(bench, "opponent");
  await writeFile(join(dataDirectory, "pg_hba.conf"), "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\nlocal all all trust\n");
  const server = await startPostgres({
    binaries: await findPostgresBinaries({ major: MAJOR }), user: await resolvePostgresUser(), dataDirectory, listenAddresses: "127.0.0.1", port: freePort(),
    socketDirectory: bench.directory, settings: { fsync: "on", synchronous_standby_names: "ANY 2 (w1, w2, w3)", ...SETTINGS, ...settings },
  });
  bench.onEnd(() => server.stop("immediate"));
  const writers: number[] = [];
  for (const name of ["w1", "w2", "w3"]) {
    const directory = join(bench.directory, name);
    await mkdir(directory);
    writers.push(bench.spawn([receiver, "--synchronous", "-D", directory, "-d", `host=127.0.0.1 port=${server.port} user=${SUPERUSER} application_name=${name}`]).pid);
  }
  const sql = connect(bench, server.port);
  for (let tries = 0; (await sql`select 1 from pg_stat_replication where state = 'streaming'`).length < writers.length; tries++) {
    if (tries > START_TRIES) throw new Error("pg_receivewal does not connect");
    await Bun.sleep(30);
  }
  return { name: "pg_receivewal", port: server.port, processes: { postgres: [server.pid], receivers: writers }, writers };
}

/**
 * A server set as a compute's, whose commits wait for the proposer's WAL stream alone: it takes the WAL, in this process, and says
 * at once that a quorum has it. What is left of a commit's cost when safekeepers and their links cost nothing.
 */
export async function startAnswered(bench: Bench): Promise<CommitServer> {
  const dataDirectory = await cluster(bench, "answered");
  await writeFile(join(dataDirectory, "pg_hba.conf"), "host all all 127.0.0.1/32 trust\nlocal all all trust\nlocal replication all trust\n");
  const server = await startPostgres({
    binaries: await findPostgresBinaries({ major: MAJOR }), user: await resolvePostgresUser(), dataDirectory, listenAddresses: "127.0.0.1", port: freePort(),
    socketDirectory: bench.directory, settings: { fsync: "off", full_page_writes: "off", synchronous_standby_names: PROPOSER_APPLICATION_NAME, ...SETTINGS },
  });
  bench.onEnd(() => server.stop("immediate"));
  const [{ at }] = await connect(bench, server.port)`select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::float8 as at`;
  const platform = realPlatform();
  const wal = new LocalWal({ files: platform.files, walDirectory: join(dataDirectory, "pg_wal"), segmentSizeBytes: SEGMENT_BYTES, startLsn: Number(at) });
  const abort = new AbortController();
  const stream = new LocalWalStream({
    platform, wal, signal: abort.signal, log: createLogger({ role: "bench", level: "warn" }), server: { socketPath: join(bench.directory, `.s.PGSQL.${server.port}`), user: SUPERUSER },
    onWal: () => stream.confirm(), commitLsn: () => wal.endLsn,
  });
  const running = stream.run();
  bench.onEnd(async () => {
    abort.abort();
    await running;
  });
  return { name: "answered", port: server.port, processes: { postgres: [server.pid] }, writers: [server.pid] };
}

/** The compute's proposer runs in this process. */
export async function startOurs(bench: Bench): Promise<CommitServer> {
  const [platform, log] = [realPlatform(), createLogger({ role: "bench", level: "warn" })];
  const source = await cluster(bench, "initdb");
  const pageserver = await new FakePageserver(platform, log, { directory: source, lsn: await endOfLog(source) }).start();
  bench.onEnd(() => pageserver.stop());
  const safekeepers = await Promise.all([1, 2, 3].map((nodeId) => bench.safekeeper(nodeId)));
  const dataDirectory = join(bench.directory, "compute");
  const compute = await startCompute({
    tenantId: pageserver.tenantId, timelineId: pageserver.timelineId, safekeepers: safekeepers.map(({ port }) => ({ host: "127.0.0.1", port })), pageserver: pageserver.address,
    pgVersion: MAJOR, dataDirectory, pgPort: 0, httpPort: 0, mode: "primary", settings: SETTINGS,
  }, { platform, log });
  bench.onEnd(() => compute.kill());
  const postgres = [Number((await readFile(join(dataDirectory, "pgdata", "postmaster.pid"), "utf8")).split("\n")[0])];
  const writers = safekeepers.map(({ pid }) => pid);
  return { name: "strata", port: compute.pgPort, processes: { postgres, safekeepers: writers }, writers };
}
