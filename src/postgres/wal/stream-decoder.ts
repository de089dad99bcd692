/**
 * Cuts a stream of WAL bytes into records.
 *
 * Bytes come in pieces of any size (`feed`), records go out one by one (`next`). Where a record lies whole within one page
 * of one piece, it is decoded in place: nothing is copied and nothing allocated. Otherwise its parts are collected in a
 * buffer that is reused.
 *
 * Invariants: `#pieceLsn + #taken` is the LSN of the next byte to look at, `#pageOffset` its place on its page; `#recordLength
 * > 0` exactly while the parts of the record at `#recordLsn` are being collected; while `#taken < #runEnd` a record begins at
 * `#taken`, and nothing is collected or skipped; when `next` returns false every byte fed has been taken.
 *
 * LSNs are doubles to the engine, and what is computed from a double stays one: an offset made from an LSN turns every access
 * that uses it into a slow one (a factor of 20 here). So offsets and lengths are kept apart from LSNs, as small integers.
 *
 * Source: PostgreSQL access/transam/xlogreader.c (XLogDecodeNextRecord).
 */
import { allocateBytes } from "../../kit/buffers.ts";
import { dataViewOf } from "../../kit/bytes.ts";
import { copyBytes } from "../../kit/copy.ts";
import { StrataError, invariant } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { PgMajor } from "../versions/major.ts";
import { RECORD_HEADER_SIZE, RECORD_SIZE_MAX, RMGR, WAL_PAGE_SIZE, XLOG_SWITCH, XLR_RMGR_INFO_MASK } from "./constants.ts";
import { ChecksumRuns } from "./checksum-run.ts";
import { decodeFragments, decodeInPlace, decodeRecordHeader } from "./decode-record.ts";
import {
  LONG_HEADER_SIZE,
  type WalGeometry,
  type WalPageHeader,
  XLP_FIRST_IS_CONTRECORD,
  XLP_FIRST_IS_OVERWRITE_CONTRECORD,
  checkSegmentSize,
  decodePageHeader,
  pageHeaderSize,
} from "./page-header.ts";
import { WalRecord } from "./record.ts";

const PAGE_OFFSET_MASK = WAL_PAGE_SIZE - 1;
const FIRST_BUFFER_BYTES = 2 * WAL_PAGE_SIZE;
/** A buffer grown beyond this for one record is not kept for the next. */
const KEPT_BUFFER_BYTES = 1024 * 1024;

export class WalStreamDecoder {
  readonly #geometry: WalGeometry;
  /** The piece last fed, and what of it has been taken. */
  #piece: Uint8Array = new Uint8Array(0);
  #pieceView: DataView = dataViewOf(this.#piece);
  #pieceLsn: Lsn;
  /** Where on its page the piece begins. */
  #pieceInPage: number;
  #taken = 0;
  #runs = new ChecksumRuns();
  /** Up to here in the piece lie records, whole on their page, whose checksums are known to be right. */
  #runEnd = 0;
  /** Up to here in the piece each record's checksum is to be checked by itself. */
  #singlyEnd = 0;
  /** How many of the next bytes are padding or the rest of a switched segment: not looked at. */
  #skip = 0;
  #header = new Uint8Array(LONG_HEADER_SIZE);
  #headerView = dataViewOf(this.#header);
  #headerLength = 0;
  /** The record being collected. */
  #buffer = new Uint8Array(FIRST_BUFFER_BYTES);
  #bufferView = dataViewOf(this.#buffer);
  #recordLsn: Lsn = 0;
  #recordLength = 0;
  #collected = 0;
  #scratch = new WalRecord();
  /** Start of the last record returned: what the next one's prev link must say. 0 before the first. */
  #previousLsn: Lsn = 0;
  #recordEnd: Lsn;
  #timelineId = 0;

