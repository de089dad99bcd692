/**
 * The pageserver role: made of, in start order, the locked working directory, object storage, what the control plane
 * says is attached, the deletion queue, the tenants, the page service, the HTTP application. It stops in reverse.
 *
 * HTTP listens before tenants are loaded, so that the controller sees the node at once; requests to a tenant that is
 * still being loaded wait for it.
 */
import { describeError, StrataError } from "../kit/errors.ts";
import { Failpoints } from "../kit/failpoints.ts";
import { type BrokerClient, connectBroker } from "../broker/api/client.ts";
import type { JwtAuth } from "../http/auth.ts";
import { type Certificate, loadAuthorities } from "../http/certificate.ts";
import { Credentials, currentOf } from "../http/credentials.ts";
import { serveHttpAndHttps } from "../http/serve.ts";
import type { Logger } from "../observability/log.ts";
import { Metrics } from "../observability/metrics.ts";
import { makeDurableDirectory } from "../platform/durable-directory.ts";
import type { JobThreads } from "../platform/job-threads.ts";
import type { Platform } from "../platform/platform.ts";
import { signalProcess } from "../platform/processes.ts";
import { diskSpace } from "../platform/real/disk-space.ts";
import { measured, openRemoteStorage } from "../remote-storage/open-remote-storage.ts";
import type { Environment } from "../remote-storage/parse-config.ts";
import type { RemoteStorage } from "../remote-storage/remote-storage.ts";
import { type PgTls, pgTls } from "../wire/client-tls.ts";
import { listenPg } from "../wire/listen.ts";
import { isAttached, type LocationConfig } from "./api/location.ts";
import { type BackgroundTask, BackgroundTasks } from "./background-tasks.ts";
import { ConsumptionMetrics } from "./consumption/consumption-metrics.ts";
import { Eviction } from "./eviction/eviction.ts";
import { EvictionMetrics } from "./eviction/eviction-metrics.ts";
import { loadPageserverConfig, type PageserverConfig } from "./config.ts";
import { ControlPlane, trustLocalGenerations } from "./control-plane.ts";
import { sweepImportDirectories } from "./import/import-directory.ts";
import { Imports } from "./import/imports.ts";
import { utilization } from "./http/node-routes.ts";
import { pageserverHttpApp } from "./http/routes.ts";
import { watchCaches } from "./cache-metrics.ts";
import { BlockCache } from "./layers/block-cache.ts";
import { JobsHere, JobsOnThreads, LayerJobs } from "./layer-jobs/layer-jobs.ts";
import { LayerMemory } from "./layers/layer-memory.ts";
import { OpenLayerFiles } from "./layers/open-layer-files.ts";
import { PageCache } from "./layers/page-cache.ts";
import { planMemory } from "./memory-plan.ts";
import { MemoryWatch, type ProcessMemory } from "./memory-watch.ts";
import { countedFiles } from "./counts/io-counts.ts";
import { StorageCounts } from "./counts/storage-counts.ts";
import { registerStorageMetrics } from "./metrics.ts";
import { PageService } from "./page-service/page-service.ts";
import { watchDeletions } from "./remote-timeline/deletion-metrics.ts";
import { DeletionQueue, type ValidateGenerations } from "./remote-timeline/deletion-queue.ts";
import { readLocalLocations } from "./tenant/location-file.ts";
import { sizeTasks } from "./size/size-tasks.ts";
import { tenantTasks } from "./tenant/tenant-tasks.ts";
import { registerTenantMetrics } from "./tenant-metrics.ts";
import { Tenants } from "./tenant/tenants.ts";
import type { ThrottleMetrics } from "./tenant/throttle.ts";
import { WorkSlots } from "./timeline/work-slots.ts";

export interface PageserverDeps {
  /** Where secrets of the object storage come from; the process's unless given. */
  readonly environment?: Environment;
  readonly platform: Platform;
  readonly log: Logger;
  readonly version?: string;
  /** See HttpAppOptions. */
  readonly checkReplies?: boolean | undefined;
  /** For what takes the processor long; without them it is done here, in slices. Closed at the end. */
  readonly jobThreads?: JobThreads;
  /** What the process may take; see memory-plan.ts. */
  readonly memoryLimitBytes?: number | null;
  /** Needed for the limit to be kept beyond the budgets it divides into. */
  readonly processMemory?: ProcessMemory;
}

