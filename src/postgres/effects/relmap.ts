/**
 * A new relation map. Main data: u32 database (0: the shared map), u32 tablespace, i32 length, then the whole
 * pg_filenode.map. Source: PostgreSQL utils/relmapper.h, utils/cache/relmapper.c (relmap_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { copyOf, mainDataReader, unknownInfo } from "./reading.ts";

export interface RelmapEffect {
  readonly kind: "relmap-update";
  readonly dbOid: number;
  readonly spcOid: number;
  /** The new contents of pg_filenode.map; the caller's own copy. */
  readonly map: Uint8Array;
}

/** @throws StrataError corrupt `truncated`, `wal-unknown-record` */
export function decodeRelmapRecord(record: WalRecord): RelmapEffect {
  if ((record.info & XLR_RMGR_INFO_MASK) !== 0x00) throw unknownInfo(record);
  const reader = mainDataReader(record, "relation map record");
  return { kind: "relmap-update", dbOid: reader.u32le(), spcOid: reader.u32le(), map: copyOf(reader.bytes(reader.i32le())) };
}
