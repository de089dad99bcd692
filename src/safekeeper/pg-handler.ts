/** The libpq side of a safekeeper: who connects, to which timeline, with which command. One handler a connection. */
import { StrataError } from "../kit/errors.ts";
import type { Failpoints } from "../kit/failpoints.ts";
import { parseTenantId, parseTimelineId } from "../kit/ids.ts";
import { lsnToString } from "../kit/lsn.ts";
import type { TenantTimelineId } from "../broker/api/messages.ts";
import { checkPermission, type Claims, type JwtAuth } from "../http/auth.ts";
import type { Logger } from "../observability/log.ts";
import type { Clock } from "../platform/clock.ts";
import type { PgColumn, PgHandler, PgSession } from "../wire/pg-session.ts";
import { startupOptions } from "../wire/startup-options.ts";
import type { Address, ConnectionTimeouts } from "./config.ts";
import type { Acceptor } from "./consensus/acceptor.ts";
import type { SafekeeperMetrics } from "./metrics.ts";
import { makeShardIdentity, UNSHARDED_IDENTITY } from "../keyspace/shard.ts";
import { parseWalProtocol } from "./api/wal-protocol.ts";
import { parseCommand, type PgCommand } from "./pg-commands.ts";
import type { Asking } from "./receive-wal/admission.ts";
import { startWalPush } from "./receive-wal/start-wal-push.ts";
import { startReplication, type StartReplicationOptions } from "./send-wal/start-replication.ts";
import { type Newness, parsePeers } from "./timeline/newness.ts";
import type { Timelines } from "./timeline/timelines.ts";
import { POSTGRES_TIMELINE } from "./wal-store/segments.ts";

export interface PgHandlerOptions {
  readonly timelines: Timelines;
  /** @param password of the connection that asks */
  readonly findNewness: (id: TenantTimelineId, asking: Asking & { readonly password: string | null }) => Promise<Newness>;
  readonly connectionId: number;
  /** Null: everybody may do everything. */
  readonly auth: JwtAuth | null;
  /** This listener lets in tokens of scope `tenant` only. */
  readonly tenantScopeOnly: boolean;
  readonly timeouts: ConnectionTimeouts;
  /** Null unless in testing mode. */
  readonly failpoints: Failpoints | null;
  /** This safekeeper's. */
  readonly availabilityZone: string | null;
  readonly clock: Clock;
  readonly metrics: SafekeeperMetrics;
  readonly log: Logger;
}

const INT4 = 23;
const IDENTIFY_COLUMNS: readonly PgColumn[] = [{ name: "systemid" }, { name: "timeline", typeOid: INT4 }, { name: "xlogpos" }, { name: "dbname" }];
const STATUS_COLUMNS: readonly PgColumn[] = [{ name: "flush_lsn" }, { name: "commit_lsn" }];
/** Ours, for those who ask for them: `here`, or `unusable` when the timeline is on this disk and could not be opened. */
const OWN_STATUS_COLUMNS: readonly PgColumn[] = [{ name: "term" }, { name: "last_log_term" }, { name: "state" }];

export class SafekeeperPgHandler implements PgHandler {
  readonly #options: PgHandlerOptions;
  #id: TenantTimelineId | null = null;
  #applicationName: string | null = null;
  #interpreted: StartReplicationOptions["interpreted"] = null;
  /** The timeline's other safekeepers; null when the connection does not say. */
  #peers: readonly Address[] | null = null;
  #tellsMore = false;
  #log: Logger;