export interface RunningPageserver {
  readonly nodeId: number;
  readonly pgPort: number;
  readonly httpPort: number;
  /** Null without `listen_https_addr`. */
  readonly httpsPort: number | null;
  /** Reads keys and certificate again, now. */
  reload(): Promise<void>;
  /** Everything ingested is in object storage, and the directory is free, when it returns. */
  stop(options?: { readonly flush?: boolean }): Promise<void>;
}

const LOCK_FILE = "pageserver.pid";
const AUDIENCE = "pageserver";
const MEMORY_LOOK_MS = 100;
const FLUSHES_AT_ONCE = 2;
const MAINTENANCE_AT_ONCE = 1;
const DEFAULT_PG_VERSION = 17;

/** From the files in the working directory. Errors as `startPageserver`, and fix-input `bad-config`. */
export async function startPageserverIn(workDirectory: string, deps: PageserverDeps): Promise<RunningPageserver> {
  return await startPageserver(await loadPageserverConfig(deps.platform.files, workDirectory, { environment: deps.environment ?? process.env, log: deps.log }), deps);
}

/** @throws StrataError conflict `directory-locked`, `port-in-use`; fix-input `bad-jwt-key`, … */
export async function startPageserver(config: PageserverConfig, deps: PageserverDeps): Promise<RunningPageserver> {
  const role = new Role(config, deps);
  try {
    const ports = await role.start();
    deps.log.info("pageserver started", { nodeId: config.nodeId, ...ports });
    return { nodeId: config.nodeId, ...ports, reload: () => role.credentials.reload(), stop: (options = {}) => role.stop(options.flush ?? true) };
  } catch (error) {
    await role.stop(false).catch((cause: unknown) => deps.log.warn("cleaning up after a failed start failed too", { error: describeError(cause) }));
    throw error;
  }
}

class Role {
  readonly credentials: Credentials;
  readonly #config: PageserverConfig;
  readonly #deps: PageserverDeps;
  readonly #registry = new Metrics();
  readonly #counts = new StorageCounts();
  readonly #startMs: number;
  readonly #abort = new AbortController();
  readonly #failpoints: Failpoints | null;
  /** Of whom the pageserver asks something. */
  #caPem: string | undefined;
  /** What to end, in the order it began. */
  readonly #undo: ((flush: boolean) => Promise<void>)[] = [];

