/**
 * Records of the WAL machinery itself. Main data by info: 0x00, 0x10 CheckPoint; 0x30 u32 next oid; 0x40 nothing; 0x50 u64
 * start of the backup; 0x60 xl_parameter_change (6 × i32, 2 bools); 0x70 i64 time, 64 bytes of name; 0x80 bool; 0x90 i64 time,
 * u32 timeline, u32 previous, i32 wal_level (17); 0xA0, 0xB0 nothing (the pages are the blocks); 0xD0 u64 LSN, i64 time;
 * 0xE0 i32 wal_level (17). Source: PostgreSQL catalog/pg_control.h, access/xlog_internal.h, access/transam/xlog.c (xlog_redo).
 */
import { type ByteReader, utf8ToString } from "../../kit/bytes.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { type CheckPoint, type WalLevel, decodeCheckPoint } from "../control-file/checkpoint.ts";
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readLsn, unknownInfo } from "./reading.ts";

const RESTORE_POINT_NAME_SIZE = 64;

export interface ParameterChange {
  readonly kind: "parameter-change";
  readonly maxConnections: number;
  readonly maxWorkerProcesses: number;
  readonly maxWalSenders: number;
  readonly maxPreparedXacts: number;
  readonly maxLocksPerXact: number;
  readonly walLevel: WalLevel;
  readonly walLogHints: boolean;
  readonly trackCommitTimestamp: boolean;
}

export type XlogEffect =
  | { readonly kind: "checkpoint-shutdown"; readonly checkpoint: CheckPoint }
  | { readonly kind: "checkpoint-online"; readonly checkpoint: CheckPoint }
  /** Where an online checkpoint began (17). */
  | { readonly kind: "checkpoint-redo" }
  | { readonly kind: "next-oid"; readonly nextOid: number }
  /** The rest of the segment is unused; the record's endLsn is the next one. */
  | { readonly kind: "switch" }
  | { readonly kind: "backup-end"; readonly startLsn: Lsn }
  | ParameterChange
  | { readonly kind: "restore-point"; readonly time: bigint; readonly name: string }
  | { readonly kind: "full-page-writes"; readonly enabled: boolean }
  | { readonly kind: "end-of-recovery"; readonly time: bigint; readonly timelineId: number; readonly previousTimelineId: number; readonly walLevel: WalLevel | null }
  /** Every block of the record is an image of its page. */
  | { readonly kind: "full-page-images"; readonly forHint: boolean }
  /** The record that began at `overwrittenLsn` was never finished. */
  | { readonly kind: "overwrite-contrecord"; readonly overwrittenLsn: Lsn; readonly time: bigint };

/** Null for the no-op record. @throws StrataError corrupt `truncated`, `bad-checkpoint`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeXlogRecord(record: WalRecord): XlogEffect | null {
  const reader = mainDataReader(record, "xlog record");
  const info = record.info & XLR_RMGR_INFO_MASK;
  switch (info) {
    case 0x00:
    case 0x10:
      return { kind: info === 0x00 ? "checkpoint-shutdown" : "checkpoint-online", checkpoint: decodeCheckPoint(reader.data, record.version) };
    case 0x20:
      return null;
    case 0x30:
      return { kind: "next-oid", nextOid: reader.u32le() };
    case 0x40:
      return { kind: "switch" };
    case 0x50:
      return { kind: "backup-end", startLsn: readLsn(reader, record) };
    case 0x60:
      return decodeParameterChange(reader);
    case 0x70:
      return { kind: "restore-point", time: reader.i64le(), name: paddedString(reader.bytes(RESTORE_POINT_NAME_SIZE)) };
    case 0x80:
      return { kind: "full-page-writes", enabled: reader.u8() !== 0 };
    case 0x90:
      return decodeEndOfRecovery(reader, record);
    case 0xa0:
    case 0xb0:
      return { kind: "full-page-images", forHint: info === 0xa0 };
    case 0xd0:
      return { kind: "overwrite-contrecord", overwrittenLsn: readLsn(reader, record), time: reader.i64le() };
    case 0xe0:
      if (record.version >= 17) return { kind: "checkpoint-redo" };
      throw unknownInfo(record);
    default:
      throw unknownInfo(record);
  }
}

function decodeParameterChange(reader: ByteReader): ParameterChange {
  return {
    kind: "parameter-change",
    maxConnections: reader.i32le(),
    maxWorkerProcesses: reader.i32le(),
    maxWalSenders: reader.i32le(),
    maxPreparedXacts: reader.i32le(),
    maxLocksPerXact: reader.i32le(),
    walLevel: reader.i32le(),
    walLogHints: reader.u8() !== 0,
    trackCommitTimestamp: reader.u8() !== 0,
  };
}

function decodeEndOfRecovery(reader: ByteReader, record: WalRecord): XlogEffect {
  const time = reader.i64le();
  const timelineId = reader.u32le();
  const previousTimelineId = reader.u32le();
  return { kind: "end-of-recovery", time, timelineId, previousTimelineId, walLevel: record.version >= 17 ? reader.i32le() : null };
}

function paddedString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return utf8ToString(end < 0 ? bytes : bytes.subarray(0, end));
}
