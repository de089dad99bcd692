/**
 * pg_xact: two bits a transaction, four transactions a byte, lowest bits first.
 *
 * Source: PostgreSQL access/clog.h, access/transam/clog.c (TransactionIdSetStatusBit).
 */
import { SLRU_PAGE_SIZE } from "./segments.ts";

export const CLOG_XACTS_PER_PAGE = SLRU_PAGE_SIZE * 4;

export const XACT_IN_PROGRESS = 0;
export const XACT_COMMITTED = 1;
export const XACT_ABORTED = 2;
export const XACT_SUB_COMMITTED = 3;

export function clogPageOf(xid: number): number {
  return Math.floor(xid / CLOG_XACTS_PER_PAGE);
}

/** Status of `xid` on its page. */
export function clogStatus(page: Uint8Array, xid: number): number {
  return (page[byteOf(xid)] >>> shiftOf(xid)) & 3;
}

export function setClogStatus(page: Uint8Array, xid: number, status: number): void {
  const at = byteOf(xid);
  const shift = shiftOf(xid);
  page[at] = (page[at] & ~(3 << shift)) | (status << shift);
}

function byteOf(xid: number): number {
  return Math.floor((xid % CLOG_XACTS_PER_PAGE) / 4);
}

function shiftOf(xid: number): number {
  return (xid % 4) * 2;
}