  constructor(config: PageserverConfig, deps: PageserverDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#startMs = deps.platform.clock.monotonicMs();
    this.credentials = new Credentials({ ...deps, metrics: this.#registry, name: "pageserver", audience: AUDIENCE, reloadPeriodMs: config.tls?.reloadPeriodMs });
    this.#undo.push(() => this.credentials.stop());
    this.#failpoints = config.testingMode ? this.#makeFailpoints() : null;
  }

  async stop(flush: boolean): Promise<void> {
    this.#abort.abort();
    for (let step = this.#undo.pop(); step !== undefined; step = this.#undo.pop()) await step(flush);
  }

  async start(): Promise<{ pgPort: number; httpPort: number; httpsPort: number | null }> {
    const { workDirectory } = this.#config;
    const { platform } = this.#deps;
    const { files } = platform;
    await makeDurableDirectory(files, `${workDirectory}/tenants`);
    const lock = await files.lock(`${workDirectory}/${LOCK_FILE}`);
    this.#undo.push(() => lock.release());
    const swept = await sweepImportDirectories(files, workDirectory);
    if (swept > 0) this.#deps.log.info("what unfinished imports left is removed", { directories: swept });
    const { tenants, deletionQueue } = await this.#makeTenants();
    registerStorageMetrics(this.#registry, this.#counts, platform.clock);
    this.#registry.gaugeFrom({ name: "pageserver_virtual_file_descriptor_cache_size_max", help: "Layer files that may be open" }, () => this.#config.maxOpenFiles);
    this.#registry.gaugeFrom({ name: "pageserver_utilization_score", help: "How full the node is, as told to the storage controller: 1000000 is full" }, () => utilization({ tenants, clock: platform.clock, diskSpace: () => diskSpace(workDirectory), evictionConfig: this.#config.diskUsageEviction }).utilization_score ?? 0);
    this.#phaseEnded("initial");
    registerTenantMetrics(this.#registry, { tenants, counts: this.#counts, clock: platform.clock });
    const eviction = this.#makeEviction(tenants);
    this.#startTasks(tenants, eviction);
    this.#phaseEnded("background_jobs_can_start");
    void tenants.loadedAtStart().then(() => {
      this.#phaseEnded("initial_tenant_load");
      this.#phaseEnded("complete");
    });
    const jwt = await this.#keys();
    const pgPort = await this.#listenPg(tenants, jwt);
    const http = await this.#listenHttp({ tenants, deletionQueue, jwt, eviction });
    return { pgPort, httpPort: http.port, httpsPort: http.httpsPort };
  }

  /** Of the start, for metrics: phases in the peer's words. */
  #phaseEnded(phase: string): void {
    this.#counts.startupSeconds.set(phase, (this.#deps.platform.clock.monotonicMs() - this.#startMs) / 1000);
  }

  async #makeTenants(): Promise<{ tenants: Tenants; deletionQueue: DeletionQueue }> {
    const config = this.#config;
    const { platform, log } = this.#deps;
    if (config.remoteStorage.kind === "local") await makeDurableDirectory(platform.files, config.remoteStorage.directory);
    const remote = measured(await openRemoteStorage(config.remoteStorage, { platform, fetch: systemFetch }), config.remoteStorage.kind, { metrics: this.#registry, clock: platform.clock });
    const caPem = await loadAuthorities(platform.files, config.sslCaFile);
    this.#caPem = caPem;
    const broker = config.brokerEndpoint === null ? null : connectBroker({ endpoint: config.brokerEndpoint, token: config.safekeeperToken ?? undefined, caPem, keepaliveIntervalMs: config.brokerKeepaliveIntervalMs });
    if (broker !== null) this.#undo.push(async () => broker.close());
    const late: { tenants: Tenants | null } = { tenants: null };
    const controlPlane = this.#controlPlane(caPem);
    const validate: ValidateGenerations = controlPlane?.validate ?? trustLocalGenerations(() => late.tenants?.generations() ?? new Map());
    // Only read: nothing is attached before the control plane has spoken.
    const local = await readLocalLocations(this.#deps, config.workDirectory);
    const isEmergency = controlPlane !== null && config.emergencyMode === true;
    if (isEmergency) log.error("emergency mode: tenants are attached under the generations last known here, which others may have by now", { tenants: local.size });
    const locations = controlPlane === null || isEmergency ? local : await this.#reAttach(controlPlane, local);
    const attached = new Map([...locations].flatMap(([id, { generation, mode }]) => (generation === null || !isAttached(mode) ? [] : [[id, generation] as const])));
    const deletionQueue = await DeletionQueue.open({ platform, log, storage: remote, directory: `${config.workDirectory}/deletion`, validate, ...(this.#failpoints === null ? {} : { failpoints: this.#failpoints }) }, attached);
    this.#undo.push(() => deletionQueue.shutdown());
    deletionQueue.start();
    watchDeletions(this.#registry, deletionQueue);
    const tenants = this.#tenants({ remote, deletionQueue, broker, tls: pgTls(config.sslMode ?? "disable", caPem) });
    late.tenants = tenants;
    this.#undo.push((flush) => tenants.shutdown({ flush }));
    await tenants.takeUp(locations);
    return { tenants, deletionQueue };
  }

  #tenants(parts: { remote: RemoteStorage; deletionQueue: DeletionQueue; broker: BrokerClient | null; tls: PgTls | undefined }): Tenants {
    const config = this.#config;
    const { platform, log } = this.#deps;
    const { remote, deletionQueue, broker, tls } = parts;
    const memory = planMemory(this.#deps.memoryLimitBytes ?? null, config);
    const layerMemory = new LayerMemory(memory.layerMemoryBytes);
    this.#watchMemory(layerMemory);
    return new Tenants({
      log,
      workDirectory: config.workDirectory,
      defaults: config.tenantDefaults,
      initdb: config.initdb,
      availabilityZone: config.availabilityZone,
      safekeeperToken: config.safekeeperToken,
      throttleMetrics: this.#throttleMetrics(),
      sizeSlots: new WorkSlots(config.sizeCountsAtOnce ?? 1),
      walSource: broker === null ? null : { broker, tls },
      resources: {
        platform: { ...platform, files: countedFiles(platform.files, { clock: platform.clock, counts: this.#counts.io }) }, remote, deletionQueue, workDirectory: config.workDirectory,
        ...this.#caches(memory.pageCacheBytes),
        openFiles: new OpenLayerFiles({ maxOpen: config.maxOpenFiles }),
        flushSlots: new WorkSlots(FLUSHES_AT_ONCE),
        maintenanceSlots: new WorkSlots(MAINTENANCE_AT_ONCE),
        layerMemory,
        layerJobs: this.#layerJobs(),
        metrics: this.#counts,
        ...(this.#failpoints === null ? {} : { failpoints: this.#failpoints }),
      },
    });
  }

  #throttleMetrics(): ThrottleMetrics {
    const { throttle } = this.#counts;
    return {
      started: () => void throttle.started++,
      finished: (waitedMs) => {
        throttle.finished++;
        if (waitedMs > 0) throttle.throttled++;
        throttle.waitedMs += waitedMs;
      },
    };
  }

  #watchMemory(layers: LayerMemory): void {
    const { memoryLimitBytes: limitBytes = null, processMemory: memory, platform: { clock } } = this.#deps;
    if (limitBytes === null || memory === undefined) return;
    const watch = new MemoryWatch({ limitBytes, memory, layers, clock });
    const again = (): void => {
      if (this.#abort.signal.aborted) return;
      watch.look();
      clock.after(MEMORY_LOOK_MS, again);
    };
    again();
  }

  /** On threads where there are any; they end after the tenants. */
  #layerJobs(): LayerJobs {
    const { platform, jobThreads } = this.#deps;
    if (jobThreads === undefined) return new LayerJobs(new JobsHere(platform), this.#counts);
    this.#undo.push(() => jobThreads.close());
    return new LayerJobs(new JobsOnThreads(jobThreads), this.#counts);
  }

  #makeFailpoints(): Failpoints {
    const { platform: { clock, random }, log } = this.#deps;
    log.warn("testing mode: failpoints may be set over HTTP");
    return new Failpoints({ clock, random, say: (message, fields) => log.info(message, fields), exit: () => signalProcess(process.pid, "SIGKILL") });
  }

  #imports(tenants: Tenants): Imports {
    const { workDirectory } = this.#config;
    return new Imports({ tenants, platform: this.#deps.platform, workDirectory, freeBytes: () => diskSpace(workDirectory).availableBytes });
  }

  #makeEviction(tenants: Tenants): Eviction {
    const { platform: { clock }, log } = this.#deps;
    const { diskUsageEviction: config } = this.#config;
    return new Eviction({ tenants, clock, log, config, diskSpace: () => diskSpace(this.#config.workDirectory), metrics: new EvictionMetrics(this.#registry) });
  }

  #startTasks(tenants: Tenants, eviction: Eviction): void {
    const { platform: { clock }, log } = this.#deps;
    const tasks = new BackgroundTasks({ clock, log, metrics: this.#registry });
    this.#undo.push(() => tasks.stop());
    const { syntheticSizeIntervalMs, consumption } = this.#config;
    const sizes = sizeTasks({ tenants, log, syntheticSizeIntervalMs, isAwaited: consumption != null });
    tasks.start([...eviction.tasks(), ...tenantTasks({ tenants, clock, log }), ...sizes, ...this.#consumptionTasks(tenants)]);
  }

  #consumptionTasks(tenants: Tenants): BackgroundTask[] {
    const { consumption: config, workDirectory, nodeId } = this.#config;
    if (config == null) return [];
    const { platform, log } = this.#deps;
    const { bucket } = config;
    return new ConsumptionMetrics({
      config, workDirectory, nodeId, tenants, platform, log, caPem: this.#caPem, transport: systemFetch, failpoints: this.#failpoints ?? undefined,
      openBucket: bucket === null ? null : () => openRemoteStorage(bucket, { platform, fetch: systemFetch }),
    }).tasks();
  }

  /** page_cache_size is for both: pages, and the blocks of layers they are made of. */
  #caches(sizeBytes: number): { cache: BlockCache; pages: PageCache } {
    const cache = new BlockCache({ capacityBytes: sizeBytes / 2 });
    const pages = new PageCache({ capacityBytes: sizeBytes / 2 });
    watchCaches(this.#registry, { pages, blocks: cache });
    return { cache, pages };
  }

  #controlPlane(caPem: string | undefined): ControlPlane | null {
    const { controlPlaneApi: api, controlPlaneToken: token, nodeId, metadata } = this.#config;
    const { platform, log } = this.#deps;
    return api === null ? null : new ControlPlane({ platform, log, api, token, caPem, nodeId, metadata, failpoints: this.#failpoints ?? undefined });
  }

  /** What the control plane says is ours, with the configuration known here; what it does not name any more is dropped. */
  async #reAttach(controlPlane: ControlPlane, local: ReadonlyMap<string, LocationConfig>): Promise<Map<string, LocationConfig>> {
    const { platform, log } = this.#deps;
    const told = await controlPlane.reAttach(this.#abort.signal);
    const locations = new Map<string, LocationConfig>();
    for (const { id, gen, mode } of told) {
      if (mode === "Detached" || (isAttached(mode) && gen == null)) continue;
      const known = local.get(id) ?? locationOf(id);
      locations.set(id, { ...known, mode, generation: isAttached(mode) ? (gen ?? null) : null });
    }
    for (const id of local.keys()) {
      if (locations.has(id)) continue;
      log.info("a tenant here is no longer ours", { tenant: id });
      await platform.files.removeTree(`${this.#config.workDirectory}/tenants/${id}`);
    }
    return locations;
  }

  async #keys(): Promise<JwtAuth | null> {
    const { pgAuth, httpAuth, authPublicKeyPath } = this.#config;
    if (!(pgAuth || httpAuth)) return null;
    // Tokens asked for and no key to check them by: open to everybody is not what was meant.
    if (authPublicKeyPath === null) throw new StrataError("fix-input", "bad-jwt-key", "authentication by NeonJWT needs auth_validation_public_key_path");
    return await this.credentials.keys(authPublicKeyPath);
  }

  /** @throws StrataError fix-input `certificate-missing`, `bad-certificate` */
  async #certificate(): Promise<Certificate> {
    const { tls } = this.#config;
    if (tls == null) throw new StrataError("fix-input", "certificate-missing", "TLS needs ssl_cert_file and ssl_key_file");
    return await this.credentials.certificate(tls);
  }

  async #listenPg(tenants: Tenants, jwt: JwtAuth | null): Promise<number> {
    const { platform, log } = this.#deps;
    const auth = this.#config.pgAuth ? jwt : null;
    const handler = new PageService({ finder: tenants, clock: platform.clock, log, auth, counts: this.#counts, imports: this.#imports(tenants), failpoints: this.#failpoints ?? undefined });
    // The handler decides on the token, for each command by its tenant.
    const authenticator = auth === null ? null : { authenticate: async ({ password }: { password: string }) => void auth.verify(password) };
    const listener = await listenPg({ address: this.#config.pgAddress, platform, log, auth: authenticator, tls: currentOf(this.#config.tlsPageService === true ? await this.#certificate() : null), session: () => ({ handler }) });
    this.#undo.push(() => listener.close());
    return listener.port;
  }

  async #listenHttp(parts: { tenants: Tenants; deletionQueue: DeletionQueue; jwt: JwtAuth | null; eviction: Eviction }): Promise<{ readonly port: number; readonly httpsPort: number | null }> {
    const { platform, log, version, checkReplies } = this.#deps;
    const { clock, random } = platform;
    const { nodeId, httpAuth, httpAddress, httpsAddress = null } = this.#config;
    const app = pageserverHttpApp({
      role: "pageserver", log, metrics: this.#registry, version: version ?? "0", ...(checkReplies === undefined ? {} : { checkReplies }), clock, random, nodeId, ...parts,
      auth: httpAuth && parts.jwt !== null ? { jwt: parts.jwt } : null,
      defaultPgVersion: DEFAULT_PG_VERSION,
      evictionConfig: this.#config.diskUsageEviction,
      diskSpace: () => diskSpace(this.#config.workDirectory),
      failpoints: this.#failpoints,
      imports: this.#imports(parts.tenants),
    });
    const server = serveHttpAndHttps(app, { http: httpAddress, https: httpsAddress, certificate: httpsAddress === null ? null : await this.#certificate() });
    this.#undo.push(() => server.stop());
    return server;
  }
}

/** The runtime's own five-minute limit is off: deadlines are those of who asks. */
function systemFetch(url: string, init: object): Promise<Response> {
  return fetch(url, { ...init, timeout: false } as RequestInit);
}

function locationOf(id: string): LocationConfig {
  const [number, count] = /-([0-9a-f]{2})([0-9a-f]{2})$/.exec(id)?.slice(1).map((hex) => Number.parseInt(hex, 16)) ?? [0, 0];
  return { mode: "AttachedSingle", generation: null, secondary_conf: null, shard_number: number, shard_count: count, shard_stripe_size: 0, tenant_conf: {} };
}
