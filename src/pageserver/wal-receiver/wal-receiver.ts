/**
 * Keeps a timeline fed: listens to the broker for safekeepers that have its WAL, streams from the best of them, changes
 * when that one fails or falls behind, and asks around (discovery) when somebody waits for WAL nobody has told of.
 */
import type { BrokerClient } from "../../broker/api/client.ts";
import { type BrokerMessage, MESSAGE_TYPE_DISCOVERY_RESPONSE, MESSAGE_TYPE_TIMELINE_INFO } from "../../broker/api/messages.ts";
import { Cancelled, isStrataError } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { backoffMs } from "../../kit/retry.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { WalProtocol } from "../../safekeeper/api/wal-protocol.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";
import { increment, type StorageCounts } from "../counts/storage-counts.ts";
import type { TimelineCounts } from "../counts/timeline-counts.ts";
import { type Candidate, chooseSafekeeper, type ConnectReason, type Failures } from "./choose-safekeeper.ts";
import { WalConnection, type WalCounts } from "./wal-connection.ts";

export interface WalReceiverConfig {
  readonly availabilityZone: string | null;
  readonly connectTimeoutMs: number;
  readonly laggingWalTimeoutMs: number;
  readonly maxLsnWalLagBytes: number;
  readonly authToken: string | null;
  /** `wal_receiver_protocol`: raw WAL, or records that the safekeeper has interpreted for our shard. */
  readonly protocol: WalProtocol;
}

export const WAL_RECEIVER_DEFAULTS: WalReceiverConfig = {
  availabilityZone: null,
  connectTimeoutMs: 10_000,
  laggingWalTimeoutMs: 10_000,
  maxLsnWalLagBytes: 1024 * 1024 * 1024,
  authToken: null,
  protocol: { type: "vanilla" },
};

export interface WalReceiverOptions {
  readonly datadir: TimelineDatadir;
  readonly segmentSizeBytes: number;
  readonly broker: BrokerClient;
  readonly config: WalReceiverConfig;
  readonly platform: Platform;
  readonly log: Logger;
  readonly counts: WalCounts & { readonly walReceivers: StorageCounts["walReceivers"]; readonly timeline: TimelineCounts };
  /** Of connections to safekeepers; undefined for plain text. */
  readonly tls?: PgTls | undefined;
  /** Whether a read waits for WAL not received yet. */
  readonly somebodyWaits: () => boolean;
  /** Only in testing mode. */
  readonly failpoints?: Failpoints | undefined;
}

const BROKER_PAUSE = { baseMs: 100, maxMs: 5000 };
const DISCOVERY_INTERVAL_MS = 10_000;
const LOOK_INTERVAL_MS = 1000;
/** Safekeepers remembered for a timeline: more are a mistake, or hostile. */
const CANDIDATES_MAX = 64;

function parseConnstr(connstr: string): { host: string; port: number } | null {
  const at = connstr.lastIndexOf(":");
  const port = Number(connstr.slice(at + 1));
  return at > 0 && Number.isInteger(port) && port > 0 && port < 65_536 ? { host: connstr.slice(0, at), port } : null;
}

export class WalReceiver {
  readonly #options: WalReceiverOptions;
  readonly #abort = new AbortController();
  readonly #candidates = new Map<NodeId, Candidate>();
  readonly #failures = new Map<NodeId, Failures>();
  #present: { readonly id: NodeId; readonly connection: WalConnection; readonly abort: AbortController; readonly done: Promise<void> } | null = null;
  #wake: (() => void) | null = null;
  #lastDiscoveryMs = Number.NEGATIVE_INFINITY;
  #running: Promise<unknown> = Promise.resolve();

  constructor(options: WalReceiverOptions) {
    this.#options = options;
  }

  start(): void {
    const { walReceivers } = this.#options.counts;
    walReceivers.activeManagers++;
    this.#running = Promise.all([this.#listen(), this.#manage()]).finally(() => walReceivers.activeManagers--);
  }

  /** The safekeeper streamed from now, for status and logs. */
  get currentSafekeeper(): NodeId | null {
    return this.#present?.id ?? null;
  }

