/**
 * Creation and removal of databases. Info: 14 has 0x00 create by copy and 0x10 drop; from 15 on 0x00 create by copy, 0x10
 * create by WAL, 0x20 drop. Main data: create by copy: u32 database, tablespace, source database, source tablespace; create
 * by WAL: u32 database, tablespace; drop: u32 database, i32 n, n × u32 tablespace.
 * Source: PostgreSQL commands/dbcommands_xlog.h, commands/dbcommands.c (dbase_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, readCountedU32, unknownInfo } from "./reading.ts";

export type DbaseEffect =
  /** All files of the source directory appear in the new one, as they are at this LSN; the pages are not in the log. */
  | { readonly kind: "dbase-create-copy"; readonly dbOid: number; readonly spcOid: number; readonly sourceDbOid: number; readonly sourceSpcOid: number }
  /** An empty directory with a PG_VERSION; its relation map and pages follow in the log. */
  | { readonly kind: "dbase-create-empty"; readonly dbOid: number; readonly spcOid: number }
  | { readonly kind: "dbase-drop"; readonly dbOid: number; readonly spcOids: readonly number[] };

/** @throws StrataError corrupt `truncated`, `wal-unknown-record` */
export function decodeDbaseRecord(record: WalRecord): DbaseEffect {
  const reader = mainDataReader(record, "database record");
  const info = record.info & XLR_RMGR_INFO_MASK;
  const drop = record.version === 14 ? 0x10 : 0x20;
  if (info === drop) return { kind: "dbase-drop", dbOid: reader.u32le(), spcOids: readCountedU32(reader) };
  if (info === 0x00) {
    return { kind: "dbase-create-copy", dbOid: reader.u32le(), spcOid: reader.u32le(), sourceDbOid: reader.u32le(), sourceSpcOid: reader.u32le() };
  }
  if (info === 0x10) return { kind: "dbase-create-empty", dbOid: reader.u32le(), spcOid: reader.u32le() };
  throw unknownInfo(record);
}
