/**
 * Records of pg_commit_ts pages. Main data: zero page: the page number (i32, i64 from 17); truncate: page number, u32 oldest
 * xid. The timestamps themselves come with commit records. Source: PostgreSQL access/commit_ts.h,
 * access/transam/commit_ts.c (commit_ts_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readSlruPage, unknownInfo } from "./reading.ts";

export type CommitTsEffect =
  | { readonly kind: "commit-ts-zero-page"; readonly page: number }
  | { readonly kind: "commit-ts-truncate"; readonly page: number; readonly oldestXid: number };

/** @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeCommitTsRecord(record: WalRecord): CommitTsEffect {
  const reader = mainDataReader(record, "commit timestamp record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00:
      return { kind: "commit-ts-zero-page", page: readSlruPage(reader, record) };
    case 0x10:
      return { kind: "commit-ts-truncate", page: readSlruPage(reader, record), oldestXid: reader.u32le() };
    default:
      throw unknownInfo(record);
  }
}
