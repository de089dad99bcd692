/**
 * A whole cluster for tests and proofs: the roles and command lines of `strata dev`, each a child process, but with nobody who
 * starts again what ended: that is up to the test. With `powerLoss` safekeepers, pageserver and object store keep a
 * shadow of what is durable, and `losePower` takes away what is not.
 */
import { mkdirSync, mkdtempSync, chmodSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BranchMaker } from "../../src/cli/dev/branches.ts";
import { type Cluster, layout, MAIN_BRANCH } from "../../src/cli/dev/cluster-file.ts";
import { brokerArgs, computeArgs, controllerArgs, pageserverArgs, type RoleArgs, safekeeperArgs, writePageserverConfig } from "../../src/cli/dev/role-specs.ts";
import { ControllerClient } from "../../src/controller/api/client.ts";
import { parseLsn } from "../../src/kit/lsn.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { losePower, type PowerLoss } from "../../src/platform/power-loss/lose-power.ts";
import { ROOTS_VARIABLE, SHADOW_VARIABLE } from "../../src/platform/power-loss/from-environment.ts";
import { signalProcess } from "../../src/platform/processes.ts";
import type { Random } from "../../src/platform/random.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { RoleProcess, type RoleProcessOptions } from "./role-process.ts";

export interface TestClusterOptions {
  readonly pgVersion: Cluster["pgVersion"];
  /** Program before the arguments; default: these sources. */
  readonly program?: readonly string[];
  /** Lines of every endpoint's postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly pageserverConfig?: string;
  readonly powerLoss?: boolean;
  /** Of every role: for options that have no other way in. */
  readonly environment?: Readonly<Record<string, string>>;
  /** The last safekeeper is down from before the first branch is made. */
  readonly oneSafekeeperDown?: boolean;
}

const MAIN = join(import.meta.dir, "../../src/main.ts");
const HOST = "127.0.0.1";
const SAFEKEEPERS = 3;
/** Generous: the machine may be busy with other tests. */
const READY_TIMEOUT_MS = 120_000;
const COMPUTE_STARTS_MAX = 5;

const platform = realPlatform();

export class TestCluster {
  /** Everything is below it. */
  readonly directory: string;
  readonly cluster: Cluster;
  readonly broker: RoleProcess;
  readonly safekeepers: readonly RoleProcess[];
  readonly controller: RoleProcess;
  readonly pageserver: RoleProcess;
  readonly compute: RoleProcess;
  readonly #options: TestClusterOptions;
  /** Processes that a killed role left behind. */
  #orphans: number[] = [];

