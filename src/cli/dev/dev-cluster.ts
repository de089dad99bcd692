/**
 * A whole cluster on one machine: starts every role in the order in which they need each other, makes the tenant and its
 * first branch, keeps the endpoints that are wanted running, and stops all of it in the reverse order.
 */
import { ControllerClient } from "../../controller/api/client.ts";
import { Cancelled, StrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import { freePort } from "../../platform/free-port.ts";
import type { Platform } from "../../platform/platform.ts";
import { BranchMaker } from "./branches.ts";
import { Child } from "./child.ts";
import { type Branch, checkName, type Cluster, type Endpoint, findBranch, layout, MAIN_BRANCH, saveCluster } from "./cluster-file.ts";
import { asProcess, inThisProcess } from "./launchers.ts";
import { waitReady } from "./readiness.ts";
import { brokerArgs, computeArgs, controllerArgs, pageserverArgs, type RoleArgs, safekeeperArgs, writePageserverConfig } from "./role-specs.ts";

const HOST = "127.0.0.1";
const ROLE_TIMEOUT_MS = 60_000;
/** Materializing a data directory takes its time with its size. */
const ENDPOINT_TIMEOUT_MS = 600_000;

export interface DevClusterOptions {
  readonly directory: string;
  readonly cluster: Cluster;
  /** How to start a role as a process; null: roles run inside this one. */
  readonly program: readonly string[] | null;
  readonly platform: Platform;
  readonly log: Logger;
  /** One line a step, for the person who waits. */
  readonly progress: (line: string) => void;
  readonly onLine: (name: string, line: string) => void;
  /** Added to pageserver.toml. */
  readonly pageserverConfig: string;
}

export class DevCluster {
  readonly cluster: Cluster;
  readonly controller: ControllerClient;
  readonly #options: DevClusterOptions;
  readonly #roles: Child[] = [];
  readonly #endpoints = new Map<string, Child>();
  readonly #branches: BranchMaker;
  #stopping = false;

  constructor(options: DevClusterOptions) {
    this.#options = options;
    this.cluster = options.cluster;
    this.controller = new ControllerClient({ baseUrl: `http://${HOST}:${options.cluster.ports.controller}`, clock: options.platform.clock });
    this.#branches = new BranchMaker({ cluster: options.cluster, controller: this.controller, platform: options.platform, log: options.log });
  }

  async start(): Promise<void> {
    const { cluster, directory, platform, progress, pageserverConfig } = this.#options;
    progress(`starting broker, ${cluster.ports.safekeepers.length} safekeepers, controller and pageserver`);
    await writePageserverConfig(platform.files, cluster, { directory, extra: pageserverConfig });
    for (const role of ["pageserver", "safekeeper"]) await platform.files.makeDirectory(`${layout(directory).objectStore}/${role}`);
    const broker = this.#launch(brokerArgs(cluster));
    const safekeepers = safekeeperArgs(cluster, directory).map((role) => this.#launch(role));
    const controller = this.#launch(controllerArgs(cluster, directory));
    await this.#waitHttp(controller, cluster.ports.controller, "/ready");
    const pageserver = this.#launch(pageserverArgs(directory));
    await this.#waitHttp(broker, cluster.ports.broker, "/status");
    await Promise.all(safekeepers.map((child, index) => this.#waitHttp(child, cluster.ports.safekeepers[index]?.http ?? 0, "/v1/status")));
    await this.#waitHttp(pageserver, cluster.ports.pageserver.http, "/v1/status");
    await this.#makeFirstBranch();
    // Replicas behind their primaries, which settle what is committed.
    for (const replica of [false, true]) {
      await Promise.all(cluster.endpoints.filter((endpoint) => endpoint.wanted && endpoint.replica === replica).map((endpoint) => this.#startEndpoint(endpoint)));
    }
  }

  #child(role: RoleArgs): Child {
    const { platform, log, program, onLine } = this.#options;
    const launch = program === null ? inThisProcess(role.args, platform) : asProcess(program, role.args, platform);
    return new Child({ name: role.name, launch, onLine }, { clock: platform.clock, log });
  }

  /** @throws Cancelled when the cluster is being stopped: what begins now would be left behind */
  #launch(role: RoleArgs): Child {
    this.#assertRunning();
    const child = this.#child(role);
    this.#roles.push(child);
    child.start();
    return child;
  }

  #waitHttp(child: Child, port: number, path: string): Promise<void> {
    return waitReady(child, { url: `http://${HOST}:${port}${path}`, clock: this.#options.platform.clock, timeoutMs: ROLE_TIMEOUT_MS });
  }

  async #makeFirstBranch(): Promise<void> {
    const { cluster, progress } = this.#options;
    if (cluster.branches.length === 0) {
      progress(`creating tenant ${cluster.tenantId} and branch ${MAIN_BRANCH} (initdb of PostgreSQL ${cluster.pgVersion})`);
      if (cluster.pendingBranches.length === 0) await this.#setPending([this.#branches.planFirst(MAIN_BRANCH)]);
    }
    // Asked for again after every start: it costs nothing when it is there, and heals a first start cut short.
    await this.#branches.ensureTenant();
    for (const branch of [...cluster.pendingBranches]) await this.#finishPending(branch);
    if (cluster.endpoints.length > 0) return;
    cluster.endpoints.push(this.#newEndpoint(MAIN_BRANCH, MAIN_BRANCH));
    await this.#save();
  }

  /** A branch that an earlier run was making: made, or given up when it cannot be. */
  async #finishPending(branch: Branch): Promise<void> {
    try {
      await this.#makePending(branch);
    } catch (error) {
      if (branch.parent === null) throw error;
      this.#options.log.warn("a branch of an earlier run could not be made and is given up", { branch: branch.name, error });
    }
  }

  async #setPending(pending: Branch[]): Promise<void> {
    this.cluster.pendingBranches = pending;
    await this.#save();
  }

  /** Makes a branch that is written down as pending. When it is refused it is forgotten again. */
  async #makePending(branch: Branch): Promise<void> {
    const { cluster } = this;
    const without = (): Branch[] => cluster.pendingBranches.filter((one) => one !== branch);
    try {
      await this.#branches.make(branch, branch.parent === null ? null : findBranch(cluster, branch.parent));
    } catch (error) {
      if (branch.parent !== null) await this.#setPending(without());
      throw error;
    }
    cluster.branches.push(branch);
    await this.#setPending(without());
  }

  #newEndpoint(name: string, branch: string, replica = false): Endpoint {
    return { name, branch, pgPort: freePort(), httpPort: freePort(), wanted: true, replica };
  }

  #save(): Promise<void> {
    return saveCluster(this.#options.platform.files, this.#options.directory, this.cluster);
  }

  /** @throws StrataError conflict `branch-exists`, not-found `branch-not-found`, and what the pageserver refuses */
  async createBranch(request: { name: string; from: string; at: string }): Promise<Branch> {
    const name = checkName(request.name);
    const { branches, pendingBranches } = this.cluster;
    if ([...branches, ...pendingBranches].some((branch) => branch.name === name)) throw new StrataError("conflict", "branch-exists", `branch "${name}" exists already`);
    const branch = await this.#branches.plan({ name, parent: findBranch(this.cluster, request.from), at: request.at });
    await this.#setPending([...this.cluster.pendingBranches, branch]);
    await this.#makePending(branch);
    return branch;
  }

  /** Starts the endpoint, making it on the branch of the same name (or the one given) when there is none yet. */
  async startEndpoint(request: { name: string; branch: string | null; replica: boolean }): Promise<Endpoint> {
    const name = checkName(request.name);
    let endpoint = this.cluster.endpoints.find((one) => one.name === name);
    if (endpoint === undefined) {
      endpoint = this.#planEndpoint({ ...request, name });
      this.cluster.endpoints.push(endpoint);
    } else if (request.branch !== null && request.branch !== endpoint.branch) {
      throw new StrataError("conflict", "endpoint-exists", `endpoint "${name}" is on branch "${endpoint.branch}"`);
    } else if (request.replica && !endpoint.replica) {
      throw new StrataError("conflict", "endpoint-exists", `endpoint "${name}" is a primary`);
    }
    endpoint.wanted = true;
    await this.#save();
    await this.#startEndpoint(endpoint);
    return endpoint;
  }

  #planEndpoint({ name, branch, replica }: { name: string; branch: string | null; replica: boolean }): Endpoint {
    const on = findBranch(this.cluster, branch ?? name).name;
    const writer = this.cluster.endpoints.find((one) => one.branch === on && !one.replica);
    if (!replica && writer !== undefined) throw new StrataError("conflict", "branch-has-endpoint", `branch "${on}" has the endpoint "${writer.name}": a second primary would fence it`);
    return this.#newEndpoint(name, on, replica);
  }

  async #startEndpoint(endpoint: Endpoint): Promise<void> {
    const { platform, directory, progress } = this.#options;
    this.#assertRunning();
    let child = this.#endpoints.get(endpoint.name);
    if (child === undefined) {
      progress(`starting ${endpoint.replica ? "replica" : "endpoint"} ${endpoint.name} on branch ${endpoint.branch}`);
      const role = computeArgs(this.cluster, directory, { endpoint, branch: findBranch(this.cluster, endpoint.branch) });
      child = this.#child(role);
      this.#endpoints.set(endpoint.name, child);
      child.start();
    }
    try {
      await waitReady(child, { url: `http://${HOST}:${endpoint.httpPort}/v1/compute/status`, clock: platform.clock, timeoutMs: ENDPOINT_TIMEOUT_MS, accept: isRunning });
    } catch (error) {
      this.#endpoints.delete(endpoint.name);
      await child.stop();
      throw error;
    }
  }

  async stopEndpoint(name: string): Promise<void> {
    const endpoint = this.findEndpoint(name);
    endpoint.wanted = false;
    await this.#save();
    const child = this.#endpoints.get(name);
    this.#endpoints.delete(name);
    await child?.stop();
  }

  /** @throws StrataError not-found `endpoint-not-found` */
  findEndpoint(name: string): Endpoint {
    const endpoint = this.cluster.endpoints.find((one) => one.name === name);
    if (endpoint === undefined) throw new StrataError("not-found", "endpoint-not-found", `there is no endpoint "${name}"`);
    return endpoint;
  }

  /** Process ids by name, our own for roles inside this process; null for what is not running now. */
  processes(): Record<string, number | null> {
    const children = [...this.#roles, ...this.#endpoints.values()];
    return Object.fromEntries(children.map((child) => [child.spec.name, child.isRunning ? (child.pid ?? process.pid) : null]));
  }

  #assertRunning(): void {
    if (this.#stopping) throw new Cancelled("the cluster is being stopped");
  }

  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    await Promise.all([...this.#endpoints.values()].map((child) => child.stop()));
    for (const child of this.#roles.toReversed()) await child.stop();
  }
}

async function isRunning(reply: Response): Promise<boolean> {
  if (!reply.ok) return false;
  const status = (await reply.json().catch(() => null)) as { status?: unknown } | null;
  return status?.status === "running";
}

/** postgres:// URL of an endpoint. */
export function endpointUrl(endpoint: Endpoint): string {
  return `postgres://postgres@${HOST}:${endpoint.pgPort}/postgres`;
}
