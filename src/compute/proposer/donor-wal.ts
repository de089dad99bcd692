/**
 * WAL that the local server never had, read from the safekeeper that was most advanced at our election (or another that
 * has caught up): what a lagging safekeeper needs before it can take ours.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Term } from "../../safekeeper/api/term-history.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import type { PgClient } from "../../wire/client.ts";
import { decodeSenderMessage, encodeStandbyStatus, postgresTimestamp } from "../../wire/replication-messages.ts";
import { type NetworkPlatform, type SafekeeperAddress, type TimelineConnection, connectSafekeeper, startRecovery } from "./safekeeper-client.ts";

/** A donor that says nothing for so long is given up: the reader is dropped and begins anew. */
const DONOR_TIMEOUT_MS = 15_000;

/** One reader for one lagging safekeeper; sequential reads go on with the same connection. */
export class DonorWal {
  readonly #platform: NetworkPlatform;
  readonly #timeline: TimelineConnection;
  readonly #term: Term;
  readonly #signal: AbortSignal;
  #client: PgClient | null = null;
  #stream: ClientCopyStream | null = null;
  #address: SafekeeperAddress | null = null;
  #lsn: Lsn = 0;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(options: { platform: NetworkPlatform; timeline: TimelineConnection; term: Term; signal: AbortSignal }) {
    this.#platform = options.platform;
    this.#timeline = options.timeline;
    this.#term = options.term;
    this.#signal = options.signal;
  }

  /** At least one byte from `lsn` on, at most `maxBytes`. @throws StrataError unavailable, corrupt `wal-not-continuous` */
  async read(donor: SafekeeperAddress, lsn: Lsn, maxBytes: number): Promise<Uint8Array> {
    const timer = this.#platform.clock.after(DONOR_TIMEOUT_MS, () => this.close());
    try {
      if (this.#stream === null || lsn !== this.#lsn || donor !== this.#address) await this.#open(donor, lsn);
      while (this.#rest.length === 0) await this.#receive();
    } catch (error) {
      this.close();
      throw error;
    } finally {
      timer.cancel();
    }
    const bytes = this.#rest.subarray(0, maxBytes);
    this.#rest = this.#rest.subarray(bytes.length);
    this.#lsn += bytes.length;
    return bytes;
  }

  close(): void {
    this.#client?.destroy();
    this.#client = null;
    this.#stream = null;
    this.#rest = new Uint8Array(0);
  }

  async #open(donor: SafekeeperAddress, lsn: Lsn): Promise<void> {
    this.close();
    this.#client = await connectSafekeeper(this.#platform, donor, { ...this.#timeline, signal: this.#signal });
    this.#stream = await startRecovery(this.#client, lsn, this.#term);
    this.#address = donor;
    this.#lsn = lsn;
  }

  async #receive(): Promise<void> {
    const stream = this.#stream;
    const payload = stream === null ? null : await stream.read();
    if (stream === null || payload === null) throw new StrataError("unavailable", "donor-lost", "the donor safekeeper ended its WAL stream");
    const message = decodeSenderMessage(payload);
    if (message.kind === "wal-data") {
      if (message.startLsn !== this.#lsn) {
        throw new StrataError("corrupt", "wal-not-continuous", `the donor sent WAL at ${lsnToString(message.startLsn)}, ${lsnToString(this.#lsn)} was next`);
      }
      this.#rest = message.data;
    } else if (message.replyRequested) {
      const status = { writeLsn: this.#lsn, flushLsn: this.#lsn, applyLsn: this.#lsn, replyRequested: false };
      stream.write(encodeStandbyStatus({ ...status, timestamp: postgresTimestamp(this.#platform.clock.wallMs()) }));
    }
  }
}
