/**
 * What every resource manager's redo is written against: its signature, its entry in the dispatcher's table, and
 * bounds-checked access to a record's parts.
 */
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import { RMGR_MIN_CUSTOM } from "../wal/constants.ts";
import type { BlockRef, WalRecord } from "../wal/record.ts";

/**
 * Changes `page` (8192 bytes, `view` covers exactly them) as `record` says for its block `blockId`. A block the record
 * initializes arrives zeroed. The handler neither restores images nor sets pd_lsn: the dispatcher does.
 * @throws StrataError corrupt, or `unsupported-redo`; the page may then be half changed and must be discarded
 */
export type RedoHandler = (page: Uint8Array, view: DataView, record: WalRecord, blockId: number) => void;

export interface RedoManager {
  readonly name: string;
  readonly redo: RedoHandler;
  /** Runs after an image was restored, for the changes PostgreSQL makes to a page after it took the image. */
  readonly afterImage?: RedoHandler;
  /** Whether records with these manager bits (`info & 0xf0`) can be applied to a block. */
  readonly supports: (info: number) => boolean;
}

/** The manager's bits of xl_info; the low four are WAL's own. */
export const RMGR_INFO_MASK = 0xf0;

/** @returns never; the error a record gives that does not fit its kind: StrataError corrupt `corrupt-record` */
export function corruptRecord(message: string): never {
  throw new StrataError("corrupt", "corrupt-record", message);
}

/** PostgreSQL's names of its own managers, by id. Source: PostgreSQL access/rmgrlist.h. */
const MANAGER_NAMES: readonly string[] = [
  "XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist",
  "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
];

/** As PostgreSQL calls it; of an extension's manager only the number is in the log, and pg_waldump writes it so. */
function managerName(rmid: number): string {
  return MANAGER_NAMES[rmid] ?? (rmid >= RMGR_MIN_CUSTOM ? `custom${rmid}` : `unknown${rmid}`);
}

/** Where the record lies in the log. Of one that was stored, only its end is known. */
export function recordPlace(record: WalRecord): string {
  return record.lsn === 0 ? `ending at ${lsnToString(record.endLsn)}` : `at ${lsnToString(record.lsn)}`;
}

/** @returns never; StrataError fix-input `unsupported-redo` naming manager, info, LSN and block */
export function unsupportedRedo(record: WalRecord, blockId: number): never {
  const info = `0x${record.info.toString(16).padStart(2, "0")}`;
  const lsn = lsnToString(record.lsn);
  throw new StrataError("fix-input", "unsupported-redo", `no redo for resource manager ${managerName(record.rmid)} (${record.rmid}), info ${info}, ${recordPlace(record)}, block ${blockId}`, {
    details: { rmid: record.rmid, manager: managerName(record.rmid), info, lsn, blockId },
  });
}

/** Offset into `record.bytes` of the main data, of at least `minimum` bytes. @throws StrataError corrupt `corrupt-record` */
export function mainData(record: WalRecord, minimum: number): number {
  if (record.mainDataLength < minimum) corruptRecord(`main data of ${record.mainDataLength} bytes, ${minimum} expected`);
  return record.mainDataOffset;
}

/** Offset into `record.bytes` of the block's data, of at least `minimum` bytes. @throws StrataError corrupt `corrupt-record` */
export function blockData(ref: BlockRef, minimum: number): number {
  const length = ref.hasData ? ref.dataLength : 0;
  if (length < minimum) corruptRecord(`block data of ${length} bytes, ${minimum} expected`);
  return ref.dataOffset;
}

/** Length of the block's data, 0 without any. */
export function blockDataLength(ref: BlockRef): number {
  return ref.hasData ? ref.dataLength : 0;
}

/** The block reference `blockId`. @throws StrataError corrupt `corrupt-record` when the record has none */
export function blockRef(record: WalRecord, blockId: number): BlockRef {
  const ref = blockId < record.blockCount ? record.blocks[blockId] : undefined;
  if (ref === undefined || !ref.inUse) corruptRecord(`the record has no block ${blockId}`);
  return ref;
}

/** Whether the record refers to block `blockId`. */
export function hasBlock(record: WalRecord, blockId: number): boolean {
  return blockId < record.blockCount && record.blocks[blockId].inUse;
}
