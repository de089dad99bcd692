/**
 * A PostgreSQL as its proposer knows it: a server on the compute's own machine that writes WAL, streams it over the replication
 * protocol, and acknowledges commits when its one synchronous standby says so. The WAL is real, the work behind it is not.
 */
import { type Lsn, lsnToString, parseLsn } from "../../../src/kit/lsn.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import type { Logger } from "../../../src/observability/log.ts";
import type { Listener, Network } from "../../../src/platform/network.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { RMGR, WAL_PAGE_SIZE, XLOG_SWITCH } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord, type RecordSpec } from "../../../src/postgres/wal/encode-record.ts";
import type { RecordGenerator } from "../../../src/postgres/wal/generator.ts";
import { WalWriter } from "../../../src/postgres/wal/wal-writer.ts";
import type { PgHandler, PgSession } from "../../../src/wire/pg-session.ts";
import { decodeReceiverMessage, encodeKeepalive, encodeWalDataHeader, postgresTimestamp } from "../../../src/wire/replication-messages.ts";
import { servePg } from "../../../src/wire/serve.ts";

export const PG_VERSION_NUM = 170010;
export const SYSTEM_ID = 7_123_456_789_012_345_678n;
export const SEGMENT_SIZE = 1024 * 1024;
const PORT = 5432;
const VERSION = 17;
const MAX_PIECE_BYTES = 128 * 1024;

export interface VirtualPostgresOptions {
  readonly platform: Platform;
  readonly log: Logger;
  readonly random: SeededRandom;
  readonly host: string;
  readonly startLsn: Lsn;
  /** Start of the record that ends at `startLsn`. */
  readonly previousLsn: Lsn;
  /** A record's size, at most. */
  readonly recordMaxBytes: number;
  /** The commits in between have been acknowledged. */
  readonly onAcknowledged: (fromLsn: Lsn, lsn: Lsn) => void;
}

/** Records that no other server would write: what is in them comes from `random`. */
function randomRecords(random: SeededRandom, recordMaxBytes: number): RecordGenerator {
  return (): RecordSpec => {
    const sizeBytes = random.chance(0.95) ? 16 + random.below(200) : 16 + random.below(recordMaxBytes);
    const mainData = new Uint8Array(sizeBytes).fill(random.below(256));
    mainData.set(random.bytes(12), 4);
    return { version: VERSION, rmid: RMGR.LOGICALMSG, info: 0, mainData };
  };
}

export class VirtualPostgres {
  readonly startLsn: Lsn;
  readonly #options: VirtualPostgresOptions;
  readonly #writer: WalWriter;
  readonly #records: RecordGenerator;
  readonly #stop = new AbortController();
  #listener: Listener | null = null;
  #bytes = new Uint8Array(64 * 1024);
  #writtenLsn: Lsn;
  /** Up to here WAL is sent. */
  #flushLsn: Lsn;
  #acknowledgedLsn: Lsn;
  #wake: (() => void) | null = null;
  /** Incremented with every replication connection: an older one ends. */
  #stream = 0;

  constructor(options: VirtualPostgresOptions) {
    this.#options = options;
    const { startLsn, previousLsn, random, recordMaxBytes } = options;
    this.startLsn = startLsn;
    this.#writtenLsn = startLsn;
    this.#flushLsn = startLsn;
    this.#acknowledgedLsn = startLsn;
    this.#writer = new WalWriter({ version: VERSION, segmentSize: SEGMENT_SIZE, startLsn, previousLsn, systemId: SYSTEM_ID, timelineId: 1 });
    this.#records = randomRecords(random, recordMaxBytes);
  }

  get flushLsn(): Lsn {
    return this.#flushLsn;
  }

  /** The WAL of this server in the range. */
  bytes(from: Lsn, to: Lsn): Uint8Array {
    return this.#bytes.subarray(from - this.startLsn, to - this.startLsn);
  }

