/**
 * Heap tuples, and where each dialect's heap records keep their fields.
 *
 * Tuple header (23 bytes): 0 u32 xmin · 4 u32 xmax · 8 u32 command id · 12 u16 u16 u16 ctid (block high, block low,
 * offset number) · 18 u16 infomask2 · 20 u16 infomask · 22 u8 offset of the data · 23 null bitmap.
 *
 * PostgreSQL's own records leave the command id out and redo writes zero. The peer's patched servers log it, because
 * their pages may be evicted and read back while the transaction that wrote them still runs: 14 and 15 in the heap
 * records themselves, 16 and 17 in records of their own manager.
 *
 * Source: PostgreSQL access/htup_details.h, access/heapam_xlog.h; the peer (neondatabase/neon) pgxn/neon_rmgr and its
 * PostgreSQL's access/heapam_xlog.h, access/neon_xlog.h.
 */
import { LP_NORMAL, PAGE_SIZE, PD_PRUNE_XID, corruptPage, lineState, lineWord } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";

export const TUPLE_HEADER_SIZE = 23;
export const T_XMIN = 0;
export const T_XMAX = 4;
export const T_CID = 8;
export const T_CTID = 12;
export const T_INFOMASK2 = 18;
export const T_INFOMASK = 20;
export const T_HOFF = 22;

const HEAP_XMAX_KEYSHR_LOCK = 0x0010;
const HEAP_COMBOCID = 0x0020;
const HEAP_XMAX_EXCL_LOCK = 0x0040;
const HEAP_XMAX_LOCK_ONLY = 0x0080;
const HEAP_XMAX_IS_MULTI = 0x1000;
/** Bits about xmax: committed, invalid, multi, locks. */
const HEAP_XMAX_BITS = 0x1cd0;
const HEAP_MOVED = 0xc000;
const HEAP_KEYS_UPDATED = 0x2000;
export const HEAP_HOT_UPDATED = 0x4000;

/** Record flags that say an all-visible bit was cleared: on the page, or on the old one; on the new one of an update. */
export const ALL_VISIBLE_CLEARED = 1;
export const NEW_ALL_VISIBLE_CLEARED = 2;
/** On insert records: the tuples are frozen, the page is all-visible. */
export const ALL_FROZEN_SET = 32;

/** Top bit of the manager's info: the record fills a new page. */
export const HEAP_INIT_PAGE = 0x80;
export const HEAP_OPERATION_MASK = 0x70;

/** Byte offsets within main data (delete, update, lock, multi-insert) and within the tuple headers in block data; -1 is absent. */
export interface HeapDialect {
  readonly headerSize: number;
  readonly headerHoff: number;
  readonly headerCid: number;
  readonly deleteSize: number;
  readonly deleteInfobits: number;
  readonly deleteFlags: number;
  readonly deleteCid: number;
  readonly updateSize: number;
  readonly updateCid: number;
  readonly updateNewXmax: number;
  readonly updateNewOffset: number;
  readonly lockSize: number;
  readonly lockOffset: number;
  readonly lockInfobits: number;
  readonly lockFlags: number;
  readonly lockCid: number;
  readonly multiSize: number;
  readonly multiCid: number;
  readonly tupleSize: number;
  readonly tupleHoff: number;
  readonly tupleCid: number;
  /** Whether infobits carry HEAP_COMBOCID. */
  readonly comboInInfobits: boolean;
}

export const STOCK: HeapDialect = {
  headerSize: 5, headerHoff: 4, headerCid: -1,
  deleteSize: 8, deleteInfobits: 6, deleteFlags: 7, deleteCid: -1,
  updateSize: 14, updateCid: -1, updateNewXmax: 8, updateNewOffset: 12,
  lockSize: 8, lockOffset: 4, lockInfobits: 6, lockFlags: 7, lockCid: -1,
  multiSize: 4, multiCid: -1, tupleSize: 7, tupleHoff: 6, tupleCid: -1,
  comboInInfobits: false,
};

/** The peer's PostgreSQL 14 and 15: heap and heap2 records with command ids. */
export const COMMAND_IDS: HeapDialect = {
  headerSize: 9, headerHoff: 8, headerCid: 4,
  deleteSize: 14, deleteInfobits: 12, deleteFlags: 13, deleteCid: 8,
  updateSize: 18, updateCid: 8, updateNewXmax: 12, updateNewOffset: 16,
  lockSize: 14, lockOffset: 4, lockInfobits: 12, lockFlags: 13, lockCid: 8,
  multiSize: 4, multiCid: -1, tupleSize: 13, tupleHoff: 12, tupleCid: 8,
  comboInInfobits: true,
};

