/**
 * Inserting one or many tuples on a page.
 *
 * Insert, main data: 0 u16 offset number · 2 u8 flags. Block 0 data: tuple header (u16 infomask2, u16 infomask,
 * u8 data offset; with command ids a u32 between), then the tuple after its fixed header.
 * Multi-insert, main data: 0 u8 flags · 2 u16 count · 4 u16[] offset numbers unless the page is new. Block 0 data, for
 * each tuple, 2-aligned: u16 length, the same header, the bytes.
 *
 * Source: PostgreSQL access/heap/heapam.c heap_xlog_insert, heap_xlog_multi_insert.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { placeItemSpace } from "../../page/items.ts";
import { PD_ALL_VISIBLE, clearPageFlag, initPage, setPageFlag } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord, mainData } from "../handler.ts";
import {
  ALL_FROZEN_SET, ALL_VISIBLE_CLEARED, HEAP_INIT_PAGE, type HeapDialect, TUPLE_HEADER_SIZE, T_CID, T_HOFF, T_INFOMASK, T_INFOMASK2, T_XMAX,
  T_XMIN, commandIdAt, setCtid,
} from "./layout.ts";

const INSERT_SIZE = 3;
const HEAP_COMBOCID = 0x0020;

/** Fills a new tuple's fixed header from the header at `from` of the record; xmax is left zero. */
export function writeTupleHeader(view: DataView, tuple: number, record: WalRecord, from: number, hoffAt: number, commandId: number): void {
  view.setUint32(tuple + T_XMIN, record.xid, true);
  view.setUint32(tuple + T_XMAX, 0, true);
  view.setUint32(tuple + T_CID, commandId, true);
  view.setUint16(tuple + T_INFOMASK2, record.view.getUint16(from, true), true);
  view.setUint16(tuple + T_INFOMASK, record.view.getUint16(from + 2, true), true);
  view.setUint8(tuple + T_HOFF, record.view.getUint8(from + hoffAt));
}

/** Without a command id in the record it is zero, so it cannot be a combo id. */
export function clearComboId(view: DataView, tuple: number): void {
  view.setUint16(tuple + T_INFOMASK, view.getUint16(tuple + T_INFOMASK, true) & ~HEAP_COMBOCID, true);
}

function setVisibleFlags(view: DataView, flags: number): void {
  if ((flags & ALL_VISIBLE_CLEARED) !== 0) clearPageFlag(view, PD_ALL_VISIBLE);
  if ((flags & ALL_FROZEN_SET) !== 0) setPageFlag(view, PD_ALL_VISIBLE);
}

export function redoInsert(page: Uint8Array, view: DataView, record: WalRecord, dialect: HeapDialect): void {
  const main = mainData(record, INSERT_SIZE);
  const offsetNumber = record.view.getUint16(main, true);
  const ref = blockRef(record, 0);
  const from = blockData(ref, dialect.headerSize);
  const size = blockDataLength(ref) - dialect.headerSize;
  if ((record.info & HEAP_INIT_PAGE) !== 0) initPage(page, view, 0);
  const tuple = placeItemSpace(view, offsetNumber, size + TUPLE_HEADER_SIZE);
  writeTupleHeader(view, tuple, record, from, dialect.headerHoff, commandIdAt(record, from, dialect.headerCid));
  if (dialect.headerCid < 0) clearComboId(view, tuple);
  setCtid(view, tuple, ref.blockNumber, offsetNumber);
  copyBytes(record.bytes, from + dialect.headerSize, page, tuple + TUPLE_HEADER_SIZE, size);
  setVisibleFlags(view, record.view.getUint8(main + 2));
}

export function redoMultiInsert(page: Uint8Array, view: DataView, record: WalRecord, dialect: HeapDialect): void {
  const main = mainData(record, dialect.multiSize);
  const count = record.view.getUint16(main + 2, true);
  const isNew = (record.info & HEAP_INIT_PAGE) !== 0;
  if (!isNew) mainData(record, dialect.multiSize + count * 2);
  const ref = blockRef(record, 0);
  const start = blockData(ref, 0);
  const end = start + blockDataLength(ref);
  if (isNew) initPage(page, view, 0);
  const sharedCid = commandIdAt(record, main, dialect.multiCid);
  const hasCid = dialect.multiCid >= 0 || dialect.tupleCid >= 0;
  let at = start;
  for (let i = 0; i < count; i++) {
    const offsetNumber = isNew ? i + 1 : record.view.getUint16(main + dialect.multiSize + i * 2, true);
    at += (at - start) & 1;
    if (at + dialect.tupleSize > end) corruptRecord(`tuple ${i + 1} of ${count} cut short`);
    const size = record.view.getUint16(at, true);
    if (at + dialect.tupleSize + size > end) corruptRecord(`tuple ${i + 1} of ${count} cut short`);
    const tuple = placeItemSpace(view, offsetNumber, size + TUPLE_HEADER_SIZE);
    const commandId = dialect.tupleCid < 0 ? sharedCid : record.view.getUint32(at + dialect.tupleCid, true);
    writeTupleHeader(view, tuple, record, at + 2, dialect.tupleHoff - 2, commandId);
    if (!hasCid) clearComboId(view, tuple);
    setCtid(view, tuple, ref.blockNumber, offsetNumber);
    at += dialect.tupleSize;
    copyBytes(record.bytes, at, page, tuple + TUPLE_HEADER_SIZE, size);
    at += size;
  }
  if (at !== end) corruptRecord(`${end - at} bytes after the last tuple`);
  setVisibleFlags(view, record.view.getUint8(main));
}
