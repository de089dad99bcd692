/**
 * Lays records out as WAL: page headers, continuations over pages and segments, alignment, prev links and checksums.
 *
 * Source: PostgreSQL access/transam/xlog.c (CopyXLogRecordToWAL, AdvanceXLInsertBuffer).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { copyBytes } from "../../kit/copy.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnAlign, lsnToString } from "../../kit/lsn.ts";
import { WAL_PAGE_SIZE } from "./constants.ts";
import { sealRecord } from "./encode-record.ts";
import { LONG_HEADER_SIZE, type WalGeometry, XLP_FIRST_IS_CONTRECORD, checkSegmentSize, encodePageHeader, pageHeaderSize } from "./page-header.ts";

export interface WalWriterOptions extends WalGeometry {
  /** A record boundary or the start of a page. */
  readonly startLsn: Lsn;
  /** The record before, for the first record's link. */
  readonly previousLsn: Lsn;
  readonly systemId: bigint;
  readonly timelineId: number;
}

export interface RecordPlace {
  readonly lsn: Lsn;
  /** First byte after it, 8-aligned. */
  readonly endLsn: Lsn;
}

export class WalWriter {
  readonly #options: WalWriterOptions;
  #bytes: Uint8Array = new Uint8Array(4 * WAL_PAGE_SIZE);
  #length = 0;
  #position: Lsn;
  #previousLsn: Lsn;

  /** @throws StrataError fix-input `bad-start-lsn`, `bad-segment-size` */
  constructor(options: WalWriterOptions) {
    checkSegmentSize(options.segmentSize);
    const inPage = options.startLsn % WAL_PAGE_SIZE;
    if (options.startLsn % 8 !== 0 || (inPage !== 0 && inPage < pageHeaderSize(options.startLsn - inPage, options.segmentSize))) {
      throw new StrataError("fix-input", "bad-start-lsn", `no WAL record can start at ${lsnToString(options.startLsn)}`);
    }
    this.#options = options;
    this.#position = options.startLsn;
    this.#previousLsn = options.previousLsn;
  }

  /** Where the next byte goes: the end of the last record. */
  get position(): Lsn {
    return this.#position;
  }

  /** Start of the last record written. */
  get previousLsn(): Lsn {
    return this.#previousLsn;
  }

  /** Seals `record` (from `encodeRecord`) and writes it. */
  append(record: Uint8Array): RecordPlace {
    if (this.#position % WAL_PAGE_SIZE === 0) this.#startPage(0);
    const lsn = this.#position;
    sealRecord(record, this.#previousLsn);
    this.#previousLsn = lsn;
    for (let done = 0; done < record.length; ) {
      if (this.#position % WAL_PAGE_SIZE === 0) this.#startPage(record.length - done);
      const part = Math.min(record.length - done, WAL_PAGE_SIZE - (this.#position % WAL_PAGE_SIZE));
      const at = this.#extend(part);
      copyBytes(record, done, this.#bytes, at, part);
      done += part;
    }
    this.#extend(lsnAlign(this.#position) - this.#position);
    return { lsn, endLsn: this.#position };
  }

  /** Fills with zeros to the end of the segment, as follows a switch record. */
  fillSegment(): void {
    const { segmentSize } = this.#options;
    this.#extend((segmentSize - (this.#position % segmentSize)) % segmentSize);
  }

  /** The bytes written since the last call, the caller's own; the first begin at the start LSN. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#bytes = new Uint8Array(Math.max(4 * WAL_PAGE_SIZE, this.#length));
    this.#length = 0;
    return taken;
  }

  #startPage(remainingLength: number): void {
    const { systemId, timelineId } = this.#options;
    const info = remainingLength > 0 ? XLP_FIRST_IS_CONTRECORD : 0;
    const header = { info, timelineId, pageLsn: this.#position, remainingLength, systemId };
    const at = this.#extend(pageHeaderSize(this.#position, this.#options.segmentSize));
    encodePageHeader(header, this.#options, dataViewOf(this.#bytes.subarray(at, at + LONG_HEADER_SIZE)));
  }

  /** Makes room for `length` zero bytes at the position and moves it; returns their offset. */
  #extend(length: number): number {
    const at = this.#length;
    this.#length += length;
    this.#position += length;
    if (this.#length + LONG_HEADER_SIZE > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length + LONG_HEADER_SIZE, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
    }
    return at;
  }
}
