/**
 * Pruning, vacuuming and freezing.
 *
 * Up to 16 these are three records. Prune: 0 u32 xid · 4 u16 redirected · 6 u16 dead; block data: u16 pairs, u16 dead,
 * u16 unused to the end. Vacuum: 0 u16 count; block data: u16 unused. Freeze: 0 u32 xid · 4 u16 count; block data, 14
 * and 15: for each tuple u32 xmax, u16 offset number, u16 infomask2, u16 infomask, u8 flags (12 bytes); 16: plans, then
 * the offset numbers of all of them.
 * From 17 on it is one record. Main data: 0 u8 reason · 1 u8 flags. Block data as flagged: u16 number of plans, 2 bytes
 * nothing, the plans; u16 count and u16 pairs redirected; u16 count and dead; u16 count and unused; the plans' offset
 * numbers.
 * A plan (12 bytes): 0 u32 xmax · 4 u16 infomask2 · 6 u16 infomask · 8 u8 flags · 10 u16 number of tuples.
 *
 * Source: PostgreSQL access/heap/heapam.c heap_xlog_prune, heap_xlog_vacuum, heap_xlog_freeze_page,
 * heap_xlog_prune_freeze; access/heap/pruneheap.c heap_page_prune_execute.
 */
import { repairFragmentation, truncateLinePointers } from "../../page/compact.ts";
import { LP_DEAD, LP_REDIRECT, lineCount, corruptPage, packLine, setLine } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord, mainData } from "../handler.ts";
import { T_CID, T_INFOMASK, T_INFOMASK2, T_XMAX, tupleOffset } from "./layout.ts";

const PLAN_SIZE = 12;
const FREEZE_XVAC = 2;
const INVALID_XVAC = 4;
const FROZEN_XID = 2;

const CLEANUP_LOCK = 1 << 2;
const HAS_FREEZE_PLANS = 1 << 4;
const HAS_REDIRECTIONS = 1 << 5;
const HAS_DEAD_ITEMS = 1 << 6;
const HAS_UNUSED_ITEMS = 1 << 7;

function checkLine(view: DataView, offsetNumber: number): void {
  if (offsetNumber < 1 || offsetNumber > lineCount(view)) corruptPage(`no line pointer ${offsetNumber} among ${lineCount(view)}`);
}

/** Redirects `count` line pointers; pairs of from and to stand at `at` of the record. */
function redirectLines(view: DataView, record: WalRecord, at: number, count: number): void {
  for (let i = 0; i < count; i++) {
    const from = record.view.getUint16(at + i * 4, true);
    checkLine(view, from);
    setLine(view, from, packLine(record.view.getUint16(at + i * 4 + 2, true) & 0x7fff, LP_REDIRECT, 0));
  }
}

/** Gives `count` line pointers, numbered at `at` of the record, one packed value. */
function overwriteLines(view: DataView, record: WalRecord, at: number, count: number, word: number): void {
  for (let i = 0; i < count; i++) {
    const offsetNumber = record.view.getUint16(at + i * 2, true);
    checkLine(view, offsetNumber);
    setLine(view, offsetNumber, word);
  }
}

const DEAD_LINE = packLine(0, LP_DEAD, 0);
const UNUSED_LINE = 0;

/** PostgreSQL 14 keeps unused line pointers at the end when it prunes; later versions drop them. */
function truncatesOnPrune(record: WalRecord): boolean {
  return record.version >= 15;
}

export function redoPrune16(page: Uint8Array, view: DataView, record: WalRecord): void {
  const main = mainData(record, 8);
  const redirected = record.view.getUint16(main + 4, true);
  const dead = record.view.getUint16(main + 6, true);
  const ref = blockRef(record, 0);
  const fixed = redirected * 4 + dead * 2;
  const at = blockData(ref, fixed);
  redirectLines(view, record, at, redirected);
  overwriteLines(view, record, at + redirected * 4, dead, DEAD_LINE);
  overwriteLines(view, record, at + fixed, (blockDataLength(ref) - fixed) >> 1, UNUSED_LINE);
  repairFragmentation(page, view, truncatesOnPrune(record));
}

export function redoVacuum16(view: DataView, record: WalRecord): void {
  const count = record.view.getUint16(mainData(record, 2), true);
  overwriteLines(view, record, blockData(blockRef(record, 0), count * 2), count, UNUSED_LINE);
  truncateLinePointers(view);
}

