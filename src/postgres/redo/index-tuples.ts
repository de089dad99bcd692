/**
 * What the index managers share: lists of offset numbers and tuples as WAL records carry them, and putting them on a
 * page.
 *
 * Positional parameters on purpose: these run once a record, and an options object would be an allocation.
 *
 * Source: PostgreSQL access/itup.h (IndexTupleData: 6 bytes tuple id, u16 t_info with the size in its low 13 bits).
 */
import { copyBytes } from "../../kit/copy.ts";
import { insertItemSpace } from "../page/items.ts";
import { lineCount } from "../page/page-layout.ts";
import type { WalRecord } from "../wal/record.ts";
import { corruptRecord } from "./handler.ts";

export const INDEX_TUPLE_HEADER_SIZE = 8;
const INDEX_SIZE_MASK = 0x1fff;
export const INVALID_BLOCK = 0xffff_ffff;

/** No page has as many line pointers. */
export const MAX_OFFSETS = 2048;
/** Filled by `readOffsetNumbers`; valid until its next call. */
export const offsetNumbers = new Uint16Array(MAX_OFFSETS);

/** First byte after the record's main data. */
export function mainDataEnd(record: WalRecord): number {
  return record.mainDataOffset + record.mainDataLength;
}

/** Checks that `size` bytes at `at` lie before `end`. @throws StrataError corrupt `corrupt-record` */
export function needBytes(at: number, size: number, end: number): void {
  if (at + size > end) corruptRecord(`${size} bytes expected where ${Math.max(0, end - at)} are left`);
}

/**
 * Reads `count` u16 offset numbers at `at` into `offsetNumbers`.
 * @returns the offset after them
 * @throws StrataError corrupt `corrupt-record`
 */
export function readOffsetNumbers(record: WalRecord, at: number, count: number, end: number): number {
  if (count > MAX_OFFSETS) corruptRecord(`${count} offset numbers`);
  needBytes(at, count * 2, end);
  const view = record.view;
  for (let i = 0; i < count; i++) offsetNumbers[i] = view.getUint16(at + 2 * i, true);
  return at + 2 * count;
}

/** Size of the index tuple at `at`, which lies before `end`. @throws StrataError corrupt `corrupt-record` */
export function indexTupleSize(record: WalRecord, at: number, end: number): number {
  needBytes(at, INDEX_TUPLE_HEADER_SIZE, end);
  const size = record.view.getUint16(at + 6, true) & INDEX_SIZE_MASK;
  if (size < INDEX_TUPLE_HEADER_SIZE || at + size > end) corruptRecord(`index tuple of ${size} bytes where ${end - at} are left`);
  return size;
}

/**
 * Inserts the record's bytes `at .. at + size` as item `offsetNumber`, moving the ones from there on up. The caller has
 * checked that they lie in the record. @throws StrataError corrupt `corrupt-page`
 */
export function insertFromRecord(page: Uint8Array, view: DataView, offsetNumber: number, record: WalRecord, at: number, size: number): void {
  copyBytes(record.bytes, at, page, insertItemSpace(page, view, offsetNumber, size), size);
}

/**
 * Appends the index tuples between `at` and `end`.
 * @returns how many
 * @throws StrataError corrupt
 */
export function appendTuples(page: Uint8Array, view: DataView, record: WalRecord, at: number, end: number): number {
  let offsetNumber = lineCount(view) + 1;
  let count = 0;
  while (at < end) {
    const size = indexTupleSize(record, at, end);
    insertFromRecord(page, view, offsetNumber++, record, at, size);
    at += size;
    count++;
  }
  return count;
}

/** Writes a tuple id: u16 block high, u16 block low, u16 offset number. */
export function setTupleId(view: DataView, at: number, block: number, offsetNumber: number): void {
  view.setUint16(at, block >>> 16, true);
  view.setUint16(at + 2, block & 0xffff, true);
  view.setUint16(at + 4, offsetNumber, true);
}
