/**
 * pg_commit_ts: ten bytes a transaction, 819 to a page: i64 microseconds since 2000, u16 replication origin; little-endian.
 *
 * Source: PostgreSQL access/transam/commit_ts.c (CommitTimestampEntry, TransactionIdSetCommitTs).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { SLRU_PAGE_SIZE } from "./segments.ts";

export const COMMIT_TS_ENTRY_SIZE = 10;
export const COMMIT_TS_XACTS_PER_PAGE = Math.floor(SLRU_PAGE_SIZE / COMMIT_TS_ENTRY_SIZE);

export interface CommitTs {
  /** Microseconds since 2000; 0 when not recorded. */
  readonly timestamp: bigint;
  readonly originId: number;
}

export function commitTsPageOf(xid: number): number {
  return Math.floor(xid / COMMIT_TS_XACTS_PER_PAGE);
}

export function commitTs(page: Uint8Array, xid: number): CommitTs {
  const view = dataViewOf(page);
  const at = (xid % COMMIT_TS_XACTS_PER_PAGE) * COMMIT_TS_ENTRY_SIZE;
  return { timestamp: view.getBigInt64(at, true), originId: view.getUint16(at + 8, true) };
}

export function setCommitTs(page: Uint8Array, xid: number, entry: CommitTs): void {
  const view = dataViewOf(page);
  const at = (xid % COMMIT_TS_XACTS_PER_PAGE) * COMMIT_TS_ENTRY_SIZE;
  view.setBigInt64(at, entry.timestamp, true);
  view.setUint16(at + 8, entry.originId, true);
}
