/**
 * Quorum commit: pgbench -N on a stock PostgreSQL 15 whose commits wait for two of three safekeepers, beside the same
 * server waiting for two of three `pg_receivewal --synchronous`. Interleaved rounds on the same machine; medians and all runs,
 * and the processor time of a transaction by the processes that spend it. As a ceiling, the same load on a server where nobody
 * waits for anything (synchronous_commit off).
 *
 *   bun run bench commit [--rounds 5] [--seconds 5] [--clients 1,8,32] [--scale 10] [--executable dist/strata]
 */
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
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
import { activityOf, cpuTimeMs } from "./support/cpu.ts";

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
  /** Whose processor time is asked for: roots of process trees, by what they are. */
  readonly processes: Readonly<Record<string, readonly number[]>>;
  /** Those that write the WAL of one transaction to disk. */
  readonly writers: readonly number[];
  readonly environment?: Readonly<Record<string, string>>;
}

interface Run {
  readonly tps: number;
  readonly latencyMs: number;
  /** Microseconds of processor time a transaction. */
  readonly cpuUs: Readonly<Record<string, number>>;
  /** Of one of the writers, a transaction. */
  readonly writes: number;
  readonly sleeps: number;
}

async function tool(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<{ readonly out: string; readonly cpuUs: number }> {
  const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe", env: { ...process.env, ...environment } });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${err}`);
  return { out, cpuUs: Number(child.resourceUsage()?.cpuTime.total ?? 0) };
}

function connection(port: number): string[] {
  return ["-h", "127.0.0.1", "-p", String(port), "-U", "cloud_admin"];
}

async function cluster(base: string, name: string, where: { binaries: PostgresBinaries; user: PostgresUser | null }): Promise<string> {
  const dataDirectory = join(base, name);
  await initdb({ ...where, dataDirectory, superuser: "cloud_admin", dataChecksums: true });
  return dataDirectory;
}

async function startOpponent(base: string, binaries: PostgresBinaries): Promise<Contestant[]> {
  const user = await resolvePostgresUser();
  const dataDirectory = await cluster(base, "opponent", { binaries, user });
  await writeFile(join(dataDirectory, "pg_hba.conf"), "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\nlocal all all trust\n");
  const server = await startPostgres({
    binaries, user, dataDirectory, listenAddresses: "127.0.0.1", port: freePort(), socketDirectory: base,
    settings: { fsync: "on", synchronous_standby_names: "ANY 2 (w1, w2, w3)", shared_buffers: "256MB", max_wal_size: "4GB", max_connections: "200" },
  });
  cleanups.push(() => server.stop("immediate"));
  const writers: number[] = [];
  for (const name of ["w1", "w2", "w3"]) {
    const directory = join(base, name);
    await mkdir(directory);
    const target = `host=127.0.0.1 port=${server.port} user=cloud_admin application_name=${name}`;
    const child = Bun.spawn([join(TOOLS, "pg_receivewal"), "--synchronous", "-D", directory, "-d", target], { stdout: "ignore", stderr: "ignore" });
    writers.push(child.pid);
    cleanups.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
  }
  const postgres = [server.pid];
  return [
    { name: "pg_receivewal", port: server.port, processes: { postgres, receivers: writers }, writers },
    { name: "nobody waits", port: server.port, processes: { postgres, receivers: writers }, writers, environment: { PGOPTIONS: "-c synchronous_commit=off" } },
  ];
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
  const postgres = [Number((await readFile(join(base, "compute", "pgdata", "postmaster.pid"), "utf8")).split("\n")[0])];
  const writers = safekeepers.map(({ pid }) => pid);
  return { name: "strata", port: compute.pgPort, processes: { postgres, safekeepers: writers }, writers };
}

async function startSafekeeper(directory: string, nodeId: number): Promise<{ host: string; port: number; pid: number }> {
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
    if (await fetch(`http://127.0.0.1:${httpPort}/v1/status`).then((answer) => answer.ok, () => false)) return { host: "127.0.0.1", port, pid: child.pid };
    await Bun.sleep(30);
  }
  throw new Error(`safekeeper ${nodeId} does not start: ${await Bun.file(`${directory}.log`).text()}`);
}

