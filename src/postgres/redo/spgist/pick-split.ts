/**
 * SP-GiST "pick split": the leaf tuples of one node are spread over new nodes below a new inner tuple.
 *
 * Main data:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u8 | the root was split: there is no source page |
 * | 2, 4 | u16 | tuples deleted from the source page, tuples inserted |
 * | 6, 7 | u8 | source page, destination page starts empty |
 * | 8 | u16 | the inner tuple's offset number |
 * | 10, 11 | u8 | inner page starts empty, pages are of the nulls tree |
 * | 12 | u8 | the parent tuple is on the inner page |
 * | 14, 16 | u16 | parent tuple, its node |
 * | 20 | u32, u8 | xid for redirects, index is being built |
 * | 28 | u16[] | offset numbers deleted, then inserted; u8[] inserted on the destination page; inner tuple; leaf tuples |
 *
 * Source: PostgreSQL access/spgist/spgxlog.c (spgRedoPickSplit).
 */
import type { WalRecord } from "../../wal/record.ts";
import { blockRef, corruptRecord, mainData } from "../handler.ts";
import { mainDataEnd, needBytes, offsetNumbers, readOffsetNumbers } from "../index-tuples.ts";
import {
  TUPLE_PLACEHOLDER, TUPLE_REDIRECT, addOrReplaceTuple, initInnerPage, initLeafPage, innerTupleSize, leafTupleSize, replaceByDeadTuples,
  setNodeLink, setRedirect,
} from "./page.ts";

const PICK = {
  DELETED: 2, INSERTED: 4, INIT_SOURCE: 6, INIT_DESTINATION: 7, INNER: 8, INIT_INNER: 10, NULLS: 11, INNER_IS_PARENT: 12,
  PARENT: 14, NODE: 16, XID: 20, BUILD: 24, SIZE: 28,
} as const;

/** Offsets into the record of the variable parts. */
const parts = { deleted: 0, inserted: 0, selectors: 0, innerTuple: 0, leafTuples: 0, end: 0 };

function locateParts(record: WalRecord, at: number): void {
  parts.end = mainDataEnd(record);
  parts.deleted = at + PICK.SIZE;
  parts.inserted = parts.deleted + 2 * record.view.getUint16(at + PICK.DELETED, true);
  const inserted = record.view.getUint16(at + PICK.INSERTED, true);
  parts.selectors = parts.inserted + 2 * inserted;
  parts.innerTuple = parts.selectors + inserted;
  needBytes(parts.innerTuple, 0, parts.end);
  parts.leafTuples = parts.innerTuple + innerTupleSize(record, parts.innerTuple, parts.end);
}

export function pickSplit(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, PICK.SIZE);
  locateParts(record, at);
  if (blockId === 0) return source(page, view, record, at);
  if (blockId === 1) {
    if (record.bytes[at + PICK.INIT_DESTINATION] !== 0) initLeafPage(page, view, record.bytes[at + PICK.NULLS] !== 0);
    return insertLeaves(page, view, record, at, true);
  }
  if (blockId > 3) corruptRecord(`SP-GiST pick split with block ${blockId}`);
  const inner = record.view.getUint16(at + PICK.INNER, true);
  if (blockId === 2) {
    if (record.bytes[at + PICK.INIT_INNER] !== 0) initInnerPage(page, view, record.bytes[at + PICK.NULLS] !== 0);
    addOrReplaceTuple(page, view, inner, record, parts.innerTuple, parts.leafTuples - parts.innerTuple);
    if (record.bytes[at + PICK.INNER_IS_PARENT] === 0) return;
  }
  const node = record.view.getUint16(at + PICK.NODE, true);
  setNodeLink(view, record.view.getUint16(at + PICK.PARENT, true), node, blockRef(record, 2).blockNumber, inner);
}

function source(page: Uint8Array, view: DataView, record: WalRecord, at: number): void {
  if (record.bytes[at + PICK.INIT_SOURCE] !== 0) {
    initLeafPage(page, view, record.bytes[at + PICK.NULLS] !== 0);
  } else {
    const count = record.view.getUint16(at + PICK.DELETED, true);
    readOffsetNumbers(record, parts.deleted, count, parts.inserted);
    setRedirect(blockRef(record, 2).blockNumber, record.view.getUint16(at + PICK.INNER, true), record.view.getUint32(at + PICK.XID, true));
    replaceByDeadTuples(page, view, count, record.bytes[at + PICK.BUILD] !== 0 ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT, TUPLE_PLACEHOLDER);
  }
  insertLeaves(page, view, record, at, false);
}

/** Adds the leaf tuples whose selector says they go to the destination page, or those that do not. */
function insertLeaves(page: Uint8Array, view: DataView, record: WalRecord, at: number, onDestination: boolean): void {
  const count = record.view.getUint16(at + PICK.INSERTED, true);
  readOffsetNumbers(record, parts.inserted, count, parts.selectors);
  let tuple = parts.leafTuples;
  for (let i = 0; i < count; i++) {
    const size = leafTupleSize(record, tuple, parts.end);
    if ((record.bytes[parts.selectors + i] !== 0) === onDestination) addOrReplaceTuple(page, view, offsetNumbers[i], record, tuple, size);
    tuple += size;
  }
}
