/** Which safekeepers a replica follows, and how far they are. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { PgClient } from "../../wire/client.ts";
import { decodeSenderMessage } from "../../wire/replication-messages.ts";
import { connectSafekeeper, type NetworkPlatform, type SafekeeperAddress, type TimelineConnection, timelineStatus } from "../proposer/safekeeper-client.ts";
import type { ReadWal } from "./last-checkpoint.ts";

export interface DonorOptions {
  readonly platform: NetworkPlatform;
  readonly log: Logger;
  readonly timeline: TimelineConnection;
  readonly safekeepers: readonly SafekeeperAddress[];
  readonly signal: AbortSignal;
}

export interface Donor {
  readonly address: SafekeeperAddress;
  readonly commitLsn: Lsn;
}

const STATUS_TIMEOUT_MS = 2_000;
const READ_TIMEOUT_MS = 30_000;

/** Those that answer and have WAL of the timeline, the most advanced first. */
export async function askDonors(options: DonorOptions): Promise<Donor[]> {
  const answers = await Promise.all(options.safekeepers.map((address) => ask(options, address)));
  return answers.filter((donor) => donor !== null).sort((a, b) => b.commitLsn - a.commitLsn);
}

async function ask(options: DonorOptions, address: SafekeeperAddress): Promise<Donor | null> {
  const { platform, timeline, signal, log } = options;
  try {
    return await withClient(options, { address, timeoutMs: STATUS_TIMEOUT_MS }, async (client) => {
      const status = await timelineStatus(client);
      return status === null || status.commitLsn === 0 ? null : { address, commitLsn: status.commitLsn };
    });
  } catch (error) {
    if (signal.aborted) throw error;
    log.debug("safekeeper did not tell its status", { safekeeper: addressText(address), timelineId: timeline.timelineId, nowMs: platform.clock.monotonicMs(), error });
    return null;
  }
}

async function withClient<T>(options: DonorOptions, to: { readonly address: SafekeeperAddress; readonly timeoutMs: number }, use: (client: PgClient) => Promise<T>): Promise<T> {
  const { platform, timeline, signal } = options;
  const client = await connectSafekeeper(platform, to.address, { ...timeline, signal, timeoutMs: STATUS_TIMEOUT_MS });
  const timer = platform.clock.after(to.timeoutMs, () => client.destroy());
  try {
    return await use(client);
  } finally {
    timer.cancel();
    client.destroy();
  }
}

/** Reads committed WAL of one donor. */
export function donorReader(options: DonorOptions, donor: Donor): ReadWal {
  return (from, to) => withClient(options, { address: donor.address, timeoutMs: READ_TIMEOUT_MS }, async (client) => {
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(from)}`);
    const bytes = new Uint8Array(to - from);
    for (let filled = 0; filled < bytes.length; ) {
      const payload = await copy.read();
      if (payload === null) throw new StrataError("unavailable", "donor-lost", `safekeeper ${addressText(donor.address)} ended its WAL stream`);
      const message = decodeSenderMessage(payload);
      if (message.kind !== "wal-data") continue;
      if (message.startLsn !== from + filled) throw new StrataError("corrupt", "wal-not-continuous", `the donor sent WAL at ${lsnToString(message.startLsn)}, ${lsnToString(from + filled)} was next`);
      const part = message.data.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  });
}

export function addressText({ host, port }: SafekeeperAddress): string {
  return `${host}:${port}`;
}

/**
 * primary_conninfo: all donors, in this order. libpq goes to the next when one does not answer, so the loss of a donor costs
 * a reconnect. @param authoritiesPath the authorities to trust, where the safekeepers' certificates are to be checked
 */
export function primaryConninfo(timeline: TimelineConnection, donors: readonly SafekeeperAddress[], authoritiesPath: string | null): string {
  const values: Record<string, string> = {
    host: donors.map(({ host }) => host).join(","),
    port: donors.map(({ port }) => port).join(","),
    user: "strata_compute",
    application_name: "strata_replica",
    connect_timeout: "5",
    keepalives_idle: "5",
    keepalives_interval: "2",
    keepalives_count: "3",
    options: `-c timeline_id=${timeline.timelineId} tenant_id=${timeline.tenantId}`,
    ...(timeline.authToken === undefined ? {} : { password: timeline.authToken }),
    ...(timeline.tls === undefined ? {} : { sslmode: timeline.tls.verify ? "verify-full" : "require" }),
    ...(authoritiesPath === null ? {} : { sslrootcert: authoritiesPath }),
  };
  return Object.entries(values).map(([name, value]) => `${name}='${value.replace(/[\\']/g, "\\$&")}'`).join(" ");
}