/** Freezes a tuple (heap_execute_freeze_tuple): xmax stands at `xmaxAt` of the record, the masks at `masksAt`, flags after them. */
function freezeTuple(view: DataView, record: WalRecord, offsetNumber: number, xmaxAt: number, masksAt: number): void {
  const tuple = tupleOffset(view, offsetNumber);
  const flags = record.view.getUint8(masksAt + 4);
  view.setUint32(tuple + T_XMAX, record.view.getUint32(xmaxAt, true), true);
  if ((flags & FREEZE_XVAC) !== 0) view.setUint32(tuple + T_CID, FROZEN_XID, true);
  if ((flags & INVALID_XVAC) !== 0) view.setUint32(tuple + T_CID, 0, true);
  view.setUint16(tuple + T_INFOMASK2, record.view.getUint16(masksAt, true), true);
  view.setUint16(tuple + T_INFOMASK, record.view.getUint16(masksAt + 2, true), true);
}

/** Executes `count` plans at `plans`, whose tuples' offset numbers stand at `offsets`, up to `end`. */
function executePlans(view: DataView, record: WalRecord, plans: number, count: number, offsets: number, end: number): void {
  let next = offsets;
  for (let p = 0; p < count; p++) {
    const plan = plans + p * PLAN_SIZE;
    const tuples = record.view.getUint16(plan + 10, true);
    if (next + tuples * 2 > end) corruptRecord(`offset numbers of freeze plan ${p + 1} cut short`);
    for (let i = 0; i < tuples; i++) freezeTuple(view, record, record.view.getUint16(next + i * 2, true), plan, plan + 4);
    next += tuples * 2;
  }
}

export function redoFreeze16(view: DataView, record: WalRecord): void {
  const count = record.view.getUint16(mainData(record, 6) + 4, true);
  const ref = blockRef(record, 0);
  const at = blockData(ref, count * PLAN_SIZE);
  if (record.version >= 16) {
    executePlans(view, record, at, count, at + count * PLAN_SIZE, at + blockDataLength(ref));
    return;
  }
  for (let i = 0; i < count; i++) {
    const tuple = at + i * PLAN_SIZE;
    freezeTuple(view, record, record.view.getUint16(tuple + 4, true), tuple, tuple + 6);
  }
}

/** The count at `at`, with its `itemSize` byte items checked to end by `end`. */
function itemCount(record: WalRecord, at: number, itemSize: number, end: number): number {
  const count = at + 2 <= end ? record.view.getUint16(at, true) : 0;
  if (at + 2 + count * itemSize > end) corruptRecord(`${count} items of ${itemSize} bytes, ${end - at} bytes left`);
  return count;
}

/** The merged record of 17 and later. */
export function redoPruneFreeze(page: Uint8Array, view: DataView, record: WalRecord): void {
  const flags = record.view.getUint8(mainData(record, 2) + 1);
  const ref = blockRef(record, 0);
  let at = blockData(ref, 0);
  const end = at + blockDataLength(ref);
  let plans = 0;
  let planCount = 0;
  if ((flags & HAS_FREEZE_PLANS) !== 0) {
    if (at + 4 > end) corruptRecord("freeze plans cut short");
    planCount = record.view.getUint16(at, true);
    plans = at + 4;
    at = plans + planCount * PLAN_SIZE;
    if (at > end) corruptRecord("freeze plans cut short");
  }
  let changed = false;
  if ((flags & HAS_REDIRECTIONS) !== 0) {
    const count = itemCount(record, at, 4, end);
    redirectLines(view, record, at + 2, count);
    changed = count > 0;
    at += 2 + count * 4;
  }
  if ((flags & HAS_DEAD_ITEMS) !== 0) {
    const count = itemCount(record, at, 2, end);
    overwriteLines(view, record, at + 2, count, DEAD_LINE);
    changed ||= count > 0;
    at += 2 + count * 2;
  }
  if ((flags & HAS_UNUSED_ITEMS) !== 0) {
    const count = itemCount(record, at, 2, end);
    overwriteLines(view, record, at + 2, count, UNUSED_LINE);
    changed ||= count > 0;
    at += 2 + count * 2;
  }
  if (changed && (flags & CLEANUP_LOCK) !== 0) repairFragmentation(page, view, true);
  else if (changed) truncateLinePointers(view);
  executePlans(view, record, plans, planCount, at, end);
}
