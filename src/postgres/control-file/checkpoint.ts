/**
 * CheckPoint: the body of checkpoint records, also kept in pg_control. 88 bytes in PostgreSQL 14 to 18.
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u64 | redo: LSN where replay starts |
 * | 8 | u32 | ThisTimeLineID |
 * | 12 | u32 | PrevTimeLineID |
 * | 16 | bool | fullPageWrites |
 * | 20 | i32 | wal_level, from 17 on (padding before) |
 * | 24 | u64 | nextXid, with epoch |
 * | 32 | u32 | nextOid |
 * | 36 | u32 | nextMulti |
 * | 40 | u32 | nextMultiOffset |
 * | 44 | u32 | oldestXid |
 * | 48 | u32 | oldestXidDB |
 * | 52 | u32 | oldestMulti |
 * | 56 | u32 | oldestMultiDB |
 * | 64 | i64 | time: seconds since 1970 |
 * | 72 | u32 | oldestCommitTsXid |
 * | 76 | u32 | newestCommitTsXid |
 * | 80 | u32 | oldestActiveXid; 0 in a shutdown checkpoint |
 *
 * Little-endian, the gaps zero. Source: PostgreSQL catalog/pg_control.h.
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import type { PgMajor } from "../versions/major.ts";

export const CHECKPOINT_SIZE = 88;

/** wal_level as stored: 0 minimal, 1 replica, 2 logical. */
export type WalLevel = number;

export interface CheckPoint {
  readonly redo: Lsn;
  readonly timelineId: number;
  readonly previousTimelineId: number;
  readonly fullPageWrites: boolean;
  /** 0 before 17, where the record does not say. */
  readonly walLevel: WalLevel;
  /** Next transaction id with its epoch in the high half. */
  readonly nextFullXid: bigint;
  readonly nextOid: number;
  readonly nextMulti: number;
  readonly nextMultiOffset: number;
  readonly oldestXid: number;
  readonly oldestXidDb: number;
  readonly oldestMulti: number;
  readonly oldestMultiDb: number;
  /** Seconds since 1970. */
  readonly timeSeconds: bigint;
  readonly oldestCommitTsXid: number;
  readonly newestCommitTsXid: number;
  readonly oldestActiveXid: number;
}

/** Decodes 88 bytes at `offset`. @throws StrataError corrupt `truncated`, `bad-checkpoint` */
export function decodeCheckPoint(bytes: Uint8Array, version: PgMajor, offset = 0): CheckPoint {
  if (bytes.length - offset < CHECKPOINT_SIZE) {
    throw new StrataError("corrupt", "truncated", `checkpoint: ${CHECKPOINT_SIZE} bytes wanted at offset ${offset} of ${bytes.length}`);
  }
  const view = dataViewOf(bytes);
  const u32 = (at: number) => view.getUint32(offset + at, true);
  return {
    redo: readLsn(u32(4), u32(0)),
    timelineId: u32(8),
    previousTimelineId: u32(12),
    fullPageWrites: bytes[offset + 16] !== 0,
    walLevel: version >= 17 ? u32(20) : 0,
    nextFullXid: view.getBigUint64(offset + 24, true),
    nextOid: u32(32),
    nextMulti: u32(36),
    nextMultiOffset: u32(40),
    oldestXid: u32(44),
    oldestXidDb: u32(48),
    oldestMulti: u32(52),
    oldestMultiDb: u32(56),
    timeSeconds: view.getBigInt64(offset + 64, true),
    oldestCommitTsXid: u32(72),
    newestCommitTsXid: u32(76),
    oldestActiveXid: u32(80),
  };
}

export function encodeCheckPoint(checkpoint: CheckPoint, version: PgMajor): Uint8Array {
  const bytes = new Uint8Array(CHECKPOINT_SIZE);
  const view = dataViewOf(bytes);
  view.setUint32(0, lsnLow(checkpoint.redo), true);
  view.setUint32(4, lsnHigh(checkpoint.redo), true);
  view.setUint32(8, checkpoint.timelineId, true);
  view.setUint32(12, checkpoint.previousTimelineId, true);
  view.setUint8(16, checkpoint.fullPageWrites ? 1 : 0);
  if (version >= 17) view.setUint32(20, checkpoint.walLevel, true);
  view.setBigUint64(24, checkpoint.nextFullXid, true);
  view.setUint32(32, checkpoint.nextOid, true);
  view.setUint32(36, checkpoint.nextMulti, true);
  view.setUint32(40, checkpoint.nextMultiOffset, true);
  view.setUint32(44, checkpoint.oldestXid, true);
  view.setUint32(48, checkpoint.oldestXidDb, true);
  view.setUint32(52, checkpoint.oldestMulti, true);
  view.setUint32(56, checkpoint.oldestMultiDb, true);
  view.setBigInt64(64, checkpoint.timeSeconds, true);
  view.setUint32(72, checkpoint.oldestCommitTsXid, true);
  view.setUint32(76, checkpoint.newestCommitTsXid, true);
  view.setUint32(80, checkpoint.oldestActiveXid, true);
  return bytes;
}

function readLsn(high: number, low: number): Lsn {
  try {
    return lsnFromHalves(high, low);
  } catch (cause) {
    throw new StrataError("corrupt", "bad-checkpoint", "checkpoint: redo LSN out of range", { cause });
  }
}
