/**
 * What a WAL record changes besides the pages it names as blocks: typed data, decoded by one file a resource manager.
 * The page changes are in redo.
 */
import { RMGR } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { type ClogEffect, decodeClogRecord } from "./clog.ts";
import { type CommitTsEffect, decodeCommitTsRecord } from "./commit-ts.ts";
import { type DbaseEffect, decodeDbaseRecord } from "./dbase.ts";
import { type ClearVisibilityMap, decodeHeapVisibility } from "./heap-visibility.ts";
import { type LogicalMessageEffect, decodeLogicalMessageRecord } from "./logical-message.ts";
import { type MultiXactEffect, decodeMultiXactRecord } from "./multixact.ts";
import { type RelmapEffect, decodeRelmapRecord } from "./relmap.ts";
import { type ReplOriginEffect, decodeReplOriginRecord } from "./replorigin.ts";
import { type SmgrEffect, decodeSmgrRecord } from "./smgr.ts";
import { type StandbyEffect, decodeStandbyRecord } from "./standby.ts";
import { type TablespaceEffect, decodeTablespaceRecord } from "./tablespace.ts";
import { type XactEffect, decodeXactRecord } from "./xact.ts";
import { type XlogEffect, decodeXlogRecord } from "./xlog.ts";

export type WalEffect =
  | XlogEffect
  | XactEffect
  | SmgrEffect
  | ClogEffect
  | DbaseEffect
  | TablespaceEffect
  | MultiXactEffect
  | RelmapEffect
  | StandbyEffect
  | ClearVisibilityMap
  | CommitTsEffect
  | ReplOriginEffect
  | LogicalMessageEffect;

/**
 * The effect of any record; null when all it does is in its blocks, or nothing to storage. Nothing in the result borrows the
 * record.
 *
 * @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record`
 */
export function decodeEffect(record: WalRecord): WalEffect | null {
  switch (record.rmid) {
    case RMGR.XLOG:
      return decodeXlogRecord(record);
    case RMGR.XACT:
      return decodeXactRecord(record);
    case RMGR.SMGR:
      return decodeSmgrRecord(record);
    case RMGR.CLOG:
      return decodeClogRecord(record);
    case RMGR.DBASE:
      return decodeDbaseRecord(record);
    case RMGR.TBLSPC:
      return decodeTablespaceRecord(record);
    case RMGR.MULTIXACT:
      return decodeMultiXactRecord(record);
    case RMGR.RELMAP:
      return decodeRelmapRecord(record);
    case RMGR.STANDBY:
      return decodeStandbyRecord(record);
    case RMGR.HEAP:
    case RMGR.HEAP2:
    case RMGR.NEON:
      return decodeHeapVisibility(record);
    case RMGR.COMMIT_TS:
      return decodeCommitTsRecord(record);
    case RMGR.REPLORIGIN:
      return decodeReplOriginRecord(record);
    case RMGR.LOGICALMSG:
      return decodeLogicalMessageRecord(record);
    default:
      return null;
  }
}
