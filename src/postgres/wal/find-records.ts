/**
 * Finds the first record at or after an LSN, and where valid WAL ends.
 *
 * The end of valid WAL matters because a server rewrites whole pages and recycles segments: behind the last record lie zeros
 * or remains of older WAL, which only prev links, page addresses and checksums tell from the real thing.
 *
 * Source: PostgreSQL access/transam/xlogreader.c (XLogFindNextRecord), access/transam/xlogrecovery.c (FinishWalRecovery).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { type StrataError, isStrataError } from "../../kit/errors.ts";
import { type Lsn, lsnAlign } from "../../kit/lsn.ts";
import { WAL_PAGE_SIZE } from "./constants.ts";
import { type WalGeometry, XLP_FIRST_IS_CONTRECORD, decodePageHeader, pageHeaderSize, skipPageHeader } from "./page-header.ts";
import { WalRecord } from "./record.ts";
import { WalStreamDecoder } from "./stream-decoder.ts";

export interface WalRange extends WalGeometry {
  /** Contiguous WAL whose first byte is at `lsn`, a page boundary. */
  readonly bytes: Uint8Array;
  readonly lsn: Lsn;
}

/**
 * The start of the first record at or after `from`; null when none begins in the range. `from` lies in the range.
 *
 * @throws StrataError corrupt, as `WalStreamDecoder.next`, when the WAL between the page of `from` and the record is damaged
 */
export function findFirstRecord(range: WalRange, from: Lsn): Lsn | null {
  const end = range.lsn + range.bytes.length;
  const first = firstRecordFromPage(range, from - (from % WAL_PAGE_SIZE));
  if (first === null || first >= from) return first;
  const decoder = new WalStreamDecoder(first, range.version, range.segmentSize);
  const record = new WalRecord();
  decoder.feed(range.bytes, range.lsn);
  while (decoder.next(record)) {
    if (record.endLsn < from) continue;
    const next = skipPageHeader(record.endLsn, range.segmentSize);
    return next < end ? next : null;
  }
  return null;
}

/** The first record that begins on the page at `pageLsn` or after: behind what the page continues. */
function firstRecordFromPage(range: WalRange, pageLsn: Lsn): Lsn | null {
  const end = range.lsn + range.bytes.length;
  for (let page = pageLsn; page < end; page += WAL_PAGE_SIZE) {
    const size = pageHeaderSize(page, range.segmentSize);
    if (end - page < size) return null;
    const header = decodePageHeader(dataViewOf(range.bytes.subarray(page - range.lsn)), page, range);
    const continued = (header.info & XLP_FIRST_IS_CONTRECORD) !== 0 ? lsnAlign(header.remainingLength) : 0;
    if (continued >= WAL_PAGE_SIZE - size) continue;
    const start = page + size + continued;
    return start < end ? start : null;
  }
  return null;
}

export interface EndOfWal {
  /** Where the next record would go: the end of the last valid one, or where the search began. */
  readonly endLsn: Lsn;
  /** Start of the last valid record; LSN_INVALID when there is none. */
  readonly lastRecordLsn: Lsn;
  /** Why the record at `endLsn` is not one; null when the segments ended within it or before. */
  readonly reason: StrataError | null;
}

/**
 * Reads records from `startLsn` (a record boundary or page start with a record) as long as they are valid. `segments` are
 * consecutive pieces of WAL, the first containing `startLsn` and beginning at `firstLsn`.
 */
export function findEndOfWal(segments: Iterable<Uint8Array>, start: WalGeometry & { readonly startLsn: Lsn; readonly firstLsn: Lsn }): EndOfWal {
  const decoder = new WalStreamDecoder(start.startLsn, start.version, start.segmentSize);
  const record = new WalRecord();
  let lastRecordLsn: Lsn = 0;
  let lsn = start.firstLsn;
  try {
    for (const segment of segments) {
      decoder.feed(segment, lsn);
      lsn += segment.length;
      while (decoder.next(record)) lastRecordLsn = record.lsn;
    }
  } catch (error) {
    if (!isStrataError(error) || error.kind !== "corrupt") throw error;
    return { endLsn: decoder.recordEnd, lastRecordLsn, reason: error };
  }
  return { endLsn: decoder.recordEnd, lastRecordLsn, reason: null };
}
