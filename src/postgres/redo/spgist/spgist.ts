/**
 * Redo of SP-GiST index records.
 *
 * | info | record | main data | blocks |
 * | --- | --- | --- | --- |
 * | 10 | add leaf | u8 new page, u8 nulls, u16 leaf, u16 head of its chain, u16 parent tuple, u16 node; leaf tuple | 0 leaf page, 1 parent |
 * | 20 | move leaves | u16 moved, u8 new page, u8 replaces dead, u8 nulls, u16 parent tuple, u16 node, state; offset numbers deleted, inserted; leaf tuples | 0 source, 1 destination, 2 parent |
 * | 30 | add node | u16 old, u16 new, u8 new page, i8 block of the parent, u16 parent tuple, u16 node, state; inner tuple | 0 old place, 1 new place, 2 parent |
 * | 40 | split tuple | u16 prefix, u16 postfix, u8 new page, u8 same page; both inner tuples | 0 prefix, 1 postfix |
 * | 50 | pick split | see pick-split.ts | 0 source, 1 destination, 2 inner, 3 parent |
 * | 60, 70, 80 | vacuum leaf, root, redirects | see vacuum.ts | 0 page |
 *
 * state: u32 xid for redirects, u8 index is being built, 3 padding. Tuples are not aligned.
 *
 * Source: PostgreSQL access/spgist/spgxlog.c, include/access/spgxlog.h.
 */
import { deleteItem } from "../../page/items.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockRef, corruptRecord, hasBlock, mainData, unsupportedRedo } from "../handler.ts";
import { mainDataEnd, needBytes, offsetNumbers, readOffsetNumbers } from "../index-tuples.ts";
import {
  TUPLE_PLACEHOLDER, TUPLE_REDIRECT, addOrReplaceTuple, initInnerPage, initLeafPage, innerTupleSize, insertDeadTuple, leafTupleSize,
  replaceByDeadTuples, replaceTuple, setNextInChain, setNodeLink, setRedirect,
} from "./page.ts";
import { pickSplit } from "./pick-split.ts";
import { vacuumLeaf, vacuumRedirects, vacuumRoot } from "./vacuum.ts";

/** Offsets into the main data, and where its variable part begins. */
const ADD_LEAF = { NEW_PAGE: 0, NULLS: 1, LEAF: 2, HEAD: 4, PARENT: 6, NODE: 8, SIZE: 10 } as const;
const MOVE = { MOVED: 0, NEW_PAGE: 2, REPLACES_DEAD: 3, NULLS: 4, PARENT: 6, NODE: 8, XID: 12, BUILD: 16, SIZE: 20 } as const;
const ADD_NODE = { OLD: 0, NEW: 2, NEW_PAGE: 4, PARENT_BLOCK: 5, PARENT: 6, NODE: 8, XID: 12, BUILD: 16, SIZE: 20 } as const;
const SPLIT = { PREFIX: 0, POSTFIX: 2, NEW_PAGE: 4, SAME_PAGE: 5, SIZE: 6 } as const;

function redoSpgist(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & RMGR_INFO_MASK) {
    case 0x10: return addLeaf(page, view, record, blockId);
    case 0x20: return moveLeaves(page, view, record, blockId);
    case 0x30: return addNode(page, view, record, blockId);
    case 0x40: return splitTuple(page, view, record, blockId);
    case 0x50: return pickSplit(page, view, record, blockId);
    case 0x60: return vacuumLeaf(page, view, record, blockId);
    case 0x70: return vacuumRoot(page, view, record, blockId);
    case 0x80: return vacuumRedirects(page, view, record, blockId);
    default: return unsupportedRedo(record, blockId);
  }
}

export const spgistManager: RedoManager = {
  name: "spgist",
  redo: redoSpgist,
  supports: (info) => (info & RMGR_INFO_MASK) >= 0x10 && (info & RMGR_INFO_MASK) <= 0x80,
};

/** A block the record kind does not have. */
function noSuchBlock(record: WalRecord, blockId: number): never {
  corruptRecord(`SP-GiST record ${(record.info & RMGR_INFO_MASK).toString(16)} with block ${blockId}`);
}

function addLeaf(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, ADD_LEAF.SIZE);
  const { view: data, bytes } = record;
  const leaf = data.getUint16(at + ADD_LEAF.LEAF, true);
  const head = data.getUint16(at + ADD_LEAF.HEAD, true);
  if (blockId === 1) {
    const parent = data.getUint16(at + ADD_LEAF.PARENT, true);
    return setNodeLink(view, parent, data.getUint16(at + ADD_LEAF.NODE, true), blockRef(record, 0).blockNumber, leaf);
  }
  if (blockId !== 0) noSuchBlock(record, blockId);
  if (bytes[at + ADD_LEAF.NEW_PAGE] !== 0) initLeafPage(page, view, bytes[at + ADD_LEAF.NULLS] !== 0);
  const tuple = at + ADD_LEAF.SIZE;
  const size = leafTupleSize(record, tuple, mainDataEnd(record));
  if (leaf === head) {
    replaceTuple(page, view, leaf, record, tuple, size);
  } else {
    addOrReplaceTuple(page, view, leaf, record, tuple, size);
    if (head !== 0) setNextInChain(view, head, leaf);
  }
}

