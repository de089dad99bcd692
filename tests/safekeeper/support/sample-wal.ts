/** Valid WAL without a server: records that mean nothing (XLOG_NOOP), of chosen sizes. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import type { WalGeometry } from "../../../src/postgres/wal/page-header.ts";
import { WalWriter } from "../../../src/postgres/wal/wal-writer.ts";

const NOOP = 0x20;
export const MIB = 1024 * 1024;
/** The smallest segments PostgreSQL allows: crossings come soon. */
export const SMALL_SEGMENTS: WalGeometry = { version: 17, segmentSize: MIB };

export class SampleWal {
  readonly startLsn: Lsn;
  readonly #writer: WalWriter;
  #bytes: Uint8Array = new Uint8Array(0);
  /** Ends of the records, ascending. */
  readonly ends: Lsn[] = [];
  readonly #starts: Lsn[] = [];
  #filler: number;

  /** @param seed makes logs of different content */
  constructor(startLsn: Lsn, options: { geometry?: WalGeometry; seed?: number; previousLsn?: Lsn } = {}) {
    this.startLsn = startLsn;
    this.#filler = options.seed ?? 1;
    const previousLsn = options.previousLsn ?? startLsn - 100;
    this.#writer = new WalWriter({ ...(options.geometry ?? SMALL_SEGMENTS), startLsn, previousLsn, systemId: 7n, timelineId: 1 });
  }

  get endLsn(): Lsn {
    return this.startLsn + this.#bytes.length;
  }
  get lastRecordLsn(): Lsn {
    return this.#writer.previousLsn;
  }

  /** Adds a record with `dataBytes` of content; returns its end. */
  add(dataBytes: number): Lsn {
    const endLsn = this.#write(dataBytes);
    this.#bytes = Buffer.concat([this.#bytes, this.#writer.take()]);
    return endLsn;
  }

  /** Adds records until the log reaches `lsn`. */
  growTo(lsn: Lsn, dataBytes = 4000): this {
    while (this.#writer.position < lsn) this.#write(dataBytes);
    this.#bytes = Buffer.concat([this.#bytes, this.#writer.take()]);
    return this;
  }

  #write(dataBytes: number): Lsn {
    const data = new Uint8Array(dataBytes).fill(this.#filler++ & 0xff);
    const { lsn, endLsn } = this.#writer.append(encodeRecord({ version: 17, rmid: RMGR.XLOG, info: NOOP, mainData: data }));
    this.ends.push(endLsn);
    this.#starts.push(lsn);
    return endLsn;
  }

  /** End and start of each record. */
  get records(): readonly (readonly [Lsn, Lsn])[] {
    return this.ends.map((end, index) => [end, this.#starts[index]] as const);
  }

  bytes(from: Lsn = this.startLsn, to: Lsn = this.endLsn): Uint8Array {
    return this.#bytes.subarray(from - this.startLsn, to - this.startLsn);
  }

  /** End of the last record at or below `lsn`; the start when there is none. */
  lastEnd(lsn: Lsn): Lsn {
    return this.ends.findLast((end) => end <= lsn) ?? this.startLsn;
  }
}
