/**
 * Resource manager 9, heap2.
 *
 * | info | record | blocks |
 * | --- | --- | --- |
 * | 0x00 | mapping of a logical rewrite | none |
 * | 0x10, 0x20, 0x30 | prune, vacuum, freeze (up to 16); prune on access, by vacuum's scan, by its cleanup (17) | 0 page |
 * | 0x40 | all-visible; main data 0 u32 xid · 4 u8 bits | 0 visibility map, 1 page |
 * | 0x50 | multi-insert | 0 page |
 * | 0x60 | lock an updated version; main data 0 u32 xmax · 4 u16 offset number · 6 u8 infobits · 7 u8 flags | 0 page |
 * | 0x70 | command ids, for logical decoding | none |
 *
 * Source: PostgreSQL access/heap/heapam.c heap2_redo, heap_xlog_visible, heap_xlog_lock_updated.
 */
import { PD_ALL_VISIBLE, setPageFlag } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, blockRef, mainData, unsupportedRedo } from "../handler.ts";
import { redoMultiInsert } from "./insert.ts";
import { ALL_VISIBLE_CLEARED, HEAP_OPERATION_MASK, T_XMAX, heapDialect, replaceXmaxBits, tupleOffset } from "./layout.ts";
import { redoFreeze16, redoPrune16, redoPruneFreeze, redoVacuum16 } from "./prune.ts";
import { ALL_FROZEN, VISIBILITY_BITS, clearIfCovered, isVisibilityMap, setVisibility } from "./visibility-map.ts";

const PRUNE = 0x10;
const VACUUM = 0x20;
const FREEZE = 0x30;
const VISIBLE = 0x40;
const MULTI_INSERT = 0x50;
const LOCK_UPDATED = 0x60;

function redoVisible(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const bits = record.view.getUint8(mainData(record, 5) + 4);
  if (blockId === 0) setVisibility(page, view, blockRef(record, 1).blockNumber, bits);
  else if (blockId === 1) setPageFlag(view, PD_ALL_VISIBLE);
  else unsupportedRedo(record, blockId);
}

function redoLockUpdated(view: DataView, record: WalRecord): void {
  const main = mainData(record, 8);
  const tuple = tupleOffset(view, record.view.getUint16(main + 4, true));
  replaceXmaxBits(view, tuple, record.view.getUint8(main + 6), heapDialect(record).comboInInfobits);
  view.setUint32(tuple + T_XMAX, record.view.getUint32(main, true), true);
}

/** A page of the visibility map registered with a record that clears bits. */
function redoMap(page: Uint8Array, record: WalRecord, blockId: number, operation: number): void {
  const flagsAt = operation === MULTI_INSERT ? 0 : 7;
  if (operation !== MULTI_INSERT && operation !== LOCK_UPDATED) unsupportedRedo(record, blockId);
  const flags = record.view.getUint8(mainData(record, flagsAt + 1) + flagsAt);
  const bits = operation === MULTI_INSERT ? VISIBILITY_BITS : ALL_FROZEN;
  if ((flags & ALL_VISIBLE_CLEARED) !== 0) clearIfCovered(page, record.blocks[blockId].blockNumber, blockRef(record, 0).blockNumber, bits);
}

function redo(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const operation = record.info & HEAP_OPERATION_MASK;
  if (operation === VISIBLE) return redoVisible(page, view, record, blockId);
  if (isVisibilityMap(record, blockId)) return redoMap(page, record, blockId, operation);
  if (blockId !== 0) unsupportedRedo(record, blockId);
  if (operation === MULTI_INSERT) return redoMultiInsert(page, view, record, heapDialect(record));
  if (operation === LOCK_UPDATED) return redoLockUpdated(view, record);
  if (operation < PRUNE || operation > FREEZE) unsupportedRedo(record, blockId);
  if (record.version >= 17) return redoPruneFreeze(page, view, record);
  if (operation === PRUNE) return redoPrune16(page, view, record);
  if (operation === VACUUM) return redoVacuum16(view, record);
  return redoFreeze16(view, record);
}

export const heap2Manager: RedoManager = { name: "heap2", redo, supports: (info) => (info & HEAP_OPERATION_MASK) >= PRUNE && (info & HEAP_OPERATION_MASK) <= LOCK_UPDATED };
