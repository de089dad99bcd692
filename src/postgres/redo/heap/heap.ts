/**
 * Resource managers 10 (heap) and 134 (the peer's own heap records with command ids), which share all but field offsets.
 *
 * | heap | peer | record | main data |
 * | --- | --- | --- | --- |
 * | 0x00 | 0x00 | insert | see insert.ts |
 * | 0x10 | 0x10 | delete | 0 u32 xmax · 4 u16 offset number · 6 u8 infobits · 7 u8 flags |
 * | 0x20, 0x40 | 0x20, 0x30 | update, HOT update | see update.ts |
 * | 0x30 | – | truncate | no block; for logical decoding only |
 * | 0x50 | – | confirm a speculative insertion | 0 u16 offset number |
 * | 0x60 | 0x40 | lock | 0 u32 xmax · 4 u16 offset number · 6 u8 infobits · 7 u8 flags |
 * | 0x70 | – | overwrite in place | 0 u16 offset number; block data: the new bytes |
 * | – | 0x50 | multi-insert | see insert.ts |
 *
 * Source: PostgreSQL access/heap/heapam.c; the peer (neondatabase/neon) pgxn/neon_rmgr/neon_rmgr.c.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { PD_ALL_VISIBLE, clearPageFlag, lineLength, lineWord } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, blockData, blockDataLength, blockRef, corruptRecord, mainData, unsupportedRedo } from "../handler.ts";
import { redoInsert, redoMultiInsert } from "./insert.ts";
import {
  ALL_VISIBLE_CLEARED, HEAP_OPERATION_MASK, type HeapDialect, PEER_MANAGER, T_HOFF, T_XMAX, T_XMIN,
  commandIdAt, heapDialect, isLockedOnly, replaceXmaxBits, setCommandId, setCtid, setHotUpdated, setPrunable, tupleOffset,
} from "./layout.ts";
import { redoUpdate, redoUpdateVisibility } from "./update.ts";
import { ALL_FROZEN, VISIBILITY_BITS, clearIfCovered, isVisibilityMap } from "./visibility-map.ts";

const INSERT = 0x00;
const DELETE = 0x10;
const UPDATE = 0x20;
const TRUNCATE = 0x30;
const HOT_UPDATE = 0x40;
const CONFIRM = 0x50;
const LOCK = 0x60;
const INPLACE = 0x70;

const PEER_HOT_UPDATE = 0x30;
const PEER_LOCK = 0x40;
const PEER_MULTI_INSERT = 0x50;

const DELETE_IS_SUPER = 8;
const DELETE_IS_PARTITION_MOVE = 16;
const MOVED_BLOCK = 0xffffffff;
const MOVED_OFFSET = 0xfffd;

function redoDelete(view: DataView, record: WalRecord, dialect: HeapDialect): void {
  const main = mainData(record, dialect.deleteSize);
  const offsetNumber = record.view.getUint16(main + 4, true);
  const flags = record.view.getUint8(main + dialect.deleteFlags);
  const tuple = tupleOffset(view, offsetNumber);
  replaceXmaxBits(view, tuple, record.view.getUint8(main + dialect.deleteInfobits), dialect.comboInInfobits);
  setHotUpdated(view, tuple, false);
  if ((flags & DELETE_IS_SUPER) !== 0) view.setUint32(tuple + T_XMIN, 0, true);
  else view.setUint32(tuple + T_XMAX, record.view.getUint32(main, true), true);
  setCommandId(view, tuple, commandIdAt(record, main, dialect.deleteCid), dialect.comboInInfobits);
  setPrunable(view, record.xid);
  if ((flags & ALL_VISIBLE_CLEARED) !== 0) clearPageFlag(view, PD_ALL_VISIBLE);
  if ((flags & DELETE_IS_PARTITION_MOVE) !== 0) setCtid(view, tuple, MOVED_BLOCK, MOVED_OFFSET);
  else setCtid(view, tuple, blockRef(record, 0).blockNumber, offsetNumber);
}

function redoLock(view: DataView, record: WalRecord, dialect: HeapDialect): void {
  const main = mainData(record, dialect.lockSize);
  const offsetNumber = record.view.getUint16(main + dialect.lockOffset, true);
  const tuple = tupleOffset(view, offsetNumber);
  replaceXmaxBits(view, tuple, record.view.getUint8(main + dialect.lockInfobits), dialect.comboInInfobits);
  if (isLockedOnly(view, tuple)) {
    setHotUpdated(view, tuple, false);
    setCtid(view, tuple, blockRef(record, 0).blockNumber, offsetNumber);
  }
  view.setUint32(tuple + T_XMAX, record.view.getUint32(main, true), true);
  setCommandId(view, tuple, commandIdAt(record, main, dialect.lockCid), dialect.comboInInfobits);
}

function redoConfirm(view: DataView, record: WalRecord): void {
  const offsetNumber = record.view.getUint16(mainData(record, 2), true);
  setCtid(view, tupleOffset(view, offsetNumber), blockRef(record, 0).blockNumber, offsetNumber);
}

function redoInplace(page: Uint8Array, view: DataView, record: WalRecord): void {
  const offsetNumber = record.view.getUint16(mainData(record, 2), true);
  const tuple = tupleOffset(view, offsetNumber);
  const hoff = view.getUint8(tuple + T_HOFF);
  const size = lineLength(lineWord(view, offsetNumber)) - hoff;
  const ref = blockRef(record, 0);
  if (size !== blockDataLength(ref)) corruptRecord(`${blockDataLength(ref)} bytes to overwrite ${size} in place`);
  copyBytes(record.bytes, blockData(ref, 0), page, tuple + hoff, size);
}

/** A page of the visibility map that newer minors register when they clear bits: the flags tell which. */
function redoVisibility(page: Uint8Array, record: WalRecord, blockId: number, flagsAt: number, bits: number): void {
  const flags = record.view.getUint8(mainData(record, flagsAt + 1) + flagsAt);
  if ((flags & ALL_VISIBLE_CLEARED) !== 0) clearIfCovered(page, record.blocks[blockId].blockNumber, blockRef(record, 0).blockNumber, bits);
}