  async start(): Promise<void> {
    const { platform, log, host } = this.#options;
    this.#listener = await platform.network.listen({ host, port: PORT }, (connection) => {
      const handler: PgHandler = { connected: async () => undefined, query: (session, sql) => this.#query(session, sql), disconnected: () => undefined };
      void servePg(connection, handler, { auth: null, log, platform, signal: this.#stop.signal });
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake?.();
    await this.#listener?.close();
  }

  /** Writes some records and flushes, mostly to the end of the last of them, sometimes to a page boundary inside it. */
  work(): void {
    const { random } = this.#options;
    for (let count = 1 + random.below(4); count > 0; count--) this.#writer.append(encodeRecord(this.#records(0)));
    if (random.chance(0.002)) {
      this.#writer.append(encodeRecord({ version: VERSION, rmid: RMGR.XLOG, info: XLOG_SWITCH, mainData: new Uint8Array(0) }));
      this.#writer.fillSegment();
    }
    const fresh = this.#writer.take();
    this.#store(fresh);
    const pageLsn = this.#writtenLsn - (this.#writtenLsn % WAL_PAGE_SIZE);
    const flushLsn = random.chance(0.2) && pageLsn > this.#flushLsn ? pageLsn : this.#writtenLsn;
    this.#flushLsn = flushLsn;
    this.#wake?.();
  }

  #store(fresh: Uint8Array): void {
    const at = this.#writtenLsn - this.startLsn;
    if (at + fresh.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * (at + fresh.length));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
    }
    this.#bytes.set(fresh, at);
    this.#writtenLsn += fresh.length;
  }

  async #query(session: PgSession, sql: string): Promise<void> {
    if (sql.startsWith("CREATE_REPLICATION_SLOT")) return session.sendResult([{ name: "slot_name" }], [["slot"]], "CREATE_REPLICATION_SLOT");
    if (sql.includes("pg_replication_slot_advance")) return session.sendResult([{ name: "pg_replication_slot_advance" }], [["()"]], "SELECT 1");
    const match = /^START_REPLICATION PHYSICAL (\S+) TIMELINE 1$/.exec(sql);
    if (match === null) throw new StrataError("fix-input", "syntax-error", `unexpected command: ${sql}`);
    await this.#replicate(session, parseLsn(match[1]));
  }

  async #replicate(session: PgSession, fromLsn: Lsn): Promise<void> {
    const { platform } = this.#options;
    if (fromLsn < this.startLsn || fromLsn > this.#flushLsn) throw new StrataError("fix-input", "bad-lsn", `no WAL at ${lsnToString(fromLsn)}`);
    const mine = ++this.#stream;
    this.#wake?.();
    const copy = session.copyBoth();
    const over = (): boolean => session.signal.aborted || this.#stop.signal.aborted || mine !== this.#stream;
    void this.#readReplies(copy).catch(() => undefined).finally(() => this.#wake?.());
    const timestamp = (): bigint => postgresTimestamp(platform.clock.wallMs());
    for (let lsn = fromLsn; !over(); ) {
      if (lsn < this.#flushLsn) {
        const end = Math.min(this.#flushLsn, lsn + MAX_PIECE_BYTES);
        copy.write(encodeWalDataHeader({ startLsn: lsn, endLsn: end, timestamp: timestamp() }), this.bytes(lsn, end).slice());
        lsn = end;
      } else {
        if (this.#options.random.chance(0.1)) copy.write(encodeKeepalive({ endLsn: lsn, timestamp: timestamp(), replyRequested: true }));
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    }
  }

  async #readReplies(copy: ReturnType<PgSession["copyBoth"]>): Promise<void> {
    for (let bytes = await copy.read(); bytes !== null; bytes = await copy.read()) {
      const reply = decodeReceiverMessage(bytes);
      if (reply.kind !== "standby-status" || reply.flushLsn <= this.#acknowledgedLsn) continue;
      const before = this.#acknowledgedLsn;
      this.#acknowledgedLsn = reply.flushLsn;
      this.#options.onAcknowledged(before, reply.flushLsn);
    }
  }
}

/** The network of a compute: what goes to the server's socket file goes to the server above. */
export function withLocalServer(network: Network, host: string): Network {
  return {
    listen: (address, accept) => network.listen(address, accept),
    connect: (address, options) => network.connect("unixPath" in address ? { host, port: PORT } : address, options),
    upgradeToTlsServer: (connection, options) => network.upgradeToTlsServer(connection, options),
    upgradeToTlsClient: (connection, options) => network.upgradeToTlsClient(connection, options),
  };
}
