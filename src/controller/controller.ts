/**
 * The storage controller role: made of, in start order, its database, the state loaded from it, the reconciler, the
 * services, the HTTP application, and the heartbeat that keeps the picture current. Shutdown is the reverse.
 */
import { createHttpApp } from "../http/app.ts";
import { JwtAuth } from "../http/auth.ts";
import { loadAuthorities } from "../http/certificate.ts";
import { Credentials } from "../http/credentials.ts";
import { serveHttpAndHttps } from "../http/serve.ts";
import { InvariantError, StrataError } from "../kit/errors.ts";
import { KeyedLock } from "../kit/keyed-lock.ts";
import { tenantShardIdToString } from "../kit/ids.ts";
import type { Logger } from "../observability/log.ts";
import { Metrics } from "../observability/metrics.ts";
import type { Timer } from "../platform/clock.ts";
import { makeDurableDirectory } from "../platform/durable-directory.ts";
import type { Platform } from "../platform/platform.ts";
import type { ControllerConfig } from "./config.ts";
import { addControllerRoutes, type ControllerServices } from "./http/routes.ts";
import type { Migration } from "./persistence/migrations.ts";
import { Persistence } from "./persistence/persistence.ts";
import { startPrivateDatabase } from "./persistence/private-database.ts";
import { HttpNodeClient } from "./reconciler/http-node-client.ts";
import { Reconciler } from "./reconciler/reconciler.ts";
import { NodeService } from "./service/node-service.ts";
import { placeShard } from "./service/placement.ts";
import { ControllerState, nodeFromRow, shardFromRow, shardToRow } from "./service/state.ts";
import { TenantService } from "./service/tenant-service.ts";
import { TimelineService } from "./service/timeline-service.ts";

export interface RunningController {
  readonly httpPort: number;
  /** Null without `--listen-https`. */
  readonly httpsPort: number | null;
  /** Reads keys and certificate again, now. */
  reload(): Promise<void>;
  stop(): Promise<void>;
}

export interface ControllerDeps {
  readonly platform: Platform;
  readonly log: Logger;
  readonly version: string;
  /** The SQL files of /migrations. */
  readonly migrations: readonly Migration[];
}

/** What runs at stop, newest first. */
class Closers {
  readonly #closers: (() => Promise<unknown> | void)[] = [];

  add(close: () => Promise<unknown> | void): void {
    this.#closers.push(close);
  }

  async closeAll(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }
}

async function openPersistence(config: ControllerConfig, deps: ControllerDeps, closers: Closers): Promise<Persistence> {
  let address: Parameters<typeof Persistence.open>[0];
  if (config.databaseUrl === null) {
    const database = await startPrivateDatabase(config, deps.platform, deps.log);
    closers.add(() => database.stop());
    address = database.connection;
  } else {
    address = config.databaseUrl;
  }
  const persistence = await Persistence.open(address, deps.migrations, deps.log);
  closers.add(() => persistence.close());
  return persistence;
}

async function loadState(persistence: Persistence): Promise<ControllerState> {
  const state = new ControllerState();
  for (const row of await persistence.listNodes()) state.nodes.set(row.nodeId, nodeFromRow(row));
  for (const row of await persistence.listTenantShards()) state.addShard(shardFromRow(row));
  return state;
}

/** @throws InvariantError naming the first shard whose memory and database differ */
async function checkConsistency(state: ControllerState, persistence: Persistence): Promise<void> {
  const stored = new Map((await persistence.listTenantShards()).map((row) => [`${row.tenantId}/${row.shardNumber}/${row.shardCount}`, row]));
  for (const shard of state.allShards()) {
    const row = shardToRow(shard);
    const key = `${row.tenantId}/${row.shardNumber}/${row.shardCount}`;
    if (!Bun.deepEquals(stored.get(key), row)) throw new InvariantError(`tenant shard ${tenantShardIdToString(shard.id)} differs from the database`);
    stored.delete(key);
  }
  if (stored.size > 0) throw new InvariantError(`the database has ${stored.size} tenant shards that memory has not`);
}

/** Starts a reconcile for every shard that needs one; returns how many. */
function reconcileAll(state: ControllerState, reconciler: Reconciler, log: Logger): number {
  let started = 0;
  for (const shard of state.allShards()) {
    if (shard.scheduling === "Stop" || shard.reconciling) continue;
    try {
      placeShard(state, shard);
    } catch (error) {
      log.debug("shard cannot be placed for now", { tenant: tenantShardIdToString(shard.id), error });
    }
    if (reconciler.plan(shard).length === 0) continue;
    reconciler.reconcileInBackground(shard);
    started++;
  }
  return started;
}

