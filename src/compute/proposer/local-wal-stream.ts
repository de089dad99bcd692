/**
 * The replication connection to the local server. It is the one synchronous standby of that server: what it says is
 * flushed is what the quorum has, and that is what releases waiting commits.
 *
 * Source: PostgreSQL src/backend/replication/walsender.c, syncrep.c (SyncRepReleaseWaiters).
 */
import { Cancelled, StrataError, isStrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { HotStandbyFeedback } from "../../safekeeper/api/proposer-messages.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import { PgClient } from "../../wire/client.ts";
import { decodeSenderMessage, encodeHotStandbyFeedback, encodeStandbyStatus, postgresTimestamp } from "../../wire/replication-messages.ts";
import type { LocalWal } from "./local-wal.ts";
import type { NetworkPlatform } from "./safekeeper-client.ts";

/** What synchronous_standby_names is forced to. */
export const PROPOSER_APPLICATION_NAME = "strata_proposer";
/** Keeps WAL that some safekeeper has not acknowledged; bounded by max_slot_wal_keep_size. */
export const PROPOSER_SLOT = "strata_proposer";

export interface LocalServer {
  /** Path of its Unix socket file. */
  readonly socketPath: string;
  /** A superuser. */
  readonly user: string;
}

export interface LocalWalStreamOptions {
  readonly platform: NetworkPlatform;
  readonly server: LocalServer;
  readonly wal: LocalWal;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onWal: () => void;
  /** What may be confirmed now. */
  readonly commitLsn: () => Lsn;
}

const RECONNECT_MS = 100;
const STATUS_MS = 1_000;
const DUPLICATE_OBJECT = "42710";
const U32 = 0x1_0000_0000n;

export class LocalWalStream {
  readonly #options: LocalWalStreamOptions;
  #stream: ClientCopyStream | null = null;
  #confirmedLsn: Lsn = 0;

  constructor(options: LocalWalStreamOptions) {
    this.#options = options;
  }

  /** Streams until the signal aborts, connecting again when the connection breaks. */
  async run(): Promise<void> {
    const { signal, platform, log } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#session();
      } catch (error) {
        if (signal.aborted || error instanceof Cancelled) return;
        // While the server starts it is not there yet, and that is no news.
        log[isStrataError(error, "connect-failed") ? "debug" : "info"]("WAL stream of the local server broke", { error });
      }
      await platform.clock.sleep(RECONNECT_MS, signal).catch(() => {});
    }
  }

  /** Confirms what the quorum has; the server then releases the commits that wait for it. */
  confirm(): void {
    const lsn = Math.min(this.#options.commitLsn(), this.#options.wal.endLsn);
    if (this.#stream === null || lsn <= this.#confirmedLsn) return;
    this.#sendStatus(lsn);
  }

  /** Passes on what standbys of the safekeepers still need to see. */
  passHotStandbyFeedback(feedback: HotStandbyFeedback): void {
    const half = (xid: bigint): [number, number] => [Number(xid % U32), Number(xid / U32)];
    const [xmin, xminEpoch] = half(feedback.xmin);
    const [catalogXmin, catalogXminEpoch] = half(feedback.catalogXmin);
    this.#stream?.write(encodeHotStandbyFeedback({ timestamp: feedback.timestamp, xmin, xminEpoch, catalogXmin, catalogXminEpoch }));
  }

  #sendStatus(lsn: Lsn): void {
    const timestamp = postgresTimestamp(this.#options.platform.clock.wallMs());
    this.#confirmedLsn = lsn;
    this.#stream?.write(encodeStandbyStatus({ writeLsn: lsn, flushLsn: lsn, applyLsn: lsn, timestamp, replyRequested: false }));
  }

  async #session(): Promise<void> {
    const { platform, server, wal, signal } = this.#options;
    const client = await connectLocal({ ...platform, signal }, server, { replication: "true", application_name: PROPOSER_APPLICATION_NAME });
    const abort = (): void => client.destroy();
    signal.addEventListener("abort", abort, { once: true });
    const beat = { stop: (): void => {} };
    try {
      await makeSlot(client);
      this.#stream = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(wal.endLsn)} TIMELINE 1`);
      this.#confirmedLsn = 0;
      this.#beat(this.#stream, beat);
      await this.#receive(this.#stream);
    } finally {
      beat.stop();
      this.#stream = null;
      signal.removeEventListener("abort", abort);
      client.destroy();
    }
  }

  async #receive(stream: ClientCopyStream): Promise<void> {
    const { wal, onWal, commitLsn } = this.#options;
    let fresh = false;
    for (;;) {
      const payload = await stream.read();
      if (payload === null) {
        if (fresh) onWal();
        // A server that shuts down ends the stream once everything it wrote is confirmed.
        await stream.finish().catch(() => "");
        throw new StrataError("unavailable", "local-server-stopping", "the local server ended its WAL stream");
      }
      const message = decodeSenderMessage(payload);
      if (message.kind === "wal-data") {
        if (message.data.length > 0) wal.append(message.startLsn, message.data);
        fresh = true;
      } else if (message.replyRequested) this.#sendStatus(Math.min(commitLsn(), wal.endLsn));
      // Once for all that has come, not once a message.
      if (fresh && stream.pending === 0) {
        fresh = false;
        onWal();
      }
    }
  }

  /** A reply is ignored while the walsender is catching up, so the last word is repeated. */
  #beat(stream: ClientCopyStream, beat: { stop: () => void }): void {
    const timer = this.#options.platform.clock.after(STATUS_MS, () => {
      if (this.#stream !== stream) return;
      this.#sendStatus(Math.min(this.#options.commitLsn(), this.#options.wal.endLsn));
      this.#beat(stream, beat);
    });
    beat.stop = () => timer.cancel();
  }
}

/** Connects over the server's Unix socket as its superuser. */
async function connectLocal(platform: NetworkPlatform & { readonly signal?: AbortSignal }, server: LocalServer, parameters: Readonly<Record<string, string>>): Promise<PgClient> {
  return await PgClient.connect(platform.network, {
    address: { unixPath: server.socketPath },
    parameters: { user: server.user, ...parameters },
    clock: platform.clock,
    random: platform.random,
    ...(platform.signal === undefined ? {} : { signal: platform.signal }),
  });
}

async function makeSlot(client: PgClient): Promise<void> {
  try {
    await client.query(`CREATE_REPLICATION_SLOT ${PROPOSER_SLOT} PHYSICAL RESERVE_WAL`);
  } catch (error) {
    if (!isStrataError(error) || error.details.sqlState !== DUPLICATE_OBJECT) throw error;
  }
}

/** Lets the server remove WAL below `lsn`. @throws StrataError `server-error` */
export async function releaseWal(platform: NetworkPlatform, server: LocalServer, lsn: Lsn): Promise<void> {
  const client = await connectLocal(platform, server, { database: "postgres", application_name: "strata_slot" });
  try {
    await client.query(`SELECT pg_catalog.pg_replication_slot_advance('${PROPOSER_SLOT}', '${lsnToString(lsn)}')`);
  } finally {
    await client.close();
  }
}