function moveLeaves(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, MOVE.SIZE);
  const { view: data, bytes } = record;
  const moved = data.getUint16(at + MOVE.MOVED, true);
  const inserted = bytes[at + MOVE.REPLACES_DEAD] !== 0 ? 1 : moved + 1;
  const insertedAt = at + MOVE.SIZE + 2 * moved;
  needBytes(insertedAt, 2 * inserted, mainDataEnd(record));
  const destination = blockRef(record, 1).blockNumber;
  const lastInserted = data.getUint16(insertedAt + 2 * (inserted - 1), true);
  if (blockId === 0) {
    readOffsetNumbers(record, at + MOVE.SIZE, moved, insertedAt);
    setRedirect(destination, lastInserted, data.getUint32(at + MOVE.XID, true));
    replaceByDeadTuples(page, view, moved, bytes[at + MOVE.BUILD] !== 0 ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT, TUPLE_PLACEHOLDER);
  } else if (blockId === 1) {
    if (bytes[at + MOVE.NEW_PAGE] !== 0) initLeafPage(page, view, bytes[at + MOVE.NULLS] !== 0);
    insertLeaves(page, view, record, insertedAt, inserted);
  } else if (blockId === 2) {
    setNodeLink(view, data.getUint16(at + MOVE.PARENT, true), data.getUint16(at + MOVE.NODE, true), destination, lastInserted);
  } else {
    noSuchBlock(record, blockId);
  }
}

/** Adds the `count` leaf tuples that follow as many offset numbers at `at`. */
function insertLeaves(page: Uint8Array, view: DataView, record: WalRecord, at: number, count: number): void {
  const end = mainDataEnd(record);
  let tuple = readOffsetNumbers(record, at, count, end);
  for (let i = 0; i < count; i++) {
    const size = leafTupleSize(record, tuple, end);
    addOrReplaceTuple(page, view, offsetNumbers[i], record, tuple, size);
    tuple += size;
  }
}

function addNode(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, ADD_NODE.SIZE);
  const { view: data, bytes } = record;
  const tuple = at + ADD_NODE.SIZE;
  const size = innerTupleSize(record, tuple, mainDataEnd(record));
  const oldNumber = data.getUint16(at + ADD_NODE.OLD, true);
  if (blockId === 0 && !hasBlock(record, 1)) return replaceTuple(page, view, oldNumber, record, tuple, size);
  const newBlock = blockRef(record, 1).blockNumber;
  const newNumber = data.getUint16(at + ADD_NODE.NEW, true);
  if (blockId === 0) {
    setRedirect(newBlock, newNumber, data.getUint32(at + ADD_NODE.XID, true));
    deleteItem(page, view, oldNumber);
    insertDeadTuple(page, view, oldNumber, bytes[at + ADD_NODE.BUILD] !== 0 ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT);
  } else if (blockId === 1) {
    if (bytes[at + ADD_NODE.NEW_PAGE] !== 0) initInnerPage(page, view, false);
    addOrReplaceTuple(page, view, newNumber, record, tuple, size);
  } else if (blockId > 2) {
    noSuchBlock(record, blockId);
  }
  if (data.getInt8(at + ADD_NODE.PARENT_BLOCK) === blockId) {
    setNodeLink(view, data.getUint16(at + ADD_NODE.PARENT, true), data.getUint16(at + ADD_NODE.NODE, true), newBlock, newNumber);
  }
}

function splitTuple(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, SPLIT.SIZE);
  const { view: data, bytes } = record;
  const end = mainDataEnd(record);
  const prefix = at + SPLIT.SIZE;
  const prefixSize = innerTupleSize(record, prefix, end);
  const postfix = prefix + prefixSize;
  const postfixSize = innerTupleSize(record, postfix, end);
  const postfixNumber = data.getUint16(at + SPLIT.POSTFIX, true);
  if (blockId === 0) {
    replaceTuple(page, view, data.getUint16(at + SPLIT.PREFIX, true), record, prefix, prefixSize);
    if (bytes[at + SPLIT.SAME_PAGE] !== 0) addOrReplaceTuple(page, view, postfixNumber, record, postfix, postfixSize);
  } else if (blockId === 1) {
    if (bytes[at + SPLIT.NEW_PAGE] !== 0) initInnerPage(page, view, false);
    addOrReplaceTuple(page, view, postfixNumber, record, postfix, postfixSize);
  } else {
    noSuchBlock(record, blockId);
  }
}