interface Periodic {
  stop(): void;
}

/** Runs `round` again `intervalMs` after it ended, until stopped. */
function every(platform: Platform, intervalMs: number, round: () => Promise<void>): Periodic {
  let stopped = false;
  let timer: Timer | null = null;
  const next = (): void => {
    if (stopped) return;
    timer = platform.clock.after(intervalMs, () => void round().finally(next));
  };
  next();
  return {
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}

/** @throws StrataError unavailable `database-unreachable`, fix-input `bad-certificate-authority`, conflict `port-in-use`, `directory-locked` */
export async function startController(config: ControllerConfig, deps: ControllerDeps): Promise<RunningController> {
  const closers = new Closers();
  try {
    return await start(config, deps, closers);
  } catch (error) {
    await closers.closeAll();
    throw error;
  }
}

async function start(config: ControllerConfig, deps: ControllerDeps, closers: Closers): Promise<RunningController> {
  const { platform, log } = deps;
  const { clock } = platform;
  if (config.databaseUrl === null) {
    await makeDurableDirectory(platform.files, config.dataDirectory);
    const lock = await platform.files.lock(`${config.dataDirectory}/controller.lock`);
    closers.add(() => lock.release());
  }
  const persistence = await openPersistence(config, deps, closers);
  const state = await loadState(persistence);
  const useHttps = config.useHttpsPageserverApi ?? false;
  const nodeClient = new HttpNodeClient({ clock, token: config.jwtToken ?? undefined, useHttps, caPem: await loadAuthorities(platform.files, config.sslCaFile) });
  const reconciler = new Reconciler({ state, persistence, nodes: nodeClient, log });
  closers.add(() => reconciler.stop());
  const locks = new KeyedLock();
  const nodes = new NodeService({ state, persistence, nodes: nodeClient, reconciler, clock, log, useHttps, offlineAfterMs: config.offlineAfterMs });
  let ready = false;
  const services: ControllerServices = {
    state,
    nodes,
    tenants: new TenantService({ state, persistence, nodes: nodeClient, reconciler, locks }),
    timelines: new TimelineService({ state, nodes: nodeClient, locks }),
    ready: () => ready,
    checkConsistency: () => checkConsistency(state, persistence),
    reconcileAll: () => reconcileAll(state, reconciler, log),
  };
  const served = await serve(config, deps, { services, closers });
  await nodes.heartbeat();
  ready = true;
  const heartbeat = every(platform, config.heartbeatIntervalMs, async () => {
    await nodes.heartbeat();
    reconcileAll(state, reconciler, log);
  });
  closers.add(() => heartbeat.stop());
  log.info("controller listens", { host: config.listenHost, httpPort: served.httpPort, tenants: state.tenantIds().length, nodes: state.nodes.size });
  return { ...served, stop: () => closers.closeAll() };
}

async function serve(config: ControllerConfig, deps: ControllerDeps, parts: { services: ControllerServices; closers: Closers }): Promise<Omit<RunningController, "stop">> {
  const { platform, log } = deps;
  const { tls = null, httpsAddress = null } = config;
  const metrics = new Metrics();
  const credentials = new Credentials({ platform, log, metrics, name: "controller", audience: "controller", reloadPeriodMs: tls?.reloadPeriodMs });
  parts.closers.add(() => credentials.stop());
  const jwt = config.publicKeyPem == null ? await credentials.keys(config.authPublicKeyPath) : JwtAuth.fromPem(config.publicKeyPem, { wallMs: () => platform.clock.wallMs(), audience: "controller" });
  if (httpsAddress !== null && tls === null) throw new StrataError("fix-input", "certificate-missing", "TLS needs --ssl-cert-file and --ssl-key-file");
  const app = createHttpApp({
    role: "controller",
    log,
    auth: jwt === null ? null : { jwt, adminIsSuperset: true },
    metrics,
    version: deps.version,
    clock: platform.clock,
    random: platform.random,
  });
  addControllerRoutes(app, parts.services);
  const certificate = httpsAddress === null || tls === null ? null : await credentials.certificate(tls);
  const http = serveHttpAndHttps(app, { http: { host: config.listenHost, port: config.listenPort }, https: httpsAddress, certificate });
  parts.closers.add(() => http.stop());
  return { httpPort: http.port, httpsPort: http.httpsPort, reload: () => credentials.reload() };
}
