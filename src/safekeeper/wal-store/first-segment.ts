/**
 * The part of a timeline's first segment that nobody ever sent: a timeline begins in the middle of a segment, but readers
 * (pg_receivewal, a standby, pg_waldump) want the segment whole. It is zeros but for two page headers, a pure function of
 * (PostgreSQL version, segment size, system id, start LSN), and so the same on every safekeeper:
 *
 * - the long header at the start of the segment, and
 * - the header of the page on which the timeline starts. It claims that a record from before ends exactly at the start,
 *   so that a reader that begins with this page finds the first real record.
 *
 * Source: PostgreSQL access/transam/xlogreader.c (XLogFindNextRecord); the peer libs/postgres_ffi (generate_wal_segment).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { decodePageHeader, encodePageHeader, LONG_HEADER_SIZE, pageHeaderSize, type WalGeometry, XLP_FIRST_IS_CONTRECORD } from "../../postgres/wal/page-header.ts";
import { POSTGRES_TIMELINE } from "./segments.ts";

export interface HeaderBytes {
  readonly lsn: Lsn;
  readonly bytes: Uint8Array;
}

/** The headers to write; everything else below `startLsn` in its segment is zero. None when it starts a segment. */
export function firstSegmentHeaders(geometry: WalGeometry, systemId: bigint, startLsn: Lsn): HeaderBytes[] {
  const segmentLsn = startLsn - (startLsn % geometry.segmentSize);
  const pageLsn = startLsn - (startLsn % WAL_PAGE_SIZE);
  const lsns = [...new Set([segmentLsn, pageLsn])].filter((lsn) => lsn < startLsn);
  return lsns.map((lsn) => ({ lsn, bytes: headerAt(lsn, startLsn, { geometry, systemId }) }));
}

function headerAt(pageLsn: Lsn, startLsn: Lsn, wal: { geometry: WalGeometry; systemId: bigint }): Uint8Array {
  const size = pageHeaderSize(pageLsn, wal.geometry.segmentSize);
  const startsHere = startLsn - pageLsn < WAL_PAGE_SIZE;
  const remainingLength = startsHere ? Math.max(0, startLsn - pageLsn - size) : 0;
  const page = new Uint8Array(LONG_HEADER_SIZE);
  const info = remainingLength > 0 ? XLP_FIRST_IS_CONTRECORD : 0;
  encodePageHeader({ info, timelineId: POSTGRES_TIMELINE, pageLsn, remainingLength, systemId: wal.systemId }, wal.geometry, dataViewOf(page));
  return page.subarray(0, Math.min(size, startLsn - pageLsn));
}

/**
 * The other way round: where the timeline starts whose first segment this is, or its beginning. Null when it is none: what lies below
 * is not as above. A start that ends a page and one behind the next page's header look alike: that is the former.
 */
export function startInFirstSegment(segment: Uint8Array, segmentLsn: Lsn, geometry: WalGeometry): Lsn | null {
  const isZero = (from: Lsn, to: Lsn): boolean => segment.subarray(from - segmentLsn, to - segmentLsn).every((byte) => byte === 0);
  for (let pageLsn = segmentLsn; pageLsn < segmentLsn + segment.length; pageLsn += WAL_PAGE_SIZE) {
    const size = pageHeaderSize(pageLsn, geometry.segmentSize);
    if (isZero(pageLsn + size, Math.min(segmentLsn + segment.length, pageLsn + WAL_PAGE_SIZE)) && (pageLsn === segmentLsn || isZero(pageLsn, pageLsn + size))) continue;
    const bytes = segment.subarray(pageLsn - segmentLsn);
    if (bytes.length < size) return null;
    const { info, remainingLength } = decodePageHeader(dataViewOf(bytes), pageLsn, geometry);
    if ((info & XLP_FIRST_IS_CONTRECORD) === 0) return pageLsn;
    const startLsn = pageLsn + size + remainingLength;
    return remainingLength < WAL_PAGE_SIZE - size && isZero(pageLsn + size, startLsn) ? startLsn : null;
  }
  return null;
}

/** Writes what lies below the timeline's start into `into`, whose first byte is that of `lsn`. */
export function fillFirstSegment(into: Uint8Array, lsn: Lsn, headers: readonly HeaderBytes[]): void {
  into.fill(0);
  for (const header of headers) {
    const from = Math.max(lsn, header.lsn);
    const to = Math.min(lsn + into.length, header.lsn + header.bytes.length);
    if (from < to) into.set(header.bytes.subarray(from - header.lsn, to - header.lsn), from - lsn);
  }
}
