/**
 * The safekeeper role: made of, in start order, the locked data directory with its node id, the timelines, the libpq
 * listener(s), the HTTP application, the maintenance loop, the broker exchange. It stops in reverse; what was received
 * from proposers is durable before it ends.
 */
import { isStrataError, StrataError } from "../kit/errors.ts";
import { utf8, utf8ToString } from "../kit/bytes.ts";
import { Failpoints } from "../kit/failpoints.ts";
import type { Lsn } from "../kit/lsn.ts";
import { type BrokerClient, connectBroker } from "../broker/api/client.ts";
import type { TenantTimelineId } from "../broker/api/messages.ts";
import type { JwtAuth } from "../http/auth.ts";
import { type Certificate, loadAuthorities } from "../http/certificate.ts";
import type { Transport } from "../http/client.ts";
import { Credentials, currentOf } from "../http/credentials.ts";
import { serveHttpAndHttps } from "../http/serve.ts";
import type { Logger } from "../observability/log.ts";
import { Metrics } from "../observability/metrics.ts";
import { makeDurableDirectory } from "../platform/durable-directory.ts";
import type { Listener } from "../platform/network.ts";
import type { Platform } from "../platform/platform.ts";
import { signalProcess } from "../platform/processes.ts";
import { measured } from "../remote-storage/open-remote-storage.ts";
import type { RemoteStorage } from "../remote-storage/remote-storage.ts";
import { listenPg } from "../wire/listen.ts";
import { GUARDED_VOTES } from "./api/proposer-protocol.ts";
import { backupLoop } from "./backup/backup-loop.ts";
import { PartialBackup } from "./backup/partial-backup.ts";
import { restoreTimeline } from "./backup/restore-timeline.ts";
import { WalBackup } from "./backup/wal-backup.ts";
import { BrokerExchange } from "./broker-exchange.ts";
import { type Address, CONNECTION_TIMEOUTS, type SafekeeperConfig } from "./config.ts";
import type { SafekeeperHttpOptions } from "./http/options.ts";
import { safekeeperHttpApp } from "./http/routes.ts";
import { SafekeeperMetrics, type TimelineGauges } from "./metrics.ts";
import { SafekeeperPgHandler } from "./pg-handler.ts";
import type { Asking } from "./receive-wal/admission.ts";
import { maintain } from "./timeline/maintenance.ts";
import { findNewness, type Newness } from "./timeline/newness.ts";
import { peerSecurity, PLAIN_PEERS } from "./timeline/peer-security.ts";
import { recoverFromPeer } from "./timeline/recovery.ts";
import type { Timeline, TimelineContext } from "./timeline/timeline.ts";
import { Timelines } from "./timeline/timelines.ts";

export interface SafekeeperDeps {
  readonly platform: Platform;
  readonly log: Logger;
  readonly version?: string;
  /** Where WAL is backed up, `--remote-storage`; without it WAL stays on the safekeepers until the pageserver has it. */
  readonly remoteStorage?: RemoteStorage;
  /** What a simulated world puts in the place of gRPC and of the HTTP server, which need the real one. */
  readonly substitutes?: SafekeeperSubstitutes;
}

export interface SafekeeperSubstitutes {
  readonly brokerClient: (endpoint: string) => BrokerClient;
  /** Serves these timelines' state instead of the HTTP listener; returns what stands for it. */
  readonly serveHttp: (timelines: Timelines) => { readonly port: number; stop(): Promise<void> };
  /** How peers' HTTP interfaces are reached. */
  readonly httpTransport: Transport;
}

export interface RunningSafekeeper {
  readonly nodeId: number;
  readonly pgPort: number;
  /** Of the listener for tokens of scope `tenant`; null without one. */
  readonly pgTenantOnlyPort: number | null;
  readonly httpPort: number;
  /** Null without `--listen-https`. */
  readonly httpsPort: number | null;
  /** Reads keys and certificate again, now. */
  reload(): Promise<void>;
  /** Returns when all WAL taken in is durable and the directory is free. */
  stop(): Promise<void>;
}

const MAINTENANCE_INTERVAL_MS = 300;
const RECOVERY_INTERVAL_MS = 2000;
const LOCK_FILE = "safekeeper.pid";
const ID_FILE = "safekeeper.id";
const AUDIENCE = "safekeeper";
const POSTGRES_EPOCH_SECONDS = Date.UTC(2000, 0, 1) / 1000;

