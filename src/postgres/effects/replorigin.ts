/**
 * Progress of replication origins. Main data: set: u64 remote LSN, u16 origin, bool force; drop: u16 origin.
 * Source: PostgreSQL replication/origin.h, replication/logical/origin.c (replorigin_redo).
 */
import type { Lsn } from "../../kit/lsn.ts";
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readLsn, unknownInfo } from "./reading.ts";

export type ReplOriginEffect =
  /** `force` false: only if it moves the origin forward. */
  | { readonly kind: "replorigin-set"; readonly originId: number; readonly remoteLsn: Lsn; readonly force: boolean }
  | { readonly kind: "replorigin-drop"; readonly originId: number };

/** @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeReplOriginRecord(record: WalRecord): ReplOriginEffect {
  const reader = mainDataReader(record, "replication origin record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00: {
      const remoteLsn = readLsn(reader, record);
      return { kind: "replorigin-set", originId: reader.u16le(), remoteLsn, force: reader.u8() !== 0 };
    }
    case 0x10:
      return { kind: "replorigin-drop", originId: reader.u16le() };
    default:
      throw unknownInfo(record);
  }
}
