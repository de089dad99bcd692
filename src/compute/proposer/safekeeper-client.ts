/** How a compute connects to a safekeeper: which start-up parameters, which commands. */
import { StrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { Platform } from "../../platform/platform.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { PgClient } from "../../wire/client.ts";
import type { Term } from "../../safekeeper/api/term-history.ts";

export interface SafekeeperAddress {
  readonly host: string;
  readonly port: number;
}

export interface TimelineConnection {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** JWT; undefined without authentication. */
  readonly authToken?: string;
  /** Undefined for plain text. */
  readonly tls?: PgTls | undefined;
  /** The timeline's other safekeepers: one that has lost the timeline asks them about it. */
  readonly peers?: readonly SafekeeperAddress[];
}

export type NetworkPlatform = Pick<Platform, "clock" | "random" | "network">;

/** @throws StrataError unavailable `connect-failed`, `connect-timeout`, `tls-refused`, `tls-handshake-failed`; unauthenticated */
export async function connectSafekeeper(platform: NetworkPlatform, address: SafekeeperAddress, timeline: TimelineConnection & { timeoutMs?: number; signal?: AbortSignal }): Promise<PgClient> {
  return await PgClient.connect(platform.network, {
    address,
    parameters: {
      user: "strata_compute",
      database: "replication",
      application_name: "strata_proposer",
      options: `-c timeline_id=${timeline.timelineId} tenant_id=${timeline.tenantId}${timeline.peers === undefined ? "" : peersOption(timeline.peers)}`,
    },
    clock: platform.clock,
    random: platform.random,
    timeoutMs: timeline.timeoutMs ?? 5_000,
    tls: timeline.tls,
    ...(timeline.authToken === undefined ? {} : { password: timeline.authToken }),
    ...(timeline.signal === undefined ? {} : { signal: timeline.signal }),
  });
}

/** Ours: others pass over options that they do not know. */
function peersOption(peers: readonly SafekeeperAddress[]): string {
  return ` strata_peers=${peers.map(({ host, port }) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`)).join(",")}`;
}

export async function startWalPush(client: PgClient): Promise<ClientCopyStream> {
  return await client.copyBoth("START_WAL_PUSH (proto_version '3', allow_timeline_creation 'true')");
}

/** WAL from `lsn` on, up to what the safekeeper has in the log of `term`, committed or not. */
export async function startRecovery(client: PgClient, lsn: Lsn, term: Term): Promise<ClientCopyStream> {
  return await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(lsn)} (term='${term}')`);
}

export interface TimelineStatus {
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
}

/** Null when the safekeeper does not know the timeline. @throws StrataError corrupt `bad-timeline-status` */
export async function timelineStatus(client: PgClient): Promise<TimelineStatus | null> {
  const { columns, rows } = await client.query("TIMELINE_STATUS");
  const row = rows.at(0);
  if (row === undefined) return null;
  const value = (name: string): Lsn => {
    const text = row[columns.findIndex((column) => column.name === name)];
    if (typeof text !== "string") throw new StrataError("corrupt", "bad-timeline-status", `TIMELINE_STATUS has no ${name}`);
    return parseLsn(text);
  };
  return { flushLsn: value("flush_lsn"), commitLsn: value("commit_lsn") };
}
