/**
 * The header of an 8 KiB WAL page.
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 2 | xlp_magic: tells the PostgreSQL version |
 * | 2 | 2 | xlp_info: flags |
 * | 4 | 4 | xlp_tli: timeline of the first record on the page |
 * | 8 | 8 | xlp_pageaddr: LSN of the page |
 * | 16 | 4 | xlp_rem_len: what is left of a record that began on an earlier page |
 * | 20 | 4 | padding |
 * | 24 | 8 | xlp_sysid, first page of a segment only (long header) |
 * | 32 | 4 | xlp_seg_size, long header only |
 * | 36 | 4 | xlp_xlog_blcksz, long header only |
 *
 * Little-endian. Source: PostgreSQL access/xlog_internal.h, access/transam/xlogreader.c (XLogReaderValidatePageHeader).
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnHigh, lsnLow, lsnToString } from "../../kit/lsn.ts";
import type { PgMajor } from "../versions/major.ts";
import { VERSION_CONSTANTS } from "../versions/constants.ts";
import { WAL_PAGE_SIZE } from "./constants.ts";

export const SHORT_HEADER_SIZE = 24;
export const LONG_HEADER_SIZE = 40;

export const XLP_FIRST_IS_CONTRECORD = 0x0001;
export const XLP_LONG_HEADER = 0x0002;
export const XLP_BKP_REMOVABLE = 0x0004;
export const XLP_FIRST_IS_OVERWRITE_CONTRECORD = 0x0008;
const XLP_ALL_FLAGS = 0x000f;

const SEGMENT_SIZE_MIN = 1024 * 1024;
const SEGMENT_SIZE_MAX = 1024 * 1024 * 1024;
const U32 = 0x1_0000_0000;

export interface WalPageHeader {
  readonly info: number;
  readonly timelineId: number;
  readonly pageLsn: Lsn;
  readonly remainingLength: number;
  /** Only in a long header; 0n else. */
  readonly systemId: bigint;
}

/** What every page of one log shares. */
export interface WalGeometry {
  readonly version: PgMajor;
  readonly segmentSize: number;
}

/** Size of the header of the page at `pageLsn`: the first of a segment has the long one. */
export function pageHeaderSize(pageLsn: Lsn, segmentSize: number): number {
  return pageLsn % segmentSize === 0 ? LONG_HEADER_SIZE : SHORT_HEADER_SIZE;
}

/** @throws StrataError fix-input `bad-segment-size` unless a power of two from 1 MiB to 1 GiB */
export function checkSegmentSize(segmentSize: number): void {
  const powerOfTwo = Number.isInteger(segmentSize) && (segmentSize & (segmentSize - 1)) === 0;
  if (powerOfTwo && segmentSize >= SEGMENT_SIZE_MIN && segmentSize <= SEGMENT_SIZE_MAX) return;
  throw new StrataError("fix-input", "bad-segment-size", `${segmentSize} is not a WAL segment size`);
}

/** The first byte at or after `lsn` that can hold a record: skips a page header when `lsn` points at or into one. */
export function skipPageHeader(lsn: Lsn, segmentSize: number): Lsn {
  const inPage = lsn % WAL_PAGE_SIZE;
  const pageLsn = lsn - inPage;
  const size = pageHeaderSize(pageLsn, segmentSize);
  return inPage < size ? pageLsn + size : lsn;
}

/**
 * Decodes the header of the page at `pageLsn`; `bytes` begins with it, whole (24 or 40 bytes by `pageHeaderSize`).
 *
 * @throws StrataError corrupt `wal-bad-page-header`
 */
export function decodePageHeader(bytes: DataView, pageLsn: Lsn, geometry: WalGeometry): WalPageHeader {
  const magic = bytes.getUint16(0, true);
  const info = bytes.getUint16(2, true);
  const addressHigh = bytes.getUint32(12, true);
  const long = pageLsn % geometry.segmentSize === 0;
  if (magic !== VERSION_CONSTANTS[geometry.version].walPageMagic) throw badHeader(pageLsn, `magic number ${magic.toString(16)}`);
  if ((info & ~XLP_ALL_FLAGS) !== 0) throw badHeader(pageLsn, `unknown flags ${info.toString(16)}`);
  if (((info & XLP_LONG_HEADER) !== 0) !== long) throw badHeader(pageLsn, `flags ${info.toString(16)} for ${long ? "the first page" : "an inner page"} of a segment`);
  const address = addressHigh * U32 + bytes.getUint32(8, true);
  if (address !== pageLsn) throw badHeader(pageLsn, `address ${addressHigh.toString(16)}/${bytes.getUint32(8, true).toString(16)}`);
  if (long && bytes.getUint32(32, true) !== geometry.segmentSize) throw badHeader(pageLsn, `segment size ${bytes.getUint32(32, true)}`);
  if (long && bytes.getUint32(36, true) !== WAL_PAGE_SIZE) throw badHeader(pageLsn, `page size ${bytes.getUint32(36, true)}`);
  return {
    info,
    timelineId: bytes.getUint32(4, true),
    pageLsn,
    remainingLength: bytes.getUint32(16, true),
    systemId: long ? bytes.getBigUint64(24, true) : 0n,
  };
}

/** Writes the header at the start of `page`, 24 or 40 bytes; returns its size. The long-header flag is set as needed. */
export function encodePageHeader(header: WalPageHeader, geometry: WalGeometry, page: DataView): number {
  const size = pageHeaderSize(header.pageLsn, geometry.segmentSize);
  const long = size === LONG_HEADER_SIZE;
  page.setUint16(0, VERSION_CONSTANTS[geometry.version].walPageMagic, true);
  page.setUint16(2, header.info | (long ? XLP_LONG_HEADER : 0), true);
  page.setUint32(4, header.timelineId, true);
  page.setUint32(8, lsnLow(header.pageLsn), true);
  page.setUint32(12, lsnHigh(header.pageLsn), true);
  page.setUint32(16, header.remainingLength, true);
  page.setUint32(20, 0, true);
  if (long) {
    page.setBigUint64(24, header.systemId, true);
    page.setUint32(32, geometry.segmentSize, true);
    page.setUint32(36, WAL_PAGE_SIZE, true);
  }
  return size;
}

function badHeader(pageLsn: Lsn, what: string): StrataError {
  const lsn = lsnToString(pageLsn);
  return new StrataError("corrupt", "wal-bad-page-header", `WAL page at ${lsn}: ${what}`, { details: { lsn } });
}