/** @throws StrataError conflict `directory-locked`, `port-in-use`; fix-input `node-id-mismatch`, `bad-jwt-key`, `bad-certificate-authority`, … */
export async function startSafekeeper(config: SafekeeperConfig, deps: SafekeeperDeps): Promise<RunningSafekeeper> {
  const { platform, log } = deps;
  const undo: (() => Promise<void>)[] = [];
  try {
    await makeDataDirectory(config, platform);
    const lock = await platform.files.lock(`${config.dataDirectory}/${LOCK_FILE}`);
    undo.push(() => lock.release());
    const nodeId = await settleNodeId(config, platform);
    const role = new Role(config, deps, nodeId);
    await role.timelines.load();
    undo.push(() => role.timelines.close());
    const ports = await role.listen(undo);
    role.startLoops(undo);
    log.info("safekeeper started", { nodeId, ...ports });
    return { nodeId, ...ports, reload: () => role.credentials.reload(), stop: () => unwind(undo) };
  } catch (error) {
    await unwind(undo).catch((cause: unknown) => log.warn("cleaning up after a failed start failed too", { error: cause }));
    throw error;
  }
}

/** `--init`: the directory with its node id, and no more. @throws as `startSafekeeper` */
export async function initializeSafekeeper(config: SafekeeperConfig, platform: Platform): Promise<void> {
  await makeDataDirectory(config, platform);
  const lock = await platform.files.lock(`${config.dataDirectory}/${LOCK_FILE}`);
  try {
    await settleNodeId(config, platform);
  } finally {
    await lock.release();
  }
}

async function unwind(undo: (() => Promise<void>)[]): Promise<void> {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
}

/** Durably: the timelines in it are only as safe as its own name. */
async function makeDataDirectory({ dataDirectory, noSync }: SafekeeperConfig, { files }: Platform): Promise<void> {
  if (noSync) await files.makeDirectory(dataDirectory);
  else await makeDurableDirectory(files, dataDirectory);
}

/** The directory keeps the id it was first used with: another one would vote in another's name. */
async function settleNodeId(config: SafekeeperConfig, platform: Platform): Promise<number> {
  const { files } = platform;
  const path = `${config.dataDirectory}/${ID_FILE}`;
  const saved = await files.readFile(path).then((bytes) => Number(utf8ToString(bytes).trim()), (error: unknown) => {
    if (isStrataError(error, "file-not-found")) return null;
    throw error;
  });
  if (saved !== null) {
    if (!Number.isSafeInteger(saved) || (config.nodeId !== null && config.nodeId !== saved)) {
      throw new StrataError("fix-input", "node-id-mismatch", `${path} says node id ${saved}${config.nodeId === null ? "" : `, --id says ${config.nodeId}`}`);
    }
    return saved;
  }
  if (config.nodeId === null) throw new StrataError("fix-input", "node-id-missing", `${path} does not exist: give the node id with --id`);
  const file = await files.open(`${path}.partial`, "truncate");
  await file.write(utf8(`${config.nodeId}\n`), 0);
  if (!config.noSync) await file.sync();
  await file.close();
  // Whole or not at all: an id cut short by a crash would keep this node from ever starting again.
  await files.rename(`${path}.partial`, path);
  if (!config.noSync) await files.syncDirectory(config.dataDirectory);
  return config.nodeId;
}

class Role {
  readonly timelines: Timelines;
  readonly credentials: Credentials;
  readonly #config: SafekeeperConfig;
  readonly #deps: SafekeeperDeps;
  readonly #nodeId: number;
  readonly #registry = new Metrics();
  readonly #metrics: SafekeeperMetrics;
  readonly #context: TimelineContext;
  readonly #backup: { readonly whole: WalBackup; readonly partial: PartialBackup } | null;
  readonly #backupStop = new AbortController();
  #endpoints: { readonly pg: string; readonly http: string; readonly https: string | null };
  #security = PLAIN_PEERS;
  #nextConnectionId = 1;
  readonly #failpoints: Failpoints | null;
  /** Null before it is started, and without a broker. */
  #exchange: Promise<BrokerExchange | null> | null = null;