/** The peer's own manager in its PostgreSQL 16 and 17. */
export const PEER_MANAGER: HeapDialect = {
  headerSize: 9, headerHoff: 8, headerCid: 4,
  deleteSize: 12, deleteInfobits: 6, deleteFlags: 7, deleteCid: 8,
  updateSize: 18, updateCid: 8, updateNewXmax: 12, updateNewOffset: 16,
  lockSize: 12, lockOffset: 8, lockInfobits: 10, lockFlags: 11, lockCid: 4,
  multiSize: 8, multiCid: 4, tupleSize: 7, tupleHoff: 6, tupleCid: -1,
  comboInInfobits: true,
};

/** The dialect of a record of the managers heap and heap2. */
export function heapDialect(record: WalRecord): HeapDialect {
  return record.heapCommandIds ? COMMAND_IDS : STOCK;
}

/** The u32 at `base + offset` of the record, 0 when `offset` is -1: a command id the record does not carry is zero. */
export function commandIdAt(record: WalRecord, base: number, offset: number): number {
  return offset < 0 ? 0 : record.view.getUint32(base + offset, true);
}

/** Byte offset of the tuple at a normal line pointer, its header inside the page. @throws StrataError corrupt `corrupt-page` */
export function tupleOffset(view: DataView, offsetNumber: number): number {
  const word = lineWord(view, offsetNumber);
  const offset = word & 0x7fff;
  const length = word >>> 17;
  if (lineState(word) !== LP_NORMAL || length < TUPLE_HEADER_SIZE || offset + length > PAGE_SIZE) {
    corruptPage(`line pointer ${offsetNumber} is no heap tuple: ${word.toString(16)}`);
  }
  return offset;
}

export function setCtid(view: DataView, tuple: number, block: number, offsetNumber: number): void {
  view.setUint16(tuple + T_CTID, block >>> 16, true);
  view.setUint16(tuple + T_CTID + 2, block & 0xffff, true);
  view.setUint16(tuple + T_CTID + 4, offsetNumber, true);
}

/**
 * What delete, update and lock do to the old tuple's masks: everything about the former xmax goes, the record's
 * infobits come (fix_infomask_from_infobits).
 */
export function replaceXmaxBits(view: DataView, tuple: number, infobits: number, comboInInfobits: boolean): void {
  let mask = view.getUint16(tuple + T_INFOMASK, true) & ~(HEAP_XMAX_BITS | HEAP_MOVED);
  let mask2 = view.getUint16(tuple + T_INFOMASK2, true) & ~HEAP_KEYS_UPDATED;
  if ((infobits & 1) !== 0) mask |= HEAP_XMAX_IS_MULTI;
  if ((infobits & 2) !== 0) mask |= HEAP_XMAX_LOCK_ONLY;
  if ((infobits & 4) !== 0) mask |= HEAP_XMAX_EXCL_LOCK;
  if ((infobits & 8) !== 0) mask |= HEAP_XMAX_KEYSHR_LOCK;
  if ((infobits & 16) !== 0) mask2 |= HEAP_KEYS_UPDATED;
  if (comboInInfobits) mask = (infobits & 32) !== 0 ? mask | HEAP_COMBOCID : mask & ~HEAP_COMBOCID;
  view.setUint16(tuple + T_INFOMASK, mask, true);
  view.setUint16(tuple + T_INFOMASK2, mask2, true);
}

/** Whether xmax only locks the tuple (HEAP_XMAX_IS_LOCKED_ONLY). */
export function isLockedOnly(view: DataView, tuple: number): boolean {
  const mask = view.getUint16(tuple + T_INFOMASK, true);
  const lockBits = HEAP_XMAX_IS_MULTI | HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK;
  return (mask & HEAP_XMAX_LOCK_ONLY) !== 0 || (mask & lockBits) === HEAP_XMAX_EXCL_LOCK;
}

export function setHotUpdated(view: DataView, tuple: number, hot: boolean): void {
  const mask2 = view.getUint16(tuple + T_INFOMASK2, true);
  view.setUint16(tuple + T_INFOMASK2, hot ? mask2 | HEAP_HOT_UPDATED : mask2 & ~HEAP_HOT_UPDATED, true);
}

/** The command id of a deleted, updated or locked tuple; without one in the record, zero and not a combo id. */
export function setCommandId(view: DataView, tuple: number, commandId: number, comboInInfobits: boolean): void {
  view.setUint32(tuple + T_CID, commandId, true);
  if (!comboInInfobits) view.setUint16(tuple + T_INFOMASK, view.getUint16(tuple + T_INFOMASK, true) & ~HEAP_COMBOCID, true);
}

const FIRST_NORMAL_XID = 3;

function xidPrecedes(a: number, b: number): boolean {
  if (a < FIRST_NORMAL_XID || b < FIRST_NORMAL_XID) return a < b;
  return ((a - b) | 0) < 0;
}

/** Notes that pruning may help once `xid` is past (PageSetPrunable). */
export function setPrunable(view: DataView, xid: number): void {
  const before = view.getUint32(PD_PRUNE_XID, true);
  if (before === 0 || xidPrecedes(xid, before)) view.setUint32(PD_PRUNE_XID, xid, true);
}
