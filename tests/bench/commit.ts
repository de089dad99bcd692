/**
 * Quorum commit: pgbench -N on a stock PostgreSQL 15 whose commits wait for two of three safekeepers, beside the same
 * server waiting for two of three `pg_receivewal --synchronous`. Interleaved rounds on the same machine; medians and all runs.
 *
 *   bun run bench commit [--rounds 5] [--seconds 5] [--clients 1,8,32] [--scale 10] [--executable dist/strata]
 */
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startCompute } from "../../src/compute/compute.ts";
import { createLogger } from "../../src/observability/log.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { type PostgresBinaries, type PostgresUser, findPostgresBinaries, initdb, resolvePostgresUser } from "../../src/platform/postgres-binaries.ts";
import { startPostgres } from "../../src/platform/postgres-process.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { FakePageserver, endOfLog } from "../compute/fake-storage.ts";

const TOOLS = "/usr/lib/postgresql/15/bin";
const MAIN = join(import.meta.dir, "../../src/main.ts");
const platform = realPlatform();
const log = createLogger({ role: "bench", level: "warn" });
const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "5" }, clients: { type: "string", default: "1,8,32" },
    scale: { type: "string", default: "10" }, executable: { type: "string" },
  },
});
const cleanups: (() => Promise<unknown>)[] = [];

interface Contestant {
  readonly name: string;
  readonly port: number;
}

interface Run {
  readonly tps: number;
  readonly latencyMs: number;
}

async function tool(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe" });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${err}`);
  return out;
}

function connection(port: number): string[] {
  return ["-h", "127.0.0.1", "-p", String(port), "-U", "cloud_admin"];
}

async function cluster(base: string, name: string, where: { binaries: PostgresBinaries; user: PostgresUser | null }): Promise<string> {
  const dataDirectory = join(base, name);
  await initdb({ ...where, dataDirectory, superuser: "cloud_admin", dataChecksums: true });
  return dataDirectory;
}

async function startOpponent(base: string, binaries: PostgresBinaries): Promise<Contestant> {
  const user = await resolvePostgresUser();
  const dataDirectory = await cluster(base, "opponent", { binaries, user });
  await writeFile(join(dataDirectory, "pg_hba.conf"), "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\nlocal all all trust\n");
  const server = await startPostgres({
    binaries, user, dataDirectory, listenAddresses: "127.0.0.1", port: freePort(), socketDirectory: base,
    settings: { fsync: "on", synchronous_standby_names: "ANY 2 (w1, w2, w3)", shared_buffers: "256MB", max_wal_size: "4GB", max_connections: "200" },
  });
  cleanups.push(() => server.stop("immediate"));
  for (const name of ["w1", "w2", "w3"]) {
    const directory = join(base, name);
    await mkdir(directory);
    const target = `host=127.0.0.1 port=${server.port} user=cloud_admin application_name=${name}`;
    const child = Bun.spawn([join(TOOLS, "pg_receivewal"), "--synchronous", "-D", directory, "-d", target], { stdout: "ignore", stderr: "ignore" });
    cleanups.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
  }
  return { name: "pg_receivewal", port: server.port };
}

async function startOurs(base: string, binaries: PostgresBinaries): Promise<Contestant> {
  const source = await cluster(base, "initdb", { binaries, user: await resolvePostgresUser() });
  const pageserver = await new FakePageserver(platform, log, { directory: source, lsn: await endOfLog(source) }).start();
  cleanups.push(() => pageserver.stop());
  const safekeepers = await Promise.all([1, 2, 3].map((nodeId) => startSafekeeper(join(base, `safekeeper-${nodeId}`), nodeId)));
  const compute = await startCompute({
    tenantId: pageserver.tenantId, timelineId: pageserver.timelineId, safekeepers, pageserver: pageserver.address, pgVersion: 15, dataDirectory: join(base, "compute"),
    pgPort: 0, httpPort: 0, mode: "primary", settings: { shared_buffers: "256MB", max_wal_size: "4GB", max_connections: "200" },
  }, { platform, log });
  cleanups.push(() => compute.kill());
  return { name: "strata", port: compute.pgPort };
}

async function startSafekeeper(directory: string, nodeId: number): Promise<{ host: string; port: number }> {
  const [port, httpPort] = [freePort(), freePort()];
  const program = args.executable === undefined ? [process.execPath, MAIN] : [args.executable];
  const child = Bun.spawn([
    ...program, "--role", "safekeeper", "--datadir", directory, "--id", String(nodeId), "--listen-pg", `127.0.0.1:${port}`, "--listen-http", `127.0.0.1:${httpPort}`, "--broker-endpoint", "",
  ], { stdout: "ignore", stderr: Bun.file(`${directory}.log`) });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  for (let tries = 0; tries < 300; tries++) {
    if (await fetch(`http://127.0.0.1:${httpPort}/v1/status`).then((answer) => answer.ok, () => false)) return { host: "127.0.0.1", port };
    await Bun.sleep(30);
  }
  throw new Error(`safekeeper ${nodeId} does not start: ${await Bun.file(`${directory}.log`).text()}`);
}

async function pgbench(contestant: Contestant, clients: number): Promise<Run> {
  const threads = String(Math.min(clients, 2));
  const out = await tool([join(TOOLS, "pgbench"), "-N", "-n", "-M", "prepared", "-c", String(clients), "-j", threads, "-T", args.seconds, ...connection(contestant.port), "postgres"]);
  return { tps: Number(/tps = ([\d.]+)/.exec(out)?.[1]), latencyMs: Number(/latency average = ([\d.]+) ms/.exec(out)?.[1]) };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function main(): Promise<void> {
  const base = await mkdtemp(join(tmpdir(), "strata-bench-commit-"));
  cleanups.push(() => rm(base, { recursive: true, force: true }));
  await chmod(base, 0o755);
  const user = await resolvePostgresUser();
  if (user !== null) await chown(base, user.uid, user.gid);
  const binaries = await findPostgresBinaries({ major: 15 });
  const contestants = [await startOpponent(base, binaries), await startOurs(base, binaries)];
  for (const { port } of contestants) await tool([join(TOOLS, "pgbench"), "-i", "-q", "-s", args.scale, ...connection(port), "postgres"]);
  console.log(`pgbench -N, scale ${args.scale}, ${args.seconds} s a run, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  for (const clients of args.clients.split(",").map(Number)) {
    const runs = contestants.map((): Run[] => []);
    for (let round = 0; round < Number(args.rounds); round++) {
      for (const [index, contestant] of contestants.entries()) runs[index].push(await pgbench(contestant, clients));
    }
    const tps = runs.map((all) => median(all.map((run) => run.tps)));
    const latency = runs.map((all) => median(all.map((run) => run.latencyMs)));
    for (const [index, { name }] of contestants.entries()) {
      console.log(`${clients} clients  ${name.padEnd(14)} ${tps[index].toFixed(0)} tps, ${latency[index].toFixed(2)} ms   (tps: ${runs[index].map((run) => run.tps.toFixed(0)).join(" ")})`);
    }
    console.log(`${clients} clients  ratio: ${(tps[1] / tps[0]).toFixed(2)}× tps, ${(latency[1] / latency[0]).toFixed(2)}× latency`);
  }
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup().catch((error: unknown) => console.error(error));
}
process.exit(0);
