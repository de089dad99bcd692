/**
 * Records of pg_xact pages. Main data: zero page: the page number (i32, i64 from 17); truncate: page number, u32 oldest xid,
 * u32 database that holds it. Source: PostgreSQL access/clog.h, access/transam/clog.c (clog_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readSlruPage, unknownInfo } from "./reading.ts";

export type ClogEffect =
  | { readonly kind: "clog-zero-page"; readonly page: number }
  /** Pages before `page` are no longer needed. */
  | { readonly kind: "clog-truncate"; readonly page: number; readonly oldestXid: number; readonly oldestXidDb: number };

/** @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeClogRecord(record: WalRecord): ClogEffect {
  const reader = mainDataReader(record, "clog record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00:
      return { kind: "clog-zero-page", page: readSlruPage(reader, record) };
    case 0x10:
      return { kind: "clog-truncate", page: readSlruPage(reader, record), oldestXid: reader.u32le(), oldestXidDb: reader.u32le() };
    default:
      throw unknownInfo(record);
  }
}
