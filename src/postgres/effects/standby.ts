/**
 * What a hot standby needs to know. Main data: locks: i32 n, n × (u32 xid, u32 database, u32 relation); running
 * transactions: i32 n, i32 n of subtransactions, bool overflow, 3 padding, u32 next xid, u32 oldest running, u32 latest
 * completed, then the ids. Source: PostgreSQL storage/standbydefs.h, storage/ipc/standby.c (standby_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { badEffect, mainDataReader, readArray, readU32Array, unknownInfo } from "./reading.ts";

export interface StandbyLock {
  readonly xid: number;
  readonly dbOid: number;
  readonly relOid: number;
}

export type StandbyEffect =
  | { readonly kind: "standby-locks"; readonly locks: readonly StandbyLock[] }
  | {
      readonly kind: "running-xacts";
      /** Some running subtransactions are missing from `subxids`. */
      readonly subxidOverflow: boolean;
      readonly nextXid: number;
      readonly oldestRunningXid: number;
      readonly latestCompletedXid: number;
      readonly xids: readonly number[];
      readonly subxids: readonly number[];
    };

/** Null for invalidations. @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeStandbyRecord(record: WalRecord): StandbyEffect | null {
  const reader = mainDataReader(record, "standby record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00: {
      const count = reader.i32le();
      const read = (item: typeof reader): StandbyLock => ({ xid: item.u32le(), dbOid: item.u32le(), relOid: item.u32le() });
      return { kind: "standby-locks", locks: readArray(reader, { count, itemSize: 12, read }) };
    }
    case 0x10: {
      const xidCount = reader.i32le();
      const subxidCount = reader.i32le();
      if (xidCount < 0 || subxidCount < 0) throw badEffect(record, `${xidCount} transactions and ${subxidCount} subtransactions`);
      const subxidOverflow = reader.u8() !== 0;
      reader.skip(3);
      const nextXid = reader.u32le();
      const oldestRunningXid = reader.u32le();
      const latestCompletedXid = reader.u32le();
      const xids = readU32Array(reader, xidCount);
      const subxids = readU32Array(reader, subxidCount);
      return { kind: "running-xacts", subxidOverflow, nextXid, oldestRunningXid, latestCompletedXid, xids, subxids };
    }
    case 0x20:
      return null;
    default:
      throw unknownInfo(record);
  }
}