function redoMapOfHeap(page: Uint8Array, record: WalRecord, blockId: number): void {
  const dialect = heapDialect(record);
  const operation = record.info & HEAP_OPERATION_MASK;
  if (operation === INSERT) redoVisibility(page, record, blockId, 2, VISIBILITY_BITS);
  else if (operation === DELETE) redoVisibility(page, record, blockId, dialect.deleteFlags, VISIBILITY_BITS);
  else if (operation === UPDATE || operation === HOT_UPDATE) redoUpdateVisibility(page, record, blockId);
  else if (operation === LOCK) redoVisibility(page, record, blockId, dialect.lockFlags, ALL_FROZEN);
  else unsupportedRedo(record, blockId);
}

function redoHeap(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (isVisibilityMap(record, blockId)) return redoMapOfHeap(page, record, blockId);
  const dialect = heapDialect(record);
  const operation = record.info & HEAP_OPERATION_MASK;
  if (operation === UPDATE || operation === HOT_UPDATE) return redoUpdate(page, view, record, blockId, dialect, operation === HOT_UPDATE);
  if (blockId !== 0) unsupportedRedo(record, blockId);
  switch (operation) {
    case INSERT:
      return redoInsert(page, view, record, dialect);
    case DELETE:
      return redoDelete(view, record, dialect);
    case CONFIRM:
      return redoConfirm(view, record);
    case LOCK:
      return redoLock(view, record, dialect);
    case INPLACE:
      return redoInplace(page, view, record);
    default:
      return unsupportedRedo(record, blockId);
  }
}

function redoPeer(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const operation = record.info & HEAP_OPERATION_MASK;
  if (operation === UPDATE || operation === PEER_HOT_UPDATE) return redoUpdate(page, view, record, blockId, PEER_MANAGER, operation === PEER_HOT_UPDATE);
  if (blockId !== 0) unsupportedRedo(record, blockId);
  switch (operation) {
    case INSERT:
      return redoInsert(page, view, record, PEER_MANAGER);
    case DELETE:
      return redoDelete(view, record, PEER_MANAGER);
    case PEER_LOCK:
      return redoLock(view, record, PEER_MANAGER);
    case PEER_MULTI_INSERT:
      return redoMultiInsert(page, view, record, PEER_MANAGER);
    default:
      return unsupportedRedo(record, blockId);
  }
}

export const heapManager: RedoManager = {
  name: "heap",
  redo: redoHeap,
  supports: (info) => (info & HEAP_OPERATION_MASK) !== TRUNCATE,
};

export const peerHeapManager: RedoManager = {
  name: "neon",
  redo: redoPeer,
  supports: (info) => (info & HEAP_OPERATION_MASK) <= PEER_MULTI_INSERT,
};

