/**
 * Records of pg_multixact. Main data: zero page: the page number (i32, i64 from 17); create: u32 id, u32 offset of its first
 * member, i32 n, n × (u32 xid, u32 status); truncate: u32 database, then the half-open ranges that go: ids from/to, member
 * offsets from/to. Source: PostgreSQL access/multixact.h, access/transam/multixact.c (multixact_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readArray, readSlruPage, unknownInfo } from "./reading.ts";

export interface MultiXactMember {
  readonly xid: number;
  /** MultiXactStatus: 0 for key share … 5 update. */
  readonly status: number;
}

export type MultiXactEffect =
  | { readonly kind: "multixact-zero-offsets-page"; readonly page: number }
  | { readonly kind: "multixact-zero-members-page"; readonly page: number }
  | { readonly kind: "multixact-create"; readonly multiXid: number; readonly memberOffset: number; readonly members: readonly MultiXactMember[] }
  | {
      readonly kind: "multixact-truncate";
      readonly oldestMultiDb: number;
      readonly startMulti: number;
      /** The oldest id that stays. */
      readonly endMulti: number;
      readonly startMember: number;
      readonly endMember: number;
    };

/** @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeMultiXactRecord(record: WalRecord): MultiXactEffect {
  const reader = mainDataReader(record, "multixact record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00:
      return { kind: "multixact-zero-offsets-page", page: readSlruPage(reader, record) };
    case 0x10:
      return { kind: "multixact-zero-members-page", page: readSlruPage(reader, record) };
    case 0x20: {
      const multiXid = reader.u32le();
      const memberOffset = reader.u32le();
      const members = readArray(reader, { count: reader.i32le(), itemSize: 8, read: (item) => ({ xid: item.u32le(), status: item.u32le() }) });
      return { kind: "multixact-create", multiXid, memberOffset, members };
    }
    case 0x30:
      return {
        kind: "multixact-truncate",
        oldestMultiDb: reader.u32le(),
        startMulti: reader.u32le(),
        endMulti: reader.u32le(),
        startMember: reader.u32le(),
        endMember: reader.u32le(),
      };
    default:
      throw unknownInfo(record);
  }
}
