/**
 * Creation and removal of tablespaces. Main data: create: u32 oid, C string path; drop: u32 oid.
 * Source: PostgreSQL commands/tablespace.h, commands/tablespace.c (tblspc_redo).
 */
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { mainDataReader, unknownInfo } from "./reading.ts";

export type TablespaceEffect =
  | { readonly kind: "tablespace-create"; readonly spcOid: number; readonly path: string }
  | { readonly kind: "tablespace-drop"; readonly spcOid: number };

/** @throws StrataError corrupt `truncated`, `wal-unknown-record` */
export function decodeTablespaceRecord(record: WalRecord): TablespaceEffect {
  const reader = mainDataReader(record, "tablespace record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x00:
      return { kind: "tablespace-create", spcOid: reader.u32le(), path: reader.cstring() };
    case 0x10:
      return { kind: "tablespace-drop", spcOid: reader.u32le() };
    default:
      throw unknownInfo(record);
  }
}