  /**
   * @param startLsn a record boundary, or the start of a page or segment on which a record begins
   * @throws StrataError fix-input `bad-start-lsn`, `bad-segment-size`
   */
  constructor(startLsn: Lsn, version: PgMajor, segmentSize: number) {
    checkSegmentSize(segmentSize);
    const inPage = startLsn % WAL_PAGE_SIZE;
    if (startLsn % 8 !== 0 || (inPage !== 0 && inPage < pageHeaderSize(startLsn - inPage, segmentSize))) {
      throw new StrataError("fix-input", "bad-start-lsn", `no WAL record can start at ${lsnToString(startLsn)}`);
    }
    this.#geometry = { version, segmentSize };
    this.#pieceLsn = startLsn;
    this.#pieceInPage = inPage | 0;
    this.#recordEnd = startLsn;
  }

  /** LSN of the next byte that `feed` expects. */
  get position(): Lsn {
    return this.#pieceLsn + this.#piece.length;
  }

  /** End of the last record returned by `next` (the start LSN before the first): where a new decoder would go on. */
  get recordEnd(): Lsn {
    return this.#recordEnd;
  }

  /**
   * Hands over the next bytes of the log. They are borrowed until `next` has returned false. Bytes below `position` (when
   * `lsnOfBytes` says so) are ignored: a sender may repeat itself.
   *
   * @throws StrataError corrupt `wal-gap` when `lsnOfBytes` is beyond `position`
   */
  feed(bytes: Uint8Array, lsnOfBytes?: Lsn): void {
    invariant(this.#taken === this.#piece.length, "WAL fed before next() returned false");
    const { position } = this;
    let known = 0;
    if (lsnOfBytes !== undefined && lsnOfBytes !== position) {
      if (lsnOfBytes > position) throw corrupt("wal-gap", position, `the bytes that come next are those of ${lsnToString(lsnOfBytes)}`);
      known = Math.min(position - lsnOfBytes, bytes.length) | 0;
      // Nothing new: as if nothing had come.
      if (known === bytes.length) return;
    }
    this.#pieceInPage = (this.#pieceInPage + this.#piece.length - known) & PAGE_OFFSET_MASK;
    if (bytes !== this.#piece) {
      this.#piece = bytes;
      this.#pieceView = dataViewOf(bytes);
    }
    this.#pieceLsn = position - known;
    this.#taken = known;
    this.#runs.clear();
    this.#runEnd = 0;
    this.#singlyEnd = 0;
  }

  /**
   * Decodes the next record into `into`; false when more bytes are needed. `into` borrows the piece fed or this decoder's
   * buffer: it is good until the next call of `next`, as long as the caller leaves the piece alone.
   *
   * @throws StrataError corrupt `wal-bad-page-header`, `wal-bad-contrecord`, `wal-bad-record`, `wal-bad-prev-link`,
   * `wal-bad-crc`; the decoder is of no use after that
   */
  next(into: WalRecord): boolean {
    const start = this.#taken;
    if (start >= this.#runEnd) return this.#nextOfAny(into);
    // The common case is all here and in the two functions called first: see `decodeFragments`.
    const view = this.#pieceView;
    if (into.view !== view) {
      into.bytes = this.#piece;
      into.view = view;
    }
    const length = view.getInt32(start, true);
    const aligned = (length + 7) & ~7;
    const lsn = this.#pieceLsn + start;
    into.version = this.#geometry.version;
    into.start = start;
    into.totalLength = length;
    into.lsn = lsn;
    into.endLsn = lsn + aligned;
    decodeRecordHeader(into);
    decodeFragments(into);
    this.#taken = start + aligned;
    if (into.prevLsn !== this.#previousLsn || into.rmid === RMGR.XLOG) this.#follow(into);
    this.#previousLsn = lsn;
    this.#recordEnd = into.endLsn;
    return true;
  }

  #nextOfAny(into: WalRecord): boolean {
    while (this.#taken < this.#piece.length) {
      if (this.#skip > 0) {
        const part = Math.min(this.#skip, this.#piece.length - this.#taken);
        this.#skip -= part;
        this.#taken += part;
      } else if (this.#pageOffset === 0 || this.#headerLength > 0) {
        this.#takePageHeader();
      } else if (this.#recordLength !== 0 || this.#collected !== 0) {
        if (this.#collect(into)) return true;
      } else if (this.#takeInPlace(into)) {
        return true;
      }
    }
    return false;
  }

  get #pageOffset(): number {
    return (this.#pieceInPage + this.#taken) & PAGE_OFFSET_MASK;
  }

  #takePageHeader(): void {
    const pageLsn = this.#pieceLsn + this.#taken - this.#headerLength;
    const size = pageHeaderSize(pageLsn, this.#geometry.segmentSize);
    // Copied even when it is whole: that is quicker than making a view of it.
    const part = Math.min(this.#piece.length - this.#taken, size - this.#headerLength);
    copyBytes(this.#piece, this.#taken, this.#header, this.#headerLength, part);
    this.#headerLength += part;
    this.#taken += part;
    if (this.#headerLength < size) return;
    this.#headerLength = 0;
    this.#enterPage(decodePageHeader(this.#headerView, pageLsn, this.#geometry));
  }

  /** Checks that the page goes on with what the page before left unfinished. */
  #enterPage(header: WalPageHeader): void {
    if (header.timelineId < this.#timelineId) {
      throw corrupt("wal-bad-page-header", header.pageLsn, `timeline ${header.timelineId} after ${this.#timelineId}`);
    }
    this.#timelineId = header.timelineId;
    if ((header.info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) !== 0) {
      this.#dropCollected();
      return;
    }
    const expected = this.#recordLength - this.#collected;
    const continued = (header.info & XLP_FIRST_IS_CONTRECORD) !== 0;
    if (continued === expected > 0 && (!continued || header.remainingLength === expected)) return;
    const stated = continued ? `${header.remainingLength} bytes` : "nothing";
    throw corrupt("wal-bad-contrecord", header.pageLsn, `the page continues a record with ${stated}, ${expected} bytes are missing`);
  }

  /** The common case: a record whole on this page and in this piece. Else begins to collect it and returns false. */
  #takeInPlace(into: WalRecord): boolean {
    const start = this.#taken;
    const limit = Math.min(this.#piece.length - start, WAL_PAGE_SIZE - this.#pageOffset);
    const lsn = this.#pieceLsn + start;
    const length = limit < 4 ? 0 : this.#pieceView.getInt32(start, true);
    if (limit >= 4) this.#checkLength(length, lsn);
    if (limit < 4 || length > limit) {
      this.#recordLsn = lsn;
      this.#collectPart(limit);
      return false;
    }
    into.bytes = this.#piece;
    into.view = this.#pieceView;
    into.version = this.#geometry.version;
    into.start = start;
    into.totalLength = length;
    into.lsn = lsn;
    const padding = -length & 7;
    into.endLsn = lsn + length + padding;
    if (start >= this.#singlyEnd) this.#checkRun(start, start + limit);
    decodeInPlace(into, start >= this.#runEnd);
    // Of padding that is not here yet nothing is taken: runs of records know no `#skip`.
    const whole = length + padding <= limit;
    this.#taken += whole ? length + padding : length;
    this.#skip = whole ? 0 : padding;
    this.#follow(into);
    return true;
  }

  /** `limit`: where the page or the piece ends. */
  #checkRun(start: number, limit: number): void {
    this.#runEnd = this.#runs.endOf(this.#piece, this.#pieceView, start, this.#pageOffset);
    if (this.#runEnd === start) this.#singlyEnd = limit;
  }

  /** Adds to the record being collected; true when it is whole, and decoded into `into`. */
  #collect(into: WalRecord): boolean {
    // Until the length is known (always on the record's first page) take no more than the four bytes that say it.
    const missing = (this.#recordLength === 0 ? 4 : this.#recordLength) - this.#collected;
    this.#collectPart(Math.min(missing, this.#piece.length - this.#taken, WAL_PAGE_SIZE - this.#pageOffset));
    if (this.#recordLength === 0 || this.#collected < this.#recordLength) return false;
    into.bytes = this.#buffer;
    into.view = this.#bufferView;
    into.start = 0;
    into.lsn = this.#recordLsn;
    into.totalLength = this.#recordLength;
    const padding = -this.#pageOffset & 7;
    into.endLsn = this.#pieceLsn + this.#taken + padding;
    into.version = this.#geometry.version;
    this.#dropCollected();
    decodeInPlace(into, true);
    this.#skip = padding;
    this.#follow(into);
    if (this.#buffer.length > KEPT_BUFFER_BYTES) this.#replaceBuffer(FIRST_BUFFER_BYTES);
    return true;
  }

  #collectPart(length: number): void {
    const before = this.#collected;
    this.#makeRoom(before + length);
    copyBytes(this.#piece, this.#taken, this.#buffer, before, length);
    this.#collected = before + length;
    this.#taken += length;
    if (before < 4 && this.#collected >= 4) {
      this.#recordLength = this.#bufferView.getInt32(0, true);
      this.#checkLength(this.#recordLength, this.#recordLsn);
    }
    if (before < RECORD_HEADER_SIZE && this.#collected >= RECORD_HEADER_SIZE) this.#checkCollectedHeader();
  }

  /** A record in parts is checked as soon as its header is whole, before its length makes the buffer grow. */
  #checkCollectedHeader(): void {
    const scratch = this.#scratch;
    scratch.view = this.#bufferView;
    scratch.version = this.#geometry.version;
    scratch.lsn = this.#recordLsn;
    scratch.totalLength = this.#recordLength;
    decodeRecordHeader(scratch);
    this.#checkPreviousLink(scratch.prevLsn, this.#recordLsn);
  }

  /** Grows with the bytes that have come, never on a stated length alone. */
  #makeRoom(length: number): void {
    if (length <= this.#buffer.length) return;
    const old = this.#buffer;
    this.#replaceBuffer(Math.max(length, old.length * 2));
    copyBytes(old, 0, this.#buffer, 0, this.#collected);
  }

  #replaceBuffer(size: number): void {
    this.#buffer = allocateBytes(size);
    this.#bufferView = dataViewOf(this.#buffer);
  }

  #dropCollected(): void {
    this.#recordLength = 0;
    this.#collected = 0;
  }

  /** What holds between the records: the previous-record link, and the rest of the segment skipped after a switch record. */
  #follow(into: WalRecord): void {
    const { lsn } = into;
    if (into.prevLsn !== this.#previousLsn) this.#checkPreviousLink(into.prevLsn, lsn);
    if (into.rmid === RMGR.XLOG) this.#leaveSwitchedSegment(into);
    this.#previousLsn = lsn;
    this.#recordEnd = into.endLsn;
  }

  #leaveSwitchedSegment(into: WalRecord): void {
    if ((into.info & XLR_RMGR_INFO_MASK) !== XLOG_SWITCH) return;
    const { segmentSize } = this.#geometry;
    const unused = (segmentSize - (into.endLsn % segmentSize)) % segmentSize;
    into.endLsn += unused;
    this.#skip += unused | 0;
    this.#runEnd = 0;
  }

  #checkLength(length: number, lsn: Lsn): void {
    if (length >= RECORD_HEADER_SIZE && length <= RECORD_SIZE_MAX) return;
    throw corrupt("wal-bad-record", lsn, `a record of ${length} bytes`);
  }

  #checkPreviousLink(link: Lsn, lsn: Lsn): void {
    if (this.#previousLsn === 0 ? link < lsn : link === this.#previousLsn) return;
    const expected = this.#previousLsn === 0 ? "below its own" : lsnToString(this.#previousLsn);
    throw corrupt("wal-bad-prev-link", lsn, `the record before is said to be at ${lsnToString(link)}, expected ${expected}`);
  }
}

function corrupt(code: string, lsn: Lsn, what: string): StrataError {
  return new StrataError("corrupt", code, `WAL at ${lsnToString(lsn)}: ${what}`, { details: { lsn: lsnToString(lsn) } });
}