  constructor(options: PgHandlerOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** For the lines about the connection that are not logged here. */
  get logFields(): Record<string, string | number | null> {
    return { ...this.#id, connection: this.#options.connectionId, applicationName: this.#applicationName };
  }

  /** server_version as the client should see it: that of the timeline's PostgreSQL, for stock tools compare it with their own. */
  get serverVersion(): string | null {
    const timeline = this.#id === null ? null : this.#options.timelines.find(this.#id);
    if (timeline === null) return null;
    const { pgVersion } = timeline.state;
    return `${Math.floor(pgVersion / 10000)}.${pgVersion % 10000}`;
  }

  async connected(session: PgSession): Promise<void> {
    const options = startupOptions(session.parameters);
    // The z names are those of older computes.
    const tenant = options.get("tenant_id") ?? options.get("ztenantid");
    const timeline = options.get("timeline_id") ?? options.get("ztimelineid");
    this.#applicationName = session.parameters.get("application_name") ?? null;
    this.#options.metrics.traffic.opened(session, { clientZone: options.get("availability_zone") ?? null, ownZone: this.#options.availabilityZone, applicationName: this.#applicationName });
    this.#interpreted = interpretedOptions(options);
    this.#tellsMore = options.get("strata") === "1";
    this.#peers = parsePeers(options.get("strata_peers"));
    if (tenant !== undefined && timeline !== undefined) this.#id = { tenantId: parseTenantId(tenant), timelineId: parseTimelineId(timeline) };
    this.#log = this.#options.log.child(this.logFields);
    this.#authorize(session);
  }

  /** Of the connection and the timeline it names: all its commands are about that one. */
  #authorize(session: PgSession): void {
    const { auth, tenantScopeOnly } = this.#options;
    if (auth === null) return;
    if (session.password === null) throw new StrataError("unauthenticated", "missing-token", "a token is required as password");
    const claims: Claims = auth.verify(session.password);
    const scopes = tenantScopeOnly ? (["tenant"] as const) : (["tenant", "safekeeperdata"] as const);
    checkPermission(claims, { kind: "scope", scopes }, this.#id ?? {});
  }

  async query(session: PgSession, sql: string): Promise<void> {
    const command = parseCommand(sql);
    const { metrics } = this.#options;
    const name = command.kind.toUpperCase().replaceAll("-", "_");
    metrics.queriesReceived.with(name).inc();
    try {
      await this.#run(session, command);
    } finally {
      metrics.queriesFinished.with(name).inc();
    }
  }

  disconnected(session: PgSession): void {
    this.#options.metrics.traffic.closed(session);
    this.#log.debug("connection ended");
  }

  async #run(session: PgSession, command: PgCommand): Promise<void> {
    const { timelines, connectionId, clock, metrics, timeouts } = this.#options;
    const shared = { connectionId, clock, metrics, log: this.#log, ...timeouts };
    switch (command.kind) {
      case "start-wal-push":
        return startWalPush(session, {
          ...command, ...shared, timelines, id: this.#timelineId(), peers: this.#peers,
          findNewness: (id, asking) => this.#options.findNewness(id, { ...asking, password: session.password }),
        });
      case "start-replication":
        return startReplication(session, { ...command, ...shared, ...(this.#interpreted === null ? {} : { term: null }), timeline: timelines.get(this.#timelineId()), applicationName: this.#applicationName, failpoints: this.#options.failpoints, interpreted: this.#interpreted });
      case "identify-system":
        return this.#identifySystem(session);
      case "timeline-status":
        return this.#timelineStatus(session);
      case "show":
        return this.#show(session, command.name);
      case "setting":
        return session.sendCommandComplete("SET");
    }
  }

  /** @throws StrataError fix-input `timeline-required` */
  #timelineId(): TenantTimelineId {
    if (this.#id === null) throw new StrataError("fix-input", "timeline-required", "tenant_id and timeline_id are required in the connection's options");
    return this.#id;
  }

  #identifySystem(session: PgSession): void {
    const timeline = this.#options.timelines.get(this.#timelineId());
    const row = [String(timeline.state.systemId), String(POSTGRES_TIMELINE), lsnToString(timeline.commitLsn.value), null];
    session.sendResult(IDENTIFY_COLUMNS, [row], "IDENTIFY_SYSTEM");
  }

  /** No row when the timeline is not here. */
  async #timelineStatus(session: PgSession): Promise<void> {
    const id = this.#timelineId();
    const { timelines } = this.#options;
    if (!this.#tellsMore) return this.#sendStatus(session, timelines.find(id)?.acceptor ?? null);
    const found = await timelines.presence(id);
    const columns = [...STATUS_COLUMNS, ...OWN_STATUS_COLUMNS];
    const row = found === "unusable" ? ["0/0", "0/0", "0", "0", found] : found === "absent" ? null : [...positionsOf(found.acceptor), String(found.state.term), String(found.acceptor.lastLogTerm), "here"];
    session.sendResult(columns, row === null ? [] : [row], "TIMELINE_STATUS");
  }

  #sendStatus(session: PgSession, acceptor: Acceptor | null): void {
    session.sendResult(STATUS_COLUMNS, acceptor === null ? [] : [positionsOf(acceptor)], "TIMELINE_STATUS");
  }

  /** What pg_receivewal asks for. @throws StrataError not-found `no-such-setting` */
  #show(session: PgSession, name: string): void {
    const value = this.#setting(name);
    if (value === null) throw new StrataError("not-found", "no-such-setting", `unrecognized configuration parameter "${name}"`);
    session.sendResult([{ name }], [[value]], "SHOW");
  }

  #setting(name: string): string | null {
    if (name === "data_directory_mode") return "0700";
    if (name !== "wal_segment_size") return null;
    const sizeMiB = this.#options.timelines.get(this.#timelineId()).state.walSegmentSizeBytes / (1024 * 1024);
    return sizeMiB % 1024 === 0 ? `${sizeMiB / 1024}GB` : `${sizeMiB}MB`;
  }
}

function positionsOf({ flushLsn, volatile }: Acceptor): string[] {
  return [lsnToString(flushLsn), lsnToString(volatile.commitLsn)];
}

/** @throws StrataError fix-input `bad-wal-protocol`, `bad-shard` */
function interpretedOptions(options: ReadonlyMap<string, string>): StartReplicationOptions["interpreted"] {
  const protocol = parseWalProtocol(options.get("protocol") ?? `{"type":"vanilla"}`);
  if (protocol.type === "vanilla") return null;
  const number = options.get("shard_number");
  const shard = number === undefined ? UNSHARDED_IDENTITY : makeShardIdentity({ number: Number(number), count: Number(options.get("shard_count")) }, Number(options.get("shard_stripe_size")));
  return { shard, zstdLevel: protocol.zstdLevel, extended: options.get("strata") === "1" };
}