  private constructor(options: TestClusterOptions, directory: string) {
    this.#options = options;
    this.directory = directory;
    this.cluster = newCluster(options);
    const { ports } = this.cluster;
    this.broker = this.#role(brokerArgs(this.cluster), ports.broker, { path: "/status" });
    this.safekeepers = safekeeperArgs(this.cluster, directory).map((args, index) => this.#role(args, ports.safekeepers[index].http, { path: "/v1/status" }));
    this.controller = this.#role(controllerArgs(this.cluster, directory), ports.controller, { path: "/ready" });
    this.pageserver = this.#role(pageserverArgs(directory), ports.pageserver.http, { path: "/v1/status" });
    const [endpoint] = this.cluster.endpoints;
    const [branch] = this.cluster.branches;
    this.compute = this.#role(computeArgs(this.cluster, directory, { endpoint, branch }), endpoint.httpPort, { path: "/v1/compute/status", accept: isRunning });
  }

  /** Starts all roles, makes tenant and branch `main`, starts its compute. Call `destroy` in the end, also when this throws no cluster back. */
  static async start(options: TestClusterOptions): Promise<TestCluster> {
    const directory = mkdtempSync(join(tmpdir(), "strata-cluster-"));
    chmodSync(directory, 0o755);
    const cluster = new TestCluster(options, directory);
    try {
      for (const root of cluster.roots) mkdirSync(root, { recursive: true });
      await cluster.startStorage();
      if (options.oneSafekeeperDown === true) await cluster.kill(cluster.safekeepers[SAFEKEEPERS - 1]);
      await cluster.#makeFirstBranch();
      await cluster.startCompute();
      return cluster;
    } catch (error) {
      await cluster.destroy();
      throw error;
    }
  }

  /** Directories whose unsynced changes a loss of power takes away. */
  get roots(): string[] {
    const paths = layout(this.directory);
    return [...this.safekeeperDirectories, paths.pageserver, join(paths.objectStore, "pageserver")];
  }

  get safekeeperDirectories(): string[] {
    return Array.from({ length: SAFEKEEPERS }, (_, index) => layout(this.directory).safekeeper(index + 1));
  }

  get pageserverDirectory(): string {
    return layout(this.directory).pageserver;
  }

  get computeDirectory(): string {
    return layout(this.directory).endpoint(MAIN_BRANCH);
  }

  get roles(): readonly RoleProcess[] {
    return [this.broker, ...this.safekeepers, this.controller, this.pageserver, this.compute];
  }

  /** All but the compute: what is down is started. */
  async startStorage(): Promise<void> {
    await writePageserverConfig(platform.files, this.cluster, { directory: this.directory, extra: this.#options.pageserverConfig ?? "" });
    for (const role of [this.broker, ...this.safekeepers, this.controller]) role.start();
    await this.controller.waitReady(READY_TIMEOUT_MS);
    this.pageserver.start();
    await Promise.all(this.roles.filter((role) => role !== this.compute).map((role) => role.waitReady(READY_TIMEOUT_MS)));
  }

  /** Until it accepts connections; started again a few times, as its supervisor would, when it cannot start. */
  async startCompute(): Promise<void> {
    for (let tries = 1; ; tries++) {
      this.compute.start();
      try {
        return await this.compute.waitReady(READY_TIMEOUT_MS);
      } catch (error) {
        await this.compute.killTree();
        if (tries >= COMPUTE_STARTS_MAX) throw error;
      }
    }
  }

  /** kill -9. @param options.alone leaves the processes it started running until `endOrphans` */
  async kill(role: RoleProcess, options: { alone: boolean } = { alone: false }): Promise<void> {
    if (!options.alone) return role.killTree();
    this.#orphans.push(...(await role.descendants()));
    await role.kill();
  }

  endOrphans(): void {
    for (const pid of this.#orphans.splice(0)) signalProcess(pid, "SIGKILL");
  }

  async killAll(): Promise<void> {
    this.endOrphans();
    await Promise.all(this.roles.map((role) => role.killTree()));
  }

  /** Takes the unsynced away from the directories of a role that has been killed; without one, from all. */
  losePower(random: Random, role?: RoleProcess): PowerLoss {
    const index = this.safekeepers.findIndex((one) => one === role);
    const roots = role === undefined ? this.roots : role === this.pageserver ? this.roots.slice(SAFEKEEPERS) : index >= 0 ? [this.roots[index]] : [];
    const losses = roots.map((root) => losePower({ root, shadowDirectory: this.#shadowDirectory, random }));
    const sum = (of: (loss: PowerLoss) => number): number => losses.reduce((total, loss) => total + of(loss), 0);
    return { lostNameChanges: sum((loss) => loss.lostNameChanges), lostSectors: sum((loss) => loss.lostSectors), keptSectors: sum((loss) => loss.keptSectors) };
  }

  /** Flush and commit position as the safekeeper says; null when it is down or does not know the timeline. */
  async safekeeperPositions(index: number): Promise<{ flushLsn: number; commitLsn: number } | null> {
    const { cluster } = this;
    const url = `http://${HOST}:${cluster.ports.safekeepers[index].http}/v1/tenant/${cluster.tenantId}/timeline/${cluster.branches[0].timelineId}`;
    const reply = await fetch(url, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
    if (reply?.ok !== true) return null;
    const { flush_lsn, commit_lsn } = (await reply.json()) as { flush_lsn: string; commit_lsn: string };
    return { flushLsn: parseLsn(flush_lsn), commitLsn: parseLsn(commit_lsn) };
  }

  /** What an operator does for a safekeeper whose disk was replaced: has it copy the timeline from the others. */
  async pullTimeline(index: number): Promise<void> {
    const { ports, tenantId, branches } = this.cluster;
    const urls = ports.safekeepers.map(({ http }) => `http://${HOST}:${http}`);
    const body = JSON.stringify({ tenant_id: tenantId, timeline_id: branches[0].timelineId, http_hosts: urls.filter((_, other) => other !== index) });
    const reply = await fetch(`${urls[index]}/v1/pull_timeline`, { method: "POST", body, headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(60_000) });
    if (!reply.ok) throw new Error(`pull_timeline: ${reply.status} ${await reply.text()}`);
  }

  /** Everything the pageserver has, to layers and to the bucket. */
  async pageserverCheckpoint(): Promise<void> {
    const { cluster } = this;
    const url = `http://${HOST}:${cluster.ports.pageserver.http}/v1/tenant/${cluster.tenantId}/timeline/${cluster.branches[0].timelineId}/checkpoint`;
    const reply = await fetch(url, { method: "PUT", signal: AbortSignal.timeout(60_000) });
    if (!reply.ok) throw new Error(`checkpoint of the pageserver: ${reply.status} ${await reply.text()}`);
  }

  get pgPort(): number {
    return this.cluster.endpoints[0].pgPort;
  }

  /** Kills all that is left and removes everything. */
  async destroy(): Promise<void> {
    await this.killAll();
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #makeFirstBranch(): Promise<void> {
    const controller = new ControllerClient({ baseUrl: `http://${HOST}:${this.cluster.ports.controller}`, clock: platform.clock });
    const maker = new BranchMaker({ cluster: this.cluster, controller, platform, log: new RecordingLogger() });
    await maker.ensureTenant();
    await maker.make(this.cluster.branches[0], null);
  }

  get #shadowDirectory(): string {
    return join(this.directory, "shadow");
  }

  #role(args: RoleArgs, port: number, ready: Pick<RoleProcessOptions, "accept"> & { readonly path: string }): RoleProcess {
    const shadow = { [SHADOW_VARIABLE]: this.#shadowDirectory, [ROOTS_VARIABLE]: this.roots.join(":") };
    return new RoleProcess({
      name: args.name,
      command: [...(this.#options.program ?? [process.execPath, MAIN]), ...args.args],
      environment: { ...this.#options.environment, ...(this.#options.powerLoss === true ? shadow : {}) },
      logPath: join(this.directory, `${args.name}.log`),
      readyUrl: `http://${HOST}:${port}${ready.path}`,
      ...(ready.accept === undefined ? {} : { accept: ready.accept }),
    });
  }
}

function newCluster(options: TestClusterOptions): Cluster {
  const id = (): string => platform.random.bytes(16).toHex();
  return {
    version: 1,
    pgVersion: options.pgVersion,
    pgBinDir: null,
    databaseUrl: null,
    settings: { ...options.settings },
    tenantId: id(),
    ports: {
      control: freePort(),
      broker: freePort(),
      controller: freePort(),
      pageserver: { pg: freePort(), http: freePort() },
      safekeepers: Array.from({ length: SAFEKEEPERS }, () => ({ pg: freePort(), http: freePort() })),
    },
    branches: [{ name: MAIN_BRANCH, timelineId: id(), parent: null, lsn: null }],
    pendingBranches: [],
    endpoints: [{ name: MAIN_BRANCH, branch: MAIN_BRANCH, pgPort: freePort(), httpPort: freePort(), wanted: true, replica: false }],
  };
}

async function isRunning(reply: Response): Promise<boolean> {
  const status = (await reply.json().catch(() => null)) as { status?: unknown } | null;
  return reply.ok && status?.status === "running";
}