async function pgbench(contestant: Contestant, clients: number): Promise<Run> {
  const threads = String(Math.min(clients, 2));
  const { processes, writers } = contestant;
  const names = Object.keys(processes);
  const before = names.map((name) => cpuTimeMs(processes[name]));
  const ownBefore = process.cpuUsage();
  const activityBefore = activityOf(writers[0]);
  const command = [join(TOOLS, "pgbench"), "-N", "-n", "-M", "prepared", "-c", String(clients), "-j", threads, "-T", args.seconds, ...connection(contestant.port), "postgres"];
  const { out, cpuUs } = await tool(command, contestant.environment);
  const transactions = Number(/actually processed: (\d+)/.exec(out)?.[1]);
  const own = process.cpuUsage(ownBefore);
  const activity = activityOf(writers[0]);
  const spent = names.map((name, index): [string, number] => [name, ((cpuTimeMs(processes[name]) - before[index]) * 1000) / transactions]);
  return {
    tps: Number(/tps = ([\d.]+)/.exec(out)?.[1]),
    latencyMs: Number(/latency average = ([\d.]+) ms/.exec(out)?.[1]),
    // The compute's proposer runs in this process.
    cpuUs: { pgbench: cpuUs / transactions, proposer: (own.user + own.system) / transactions, ...Object.fromEntries(spent) },
    writes: (activity.writes - activityBefore.writes) / transactions,
    sleeps: (activity.sleeps - activityBefore.sleeps) / transactions,
  };
}

function whereItGoes(runs: readonly Run[]): string {
  const parts = Object.keys(runs[0].cpuUs).map((name) => `${name} ${median(runs.map((run) => run.cpuUs[name])).toFixed(0)}`);
  const total = median(runs.map((run) => Object.values(run.cpuUs).reduce((sum, us) => sum + us, 0)));
  return `${total.toFixed(0)} µs of CPU (${parts.join(", ")}); a writer: ${median(runs.map((run) => run.writes)).toFixed(2)} writes, ${median(runs.map((run) => run.sleeps)).toFixed(2)} sleeps`;
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
  const [opponent, ceiling] = await startOpponent(base, binaries);
  const contestants = [opponent, await startOurs(base, binaries)];
  for (const { port } of contestants) await tool([join(TOOLS, "pgbench"), "-i", "-q", "-s", args.scale, ...connection(port), "postgres"]);
  console.log(`pgbench -N, scale ${args.scale}, ${args.seconds} s a run, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  for (const clients of args.clients.split(",").map(Number)) await compare(contestants, ceiling, clients);
}

async function compare(contestants: readonly Contestant[], ceiling: Contestant, clients: number): Promise<void> {
  const runs = contestants.map((): Run[] => []);
  const unbound: Run[] = [];
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const [index, contestant] of contestants.entries()) runs[index].push(await pgbench(contestant, clients));
    unbound.push(await pgbench(ceiling, clients));
  }
  const tps = runs.map((all) => median(all.map((run) => run.tps)));
  const latency = runs.map((all) => median(all.map((run) => run.latencyMs)));
  for (const [index, { name }] of contestants.entries()) {
    console.log(`${clients} clients  ${name.padEnd(14)} ${tps[index].toFixed(0)} tps, ${latency[index].toFixed(2)} ms   (tps: ${runs[index].map((run) => run.tps.toFixed(0)).join(" ")})`);
    console.log(`${clients} clients  ${"".padEnd(14)} a transaction: ${whereItGoes(runs[index])}`);
  }
  console.log(`${clients} clients  ${ceiling.name.padEnd(14)} ${median(unbound.map((run) => run.tps)).toFixed(0)} tps; ${whereItGoes(unbound)}`);
  const cpu = runs.map((all) => median(all.map((run) => Object.values(run.cpuUs).reduce((sum, us) => sum + us, 0))));
  console.log(`${clients} clients  ratio: ${(tps[1] / tps[0]).toFixed(2)}× tps, ${(latency[1] / latency[0]).toFixed(2)}× latency, ${(cpu[1] / cpu[0]).toFixed(2)}× CPU; load average ${loadavg()[0].toFixed(1)}`);
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup().catch((error: unknown) => console.error(error));
}
process.exit(0);