  constructor(config: SafekeeperConfig, deps: SafekeeperDeps, nodeId: number) {
    const { platform, log } = deps;
    this.#config = config;
    this.#nodeId = nodeId;
    const remoteStorage = deps.remoteStorage === undefined ? undefined : measured(deps.remoteStorage, config.remoteStorage?.kind ?? "local", { metrics: this.#registry, clock: platform.clock });
    this.#deps = { ...deps, ...(remoteStorage === undefined ? {} : { remoteStorage }) };
    this.#failpoints = config.testingMode === true ? makeFailpoints(deps) : null;
    this.#endpoints = { pg: addressText(config.pgAddress), http: addressText(config.httpAddress), https: null };
    this.#metrics = new SafekeeperMetrics(this.#registry, platform.clock, () => this.timelines.all.map((timeline) => gaugesOf(timeline)));
    this.credentials = new Credentials({ platform, log, metrics: this.#registry, name: "safekeeper", audience: AUDIENCE, reloadPeriodMs: config.tls?.reloadPeriodMs });
    const storage = config.disableWalBackup ? undefined : this.#deps.remoteStorage;
    const shared = { ...platform, config, metrics: this.#metrics, signal: this.#backupStop.signal };
    const backup = storage === undefined ? null : { whole: new WalBackup({ storage, ...shared }), partial: new PartialBackup({ storage, ...shared }) };
    this.#backup = backup;
    this.#context = {
      ...(backup === null ? {} : { fetchSegment: (id: TenantTimelineId, segment: number, sizeBytes: number) => backup.whole.fetch(id, segment, sizeBytes) }),
      nodeId, log, files: platform.files, clock: platform.clock, metrics: this.#metrics, sync: !config.noSync, heartbeatTimeoutMs: config.heartbeatTimeoutMs, maxDiskUsageBytes: config.maxTimelineDiskUsageBytes,
      endpoints: () => ({ ...this.#endpoints, availabilityZone: config.availabilityZone }),
    };
    this.timelines = new Timelines({ context: this.#context, dataDirectory: config.dataDirectory, random: platform.random });
  }

  async listen(undo: (() => Promise<void>)[]): Promise<{ pgPort: number; pgTenantOnlyPort: number | null; httpPort: number; httpsPort: number | null }> {
    const config = this.#config;
    undo.push(() => this.credentials.stop());
    const caPem = await loadAuthorities(this.#deps.platform.files, config.sslCaFile);
    this.#security = peerSecurity({ useHttps: config.useHttpsSafekeeperApi ?? false, sslMode: config.sslMode ?? "disable", caPem });
    const pg = await this.#listenPg(config.pgAddress, await this.credentials.keys(config.pgAuthPublicKeyPath), false);
    undo.push(() => pg.close());
    const tenantOnlyAddress = config.pgTenantOnlyAddress;
    const tenantOnly = tenantOnlyAddress === null ? null : await this.#listenPg(tenantOnlyAddress, await this.credentials.keys(config.pgTenantOnlyAuthPublicKeyPath), true);
    if (tenantOnly !== null) undo.push(() => tenantOnly.close());
    const http = await this.#listenHttp();
    undo.push(() => http.stop());
    const advertised = { host: config.pgAddress.host, port: pg.port };
    const https = config.httpsAddress == null || http.httpsPort === null ? null : addressText({ host: config.httpsAddress.host, port: http.httpsPort });
    this.#endpoints = { pg: config.advertisePg ?? addressText(advertised), http: addressText({ host: config.httpAddress.host, port: http.port }), https };
    return { pgPort: pg.port, pgTenantOnlyPort: tenantOnly?.port ?? null, httpPort: http.port, httpsPort: http.httpsPort };
  }

  #findNewness(id: TenantTimelineId, asking: Asking & { readonly password: string | null }): Promise<Newness> {
    const { brokerEndpoint } = this.#config;
    const askBroker = async (): Promise<Newness> => (await this.#exchange)?.findWal(id, asking.madeWithLsn) ?? { kind: "uncertain", why: "there is no connection to the broker", term: 0, heard: 0 };
    return findNewness(id, { platform: this.#deps.platform, tls: this.#security.tls, ...asking, askBroker: brokerEndpoint === null ? null : askBroker });
  }

  /** @throws StrataError fix-input `certificate-missing`, `bad-certificate` */
  async #certificate(): Promise<Certificate> {
    const { tls } = this.#config;
    if (tls == null) throw new StrataError("fix-input", "certificate-missing", "TLS needs --ssl-cert-file and --ssl-key-file");
    return await this.credentials.certificate(tls);
  }

  async #listenPg(address: Address, auth: JwtAuth | null, tenantScopeOnly: boolean): Promise<Listener> {
    const { platform, log } = this.#deps;
    const certificate = this.#config.tlsWalService === true ? await this.#certificate() : null;
    const { connectionTimeouts: timeouts = CONNECTION_TIMEOUTS } = this.#config;
    return await listenPg({
      silenceTimeoutMs: timeouts.silenceTimeoutMs, address, platform, log, tls: currentOf(certificate),
      // The handler decides on the token, once it knows for which timeline.
      auth: auth === null ? null : { authenticate: async () => undefined },
      session: () => {
        const handler = new SafekeeperPgHandler({
          timelines: this.timelines, findNewness: (id, asking) => this.#findNewness(id, asking), connectionId: this.#nextConnectionId++, auth, tenantScopeOnly, timeouts, failpoints: this.#failpoints, availabilityZone: this.#config.availabilityZone, clock: platform.clock, metrics: this.#metrics, log,
        });
        // Read when the session starts, after the handler has seen which timeline it is about.
        return { handler, parameterStatus: { [GUARDED_VOTES]: "on", get server_version(): string { return handler.serverVersion ?? "17.0"; } } };
      },
    });
  }

  async #listenHttp(): Promise<{ readonly port: number; readonly httpsPort: number | null; stop(): Promise<void> }> {
    const { substitutes } = this.#deps;
    if (substitutes !== undefined) {
      const http = substitutes.serveHttp(this.timelines);
      return { port: http.port, httpsPort: null, stop: () => http.stop() };
    }
    const config = this.#config;
    const { platform, log, version } = this.#deps;
    const jwt = await this.credentials.keys(config.httpAuthPublicKeyPath);
    const app = safekeeperHttpApp({
      role: "safekeeper", log, metrics: this.#registry, version: version ?? "0", clock: platform.clock, random: platform.random,
      auth: jwt === null ? null : { jwt },
      timelines: this.timelines, failpoints: this.#failpoints,
      dump: { platform, config, nodeId: this.#nodeId, walBackupEnabled: this.#backup !== null },
      peerToken: () => this.#readText(config.authTokenPath),
      peerCaPem: this.#security.caPem,
      backup: this.#backup,
      deleteBackup: async (id) => this.#backup?.whole.deleteAll(id),
      restore: this.#restore(),
    });
    const certificate = config.httpsAddress == null ? null : await this.#certificate();
    return serveHttpAndHttps(app, { http: config.httpAddress, https: config.httpsAddress ?? null, certificate });
  }

  /** Makes a timeline from its WAL backup; null without one. */
  #restore(): SafekeeperHttpOptions["restore"] {
    const { remoteStorage: storage, platform: { files, clock } } = this.#deps;
    const { disableWalBackup, noSync } = this.#config;
    if (storage === undefined || disableWalBackup) return null;
    const askOthers = (id: TenantTimelineId, madeWithLsn: Lsn): Promise<Newness> => this.#findNewness(id, { peers: null, madeWithLsn, password: null });
    return (id, asked) => restoreTimeline({ storage, id, ...asked }, { timelines: this.timelines, files, sync: !noSync, nodeId: this.#nodeId, nowMs: clock.wallMs(), askOthers });
  }

  startLoops(undo: (() => Promise<void>)[]): void {
    const stop = new AbortController();
    const maintenance = this.#maintenanceLoop(stop.signal);
    undo.push(async () => {
      stop.abort();
      await maintenance;
    });
    const backup = this.#backup;
    if (backup !== null) {
      const backingUp = backupLoop({ timelines: this.timelines, backup: backup.whole, partialBackup: backup.partial, config: this.#config, clock: this.#deps.platform.clock, signal: stop.signal });
      undo.push(() => backingUp);
      undo.push(async () => (this.#backupStop.abort(), stop.abort()));
    }
    if (this.#config.peerRecovery) {
      const recovery = this.#recoveryLoop(stop.signal);
      undo.push(() => recovery);
      undo.push(async () => stop.abort());
    }
    const { brokerEndpoint } = this.#config;
    if (brokerEndpoint === null) return;
    const exchange = this.#startBroker(brokerEndpoint);
    this.#exchange = exchange;
    undo.push(async () => (await exchange)?.stop());
  }

  /** One timeline after another: a node that was away must not ask for everything at once. */
  async #recoveryLoop(signal: AbortSignal): Promise<void> {
    const { platform } = this.#deps;
    const token = await this.#readText(this.#config.authTokenPath);
    while (!signal.aborted) {
      for (const timeline of this.timelines.all) {
        if (signal.aborted || timeline.gate.isClosed) continue;
        await timeline.gate
          .run(() => recoverFromPeer(timeline, { platform, nodeId: this.#nodeId, token, security: this.#security, signal, transport: this.#deps.substitutes?.httpTransport }))
          .catch((error: unknown) => timeline.log[signal.aborted || timeline.gate.isClosed ? "debug" : "warn"]("recovery from a peer failed", { error }));
      }
      await platform.clock.sleep(RECOVERY_INTERVAL_MS, signal).catch(() => undefined);
    }
  }

  async #readText(path: string | null): Promise<string | undefined> {
    return path === null ? undefined : utf8ToString(await this.#deps.platform.files.readFile(path)).trim();
  }

  async #startBroker(endpoint: string): Promise<BrokerExchange | null> {
    const { platform, log } = this.#deps;
    try {
      const client = await this.#brokerClient(endpoint);
      const exchange = new BrokerExchange({ client, timelines: this.timelines, clock: platform.clock, log, metrics: this.#metrics, push: !this.#config.disablePeriodicBrokerPush });
      exchange.start();
      return exchange;
    } catch (error) {
      log.error("the broker cannot be used", { error });
      return null;
    }
  }

  async #brokerClient(endpoint: string): Promise<BrokerClient> {
    const { authTokenPath, brokerKeepaliveIntervalMs } = this.#config;
    if (this.#deps.substitutes !== undefined) return this.#deps.substitutes.brokerClient(endpoint);
    return connectBroker({ endpoint, token: await this.#readText(authTokenPath), caPem: this.#security.caPem, keepaliveIntervalMs: brokerKeepaliveIntervalMs });
  }

  /** One round over all timelines after another. */
  async #maintenanceLoop(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps.platform;
    while (!signal.aborted) {
      for (const timeline of this.timelines.all) {
        await maintain(timeline, { config: this.#config, metrics: this.#metrics, backupEnabled: this.#backup !== null, nowMs: clock.monotonicMs() });
      }
      await clock.sleep(MAINTENANCE_INTERVAL_MS, signal).catch(() => undefined);
    }
  }
}

function makeFailpoints({ platform: { clock, random }, log }: SafekeeperDeps): Failpoints {
  log.warn("testing mode: failpoints may be set over HTTP");
  return new Failpoints({ clock, random, say: (message, fields) => log.info(message, fields), exit: () => signalProcess(process.pid, "SIGKILL") });
}

function addressText({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function gaugesOf(timeline: Timeline): TimelineGauges {
  const { acceptor, senders, totals } = timeline;
  const { volatile } = acceptor;
  return {
    tenantId: timeline.id.tenantId,
    timelineId: timeline.id.timelineId,
    values: {
      safekeeper_commit_lsn: volatile.commitLsn,
      safekeeper_backup_lsn: volatile.backupLsn,
      safekeeper_flush_lsn: acceptor.flushLsn,
      safekeeper_epoch_start_lsn: acceptor.termStartLsn,
      safekeeper_peer_horizon_lsn: volatile.peerHorizonLsn,
      safekeeper_remote_consistent_lsn: volatile.remoteConsistentLsn,
      safekeeper_ps_last_received_lsn: senders.lastPageserverFeedback.lastReceivedLsn,
      safekeeper_feedback_last_time_seconds: senders.pageserverFeedbackCount === 0 ? 0 : POSTGRES_EPOCH_SECONDS + Number(senders.lastPageserverFeedback.replyTimestamp) / 1e6,
      safekeeper_ps_feedback_count_total: senders.pageserverFeedbackCount,
      safekeeper_ps_corruption_detected: senders.corruptionReported ? 1 : 0,
      safekeeper_timeline_active: timeline.active ? 1 : 0,
      safekeeper_wal_backup_active: timeline.backingUp ? 1 : 0,
      safekeeper_connected_computes: timeline.receivers.count.value,
      safekeeper_disk_usage_bytes: timeline.diskUsageBytes,
      safekeeper_interpreted_wal_reader_tasks: timeline.decodeGroups.count,
      safekeeper_acceptor_term: timeline.state.term,
      safekeeper_written_wal_bytes_total: totals.bytes,
      safekeeper_written_wal_seconds_total: totals.writeMs / 1000,
      safekeeper_flushed_wal_seconds_total: totals.flushMs / 1000,
    },
  };
}
