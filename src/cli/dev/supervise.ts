/** `strata dev`: runs the cluster in the foreground until it is told to stop. */
import { createWriteStream } from "node:fs";
import { resolve } from "node:path";
import { createHttpApp } from "../../http/app.ts";
import { serveHttp } from "../../http/serve.ts";
import { StrataError } from "../../kit/errors.ts";
import { versionLine } from "../../kit/version.ts";
import { createLogger, type Logger } from "../../observability/log.ts";
import { Metrics } from "../../observability/metrics.ts";
import { freePort } from "../../platform/free-port.ts";
import { signalProcess } from "../../platform/processes.ts";
import type { Platform } from "../../platform/platform.ts";
import type { OptionValues } from "../options/option-table.ts";
import { type Cluster, layout, loadCluster, MAIN_BRANCH, saveCluster } from "./cluster-file.ts";
import { addControlRoutes } from "./control-api.ts";
import { DevCluster, endpointUrl } from "./dev-cluster.ts";
import type { START_OPTIONS } from "./dev-options.ts";
import { ownProgram } from "./launchers.ts";
import { isRunning, processesWithArgument } from "./process-tree.ts";

const LEFTOVER_GRACE_MS = 5_000;
const LEFTOVER_POLL_MS = 50;

function newCluster(values: OptionValues<typeof START_OPTIONS>, platform: Platform): Cluster {
  return {
    version: 1,
    pgVersion: values.pgVersion,
    pgBinDir: values.pgBinDir === null ? null : resolve(values.pgBinDir),
    databaseUrl: values.databaseUrl,
    settings: Object.fromEntries(values.setting),
    tenantId: platform.random.bytes(16).toHex(),
    ports: {
      control: freePort(),
      broker: freePort(),
      controller: freePort(),
      pageserver: { pg: freePort(), http: freePort() },
      safekeepers: Array.from({ length: values.safekeepers }, () => ({ pg: freePort(), http: freePort() })),
    },
    branches: [],
    pendingBranches: [],
    endpoints: [],
  };
}

/** The cluster in the directory, made anew where there is none. */
async function openCluster(directory: string, values: OptionValues<typeof START_OPTIONS>, platform: Platform): Promise<Cluster> {
  const existing = await loadCluster(platform.files, directory);
  if (existing !== null) return existing;
  const cluster = newCluster(values, platform);
  await saveCluster(platform.files, directory, cluster);
  return cluster;
}

/** Roles of a supervisor that was killed end by themselves once they notice; those that do not are helped. */
async function endLeftovers(directory: string, platform: Platform, log: Logger): Promise<void> {
  const deadlineMs = platform.clock.monotonicMs() + LEFTOVER_GRACE_MS;
  const roots = [layout(directory).controller, layout(directory).pageserver, layout(directory).endpoint("").replace(/\/$/, ""), ...[1, 2, 3, 4, 5, 6, 7].map(layout(directory).safekeeper)];
  for (let round = 0; ; round++) {
    const left = (await Promise.all(roots.map(processesWithArgument))).flat();
    if (left.length === 0) return;
    if (round === 0) log.info("processes of an earlier run are still there, waiting for their end", { pids: left });
    if (platform.clock.monotonicMs() > deadlineMs) for (const pid of left) signalProcess(pid, "SIGKILL");
    if (platform.clock.monotonicMs() > 2 * LEFTOVER_GRACE_MS + deadlineMs) throw new StrataError("conflict", "leftover-processes", `processes ${left.join(", ")} of an earlier run do not end`);
    await platform.clock.sleep(LEFTOVER_POLL_MS);
  }
}

async function writePid(platform: Platform, path: string): Promise<void> {
  const file = await platform.files.open(path, "truncate");
  await file.write(new TextEncoder().encode(`${process.pid}\n`), 0);
  await file.close();
}

/** Aborts on a signal that asks to stop, or when the parent that started us is gone and wants that. */
function stopSignal(): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const stop = (): void => controller.abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return { signal: controller.signal, stop };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => (signal.aborted ? done() : signal.addEventListener("abort", () => done(), { once: true })));
}

/** @returns the exit code */
export async function supervise(values: OptionValues<typeof START_OPTIONS>, platform: Platform): Promise<number> {
  const directory = resolve(values.dir);
  const paths = layout(directory);
  await platform.files.makeDirectory(directory);
  const lock = await platform.files.lock(paths.lockFile);
  const logFile = createWriteStream(paths.logFile, { flags: "a" });
  const onLine = (name: string, line: string): void => void logFile.write(`[${name}] ${line}\n`);
  const log = createLogger({ role: "dev", level: "info", format: "pretty", write: (line) => onLine("dev", line.trimEnd()) });
  const progress = (line: string): void => console.log(line);
  const { signal, stop } = stopSignal();
  await endLeftovers(directory, platform, log);
  const cluster = await openCluster(directory, values, platform);
  await writePid(platform, paths.pidFile);
  const dev = new DevCluster({ directory, cluster, program: values.singleProcess ? null : ownProgram(), platform, log, progress, onLine, pageserverConfig: values.pageserverConfig });
  let ready = false;
  const app = createHttpApp({ role: "dev", log, auth: null, metrics: new Metrics(), version: versionLine("dev"), clock: platform.clock, random: platform.random });
  addControlRoutes(app, dev, { ready: () => ready, stop });
  const http = serveHttp(app, { host: "127.0.0.1", port: cluster.ports.control });
  try {
    await Promise.race([dev.start(), aborted(signal)]);
    ready = true;
    if (!signal.aborted) announce(dev, progress);
    await aborted(signal);
    progress("stopping");
    return 0;
  } finally {
    await dev.stop();
    await http.stop();
    await platform.files.remove(paths.pidFile).catch(() => undefined);
    await lock.release();
    logFile.end();
  }
}

function announce(dev: DevCluster, progress: (line: string) => void): void {
  for (const endpoint of dev.cluster.endpoints.filter((one) => one.wanted)) progress(`${endpoint.name}: ${endpointUrl(endpoint)}`);
  progress(`ready: connect with psql, or: strata dev sql ${MAIN_BRANCH} -c "select version()"`);
}

/** The supervisor's process id, null when none runs. */
export async function supervisorPid(platform: Platform, directory: string): Promise<number | null> {
  const path = layout(directory).pidFile;
  if (!(await platform.files.exists(path))) return null;
  const pid = Number(new TextDecoder().decode(await platform.files.readFile(path)));
  return Number.isInteger(pid) && pid > 1 && (await isRunning(pid)) ? pid : null;
}