  /** Of the safekeeper streamed from now: how far its WAL came, and when it was heard last. */
  get lastReceived(): { readonly lsn: Lsn; readonly wallMs: number } | null {
    const present = this.#present;
    if (present === null) return null;
    const { clock } = this.#options.platform;
    return { lsn: present.connection.receivedLsn, wallMs: clock.wallMs() - (clock.monotonicMs() - present.connection.heardMs) };
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    this.#present?.abort.abort();
    this.#wake?.();
    await this.#running;
    this.#options.counts.walReceivers.candidatesRemoved += this.#candidates.size;
    this.#candidates.clear();
  }

  /** Keeps a broker subscription until stopped. */
  async #listen(): Promise<void> {
    const { broker, datadir, platform, log } = this.#options;
    const { tenantShardId, timelineId } = datadir.store;
    const filter = { types: [MESSAGE_TYPE_TIMELINE_INFO, MESSAGE_TYPE_DISCOVERY_RESPONSE] as const, timeline: { tenantId: tenantShardId.tenantId, timelineId } };
    for (let attempt = 0; !this.#abort.signal.aborted; attempt++) {
      const startedMs = platform.clock.monotonicMs();
      try {
        await broker.subscribe(filter, (message) => this.#heard(message), this.#abort.signal);
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        log.info("broker subscription ended, subscribing again", { error });
      }
      if (platform.clock.monotonicMs() - startedMs > BROKER_PAUSE.maxMs) attempt = 0;
      await platform.clock.sleep(backoffMs(BROKER_PAUSE, attempt, platform.random.float()), this.#abort.signal).catch(() => undefined);
    }
  }

  #heard(message: BrokerMessage): void {
    if (message.type === "discovery-request") return;
    const info = message.type === "timeline-info" ? message.info : message.response;
    const { walReceivers, timeline } = this.#options.counts;
    walReceivers.brokerUpdates++;
    if (message.type === "timeline-info") timeline.standbyHorizon = message.info.standbyHorizon;
    if (!this.#candidates.has(info.safekeeperId)) {
      if (this.#candidates.size >= CANDIDATES_MAX) return;
      walReceivers.candidatesAdded++;
    }
    this.#candidates.set(info.safekeeperId, {
      safekeeperId: info.safekeeperId,
      commitLsn: info.commitLsn,
      connstr: info.safekeeperConnstr,
      availabilityZone: info.availabilityZone,
      heardMs: this.#options.platform.clock.monotonicMs(),
    });
    // News matter to who has no connection, or to a connection that might be behind; the rest waits for the next look.
    if (this.#present === null) this.#wake?.();
  }

