/**
 * What vacuum does to SP-GiST pages. Main data:
 *
 * | record | main data |
 * | --- | --- |
 * | leaf | u16 dead, u16 placeholders, u16 moves, u16 chain links, state (8 bytes); offset numbers: dead, placeholders, moved from, moved to, links of, links to |
 * | root | u16 deleted, at 4 state (8 bytes); offset numbers |
 * | redirects | u16 redirects, u16 first placeholder to remove, u32 horizon, 16 on: u8, u8 padding; offset numbers |
 *
 * Source: PostgreSQL access/spgist/spgxlog.c (spgRedoVacuumLeaf, spgRedoVacuumRoot, spgRedoVacuumRedirect).
 */
import { deleteItems } from "../../page/items.ts";
import { corruptPage, lineCount, lineWord, setLine } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { corruptRecord, mainData } from "../handler.ts";
import { MAX_OFFSETS, mainDataEnd, needBytes, offsetNumbers, readOffsetNumbers } from "../index-tuples.ts";
import { TUPLE_DEAD, TUPLE_PLACEHOLDER, addPlaceholders, addRedirects, redirectToPlaceholder, replaceByDeadTuples, setNextInChain } from "./page.ts";

const LEAF_SIZE = 16;
const ROOT_SIZE = 12;

function onlyBlock0(blockId: number): void {
  if (blockId !== 0) corruptRecord(`SP-GiST vacuum record with block ${blockId}`);
}

export function vacuumLeaf(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  onlyBlock0(blockId);
  const at = mainData(record, LEAF_SIZE);
  const end = mainDataEnd(record);
  const data = record.view;
  const dead = data.getUint16(at, true);
  const placeholders = data.getUint16(at + 2, true);
  const moves = data.getUint16(at + 4, true);
  const links = data.getUint16(at + 6, true);
  needBytes(at + LEAF_SIZE, 2 * (dead + placeholders + 2 * moves + 2 * links), end);
  let next = readOffsetNumbers(record, at + LEAF_SIZE, dead, end);
  replaceByDeadTuples(page, view, dead, TUPLE_DEAD, TUPLE_DEAD);
  next = readOffsetNumbers(record, next, placeholders, end);
  replaceByDeadTuples(page, view, placeholders, TUPLE_PLACEHOLDER, TUPLE_PLACEHOLDER);
  for (let i = 0; i < moves; i++) {
    swapLines(view, data.getUint16(next + 2 * i, true), data.getUint16(next + 2 * (moves + i), true));
  }
  readOffsetNumbers(record, next, moves, end);
  replaceByDeadTuples(page, view, moves, TUPLE_PLACEHOLDER, TUPLE_PLACEHOLDER);
  next += 4 * moves;
  for (let i = 0; i < links; i++) {
    setNextInChain(view, data.getUint16(next + 2 * i, true), data.getUint16(next + 2 * (links + i), true));
  }
}

function swapLines(view: DataView, a: number, b: number): void {
  const word = lineWord(view, a);
  setLine(view, a, lineWord(view, b));
  setLine(view, b, word);
}

export function vacuumRoot(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  onlyBlock0(blockId);
  const at = mainData(record, ROOT_SIZE);
  const count = record.view.getUint16(at, true);
  readOffsetNumbers(record, at + ROOT_SIZE, count, mainDataEnd(record));
  deleteItems(page, view, offsetNumbers, count);
}

export function vacuumRedirects(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  onlyBlock0(blockId);
  const headerSize = record.version < 16 ? 8 : 10;
  const at = mainData(record, headerSize);
  const count = record.view.getUint16(at, true);
  const firstPlaceholder = record.view.getUint16(at + 2, true);
  readOffsetNumbers(record, at + headerSize, count, mainDataEnd(record));
  for (let i = 0; i < count; i++) redirectToPlaceholder(view, offsetNumbers[i]);
  addRedirects(view, -count);
  addPlaceholders(view, count);
  if (firstPlaceholder !== 0) removeFrom(page, view, firstPlaceholder);
}

/** Removes the placeholders `first` to the last tuple. */
function removeFrom(page: Uint8Array, view: DataView, first: number): void {
  const last = lineCount(view);
  const count = last - first + 1;
  if (count < 1 || last >= MAX_OFFSETS) corruptPage(`placeholders from ${first} on, among ${last} tuples`);
  for (let i = 0; i < count; i++) offsetNumbers[i] = first + i;
  addPlaceholders(view, -count);
  deleteItems(page, view, offsetNumbers, count);
}