  async #manage(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      const waitMs = await this.#look();
      await this.#discover();
      await this.#pause(this.#isIdle ? null : waitMs);
    }
    await this.#present?.done;
  }

  /** Nobody to connect to and nobody who asks: the broker or a reader will wake us. So thousands of branches at rest have no timers. */
  get #isIdle(): boolean {
    const { platform, config, somebodyWaits } = this.#options;
    if (this.#present !== null || somebodyWaits()) return false;
    const oldest = platform.clock.monotonicMs() - config.laggingWalTimeoutMs;
    return this.#candidates.values().every((candidate) => candidate.heardMs < oldest);
  }

  /** Somebody begins to wait for WAL. */
  nudge(): void {
    this.#wake?.();
  }

  /** Acts on what is known now; returns when to look again. */
  async #look(): Promise<number> {
    const { platform, datadir, config } = this.#options;
    const nowMs = platform.clock.monotonicMs();
    const present = this.#present === null ? null : { safekeeperId: this.#present.id, ...pick(this.#present.connection) };
    const choice = chooseSafekeeper({
      nowMs, ownZone: config.availabilityZone, lastRecordLsn: datadir.store.lastRecordLsn, candidates: [...this.#candidates.values()], present,
      failures: this.#failures, laggingWalTimeoutMs: config.laggingWalTimeoutMs, maxLsnWalLagBytes: config.maxLsnWalLagBytes,
    });
    if (choice.kind === "stay") return LOOK_INTERVAL_MS;
    if (choice.kind === "wait") return choice.afterMs;
    if (this.#present !== null) {
      // One writer at a time: the old stream has ended before the new one begins.
      this.#present.abort.abort();
      await this.#present.done;
    }
    this.#connect(choice.candidate, choice.reason);
    return LOOK_INTERVAL_MS;
  }

  #connect(candidate: Candidate, reason: ConnectReason): void {
    const { datadir, platform, config, counts, segmentSizeBytes } = this.#options;
    increment(counts.walReceivers.switches, reason);
    const log = this.#options.log.child({ safekeeper: candidate.safekeeperId });
    const address = parseConnstr(candidate.connstr);
    if (address === null) {
      log.warn("a safekeeper's address is not host:port", { connstr: candidate.connstr });
      this.#failed(candidate.safekeeperId);
      return;
    }
    const abort = new AbortController();
    const connection = new WalConnection({ datadir, segmentSizeBytes, address, platform, log, connectTimeoutMs: config.connectTimeoutMs, authToken: config.authToken, tls: this.#options.tls, protocol: config.protocol, signal: abort.signal, counts, failpoints: this.#options.failpoints });
    counts.walReceivers.startedConnections++;
    log.info("connecting for WAL", { reason, commitLsn: lsnToString(candidate.commitLsn) });
    const done = connection.run().then(
      () => this.#ended(candidate.safekeeperId, null, log),
      (error: unknown) => this.#ended(candidate.safekeeperId, error, log),
    );
    this.#present = { id: candidate.safekeeperId, connection, abort, done };
  }

  #ended(id: NodeId, error: unknown, log: Logger): void {
    const progressed = this.#present !== null && this.#present.connection.progressMs > this.#present.connection.startedMs;
    this.#present = null;
    const damaged = isStrataError(error) && error.kind === "corrupt";
    // Damaged WAL comes again however much of it was received: its safekeeper has to rest longer each time, or the log would flood.
    if (progressed && !damaged) this.#failures.delete(id);
    if (error === null) log.info("the safekeeper has nothing more");
    else if (!(error instanceof Cancelled)) {
      this.#failed(id);
      log[damaged ? "warn" : "info"](damaged ? "WAL is damaged, this timeline cannot go on until it is mended" : "WAL connection ended, another will be made", { error });
    }
    // What the broker said before is no longer news: without new WAL there is nothing to reconnect for.
    this.#wake?.();
  }

  #failed(id: NodeId): void {
    this.#failures.set(id, { count: (this.#failures.get(id)?.count ?? 0) + 1, lastMs: this.#options.platform.clock.monotonicMs() });
  }

  /** Asks who has the timeline, when somebody waits and nobody is known. */
  async #discover(): Promise<void> {
    const { platform, broker, datadir, log, somebodyWaits } = this.#options;
    const nowMs = platform.clock.monotonicMs();
    if (this.#present !== null || !somebodyWaits() || nowMs - this.#lastDiscoveryMs < DISCOVERY_INTERVAL_MS) return;
    this.#lastDiscoveryMs = nowMs;
    const { tenantShardId, timelineId } = datadir.store;
    await broker.publishOne({ type: "discovery-request", request: { tenantId: tenantShardId.tenantId, timelineId } }).catch((error: unknown) => log.info("discovery request failed", { error }));
  }

  /** @param durationMs null: until woken */
  #pause(durationMs: number | null): Promise<void> {
    return new Promise((resolve) => {
      const timer = durationMs === null ? null : this.#options.platform.clock.after(durationMs, () => finish());
      const finish = (): void => {
        this.#wake = null;
        timer?.cancel();
        resolve();
      };
      this.#wake = finish;
      if (this.#abort.signal.aborted) finish();
    });
  }
}

function pick(connection: WalConnection): Pick<WalConnection, "startedMs" | "receivedLsn" | "progressMs" | "heardMs"> {
  const { startedMs, receivedLsn, progressMs, heardMs } = connection;
  return { startedMs, receivedLsn, progressMs, heardMs };
}
