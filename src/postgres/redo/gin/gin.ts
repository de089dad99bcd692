/**
 * Redo of GIN index records.
 *
 * | info | record | main data | blocks |
 * | --- | --- | --- | --- |
 * | 10 | create posting tree | u32 size, the segments | 0 root (init) |
 * | 20 | insert | u16 flags: 1 posting tree, 2 leaf; not a leaf: left and right child (u16 high, u16 low each) | 0 page (data by kind), 1 left child |
 * | 30 | split | 12 bytes relation, u32 right link, u32 left child, u32 right child, u16 flags | 0 left, 1 right, 2 root: images; 3 left child |
 * | 40 | vacuum page | – | 0 image |
 * | 50 | delete page | u16 offset in the parent, u32 right link, u32 xid | 0 deleted, 1 parent, 2 left neighbour |
 * | 60 | update metapage | 16 relation, 56 metapage, u32 old tail, u32 new right link, i32 tuples | 0 meta (init), 1 tail (data: tuples) |
 * | 70 | insert list page | u32 right link, i32 tuples | 0 page (init; data: tuples) |
 * | 80 | delete list pages | 56 metapage, i32 pages | 0 meta (init), 1… deleted pages (init) |
 * | 90 | vacuum data leaf | – | 0 leaf (data: changes, see recompress.ts) |
 *
 * Data of an insert into block 0:
 *
 * | page | data |
 * | --- | --- |
 * | entry tree | u16 offset number, u8 replace, at 4 the tuple |
 * | posting tree, leaf | changes, see recompress.ts |
 * | posting tree, inner | u16 offset number, posting item |
 *
 * Source: PostgreSQL access/gin/ginxlog.c, include/access/ginxlog.h.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { deleteItem } from "../../page/items.ts";
import { PD_PRUNE_XID, itemOffset, setPageLower } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockData, blockDataLength, blockRef, corruptRecord, mainData, unsupportedRedo } from "../handler.ts";
import { INVALID_BLOCK, appendTuples, indexTupleSize, insertFromRecord, mainDataEnd, needBytes, setTupleId } from "../index-tuples.ts";
import {
  GIN_COMPRESSED, GIN_DATA, GIN_DATA_START, GIN_DELETED, GIN_INCOMPLETE_SPLIT, GIN_LEAF, GIN_LIST, GIN_LIST_FULLROW, POSTING_ITEM_SIZE,
  dataLimit, ginFlags, ginItemCount, initGinMetaPage, initGinPage, postingItemAt, setGinFlags, setGinItemCount, setPostingItems, setRightLink,
} from "./page.ts";
import { recompressLeaf } from "./recompress.ts";

const INSERT_IS_DATA = 1;
const INSERT_IS_LEAF = 2;

/** Offsets into the main data of "update metapage"; the tuple count is the last field used. */
const META_UPDATE = { METADATA: 16, PREVIOUS_TAIL: 72, NEW_RIGHT_LINK: 76, TUPLES: 80, SIZE: 84 } as const;
const DELETE_LIST_SIZE = 60;

function redoGin(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & RMGR_INFO_MASK) {
    case 0x10: return createPostingTree(page, view, record, blockId);
    case 0x20: return insert(page, view, record, blockId);
    case 0x30: return blockId === 3 ? clearIncompleteSplit(view) : withoutImage(record, blockId);
    case 0x40: return withoutImage(record, blockId);
    case 0x50: return deletePage(page, view, record, blockId);
    case 0x60: return updateMetaPage(page, view, record, blockId);
    case 0x70: return insertListPage(page, view, record, blockId);
    case 0x80: return deleteListPages(page, view, record, blockId);
    case 0x90: return vacuumDataLeaf(page, view, record, blockId);
    default: return unsupportedRedo(record, blockId);
  }
}

export const ginManager: RedoManager = {
  name: "gin",
  redo: redoGin,
  supports: (info) => (info & RMGR_INFO_MASK) >= 0x10 && (info & RMGR_INFO_MASK) <= 0x90,
};

function kind(record: WalRecord): string {
  return (record.info & RMGR_INFO_MASK).toString(16);
}

/** A block the record kind does not have. */
function noSuchBlock(record: WalRecord, blockId: number): never {
  corruptRecord(`GIN record ${kind(record)} with block ${blockId}`);
}

/** A block that is only ever restored from its image. */
function withoutImage(record: WalRecord, blockId: number): never {
  corruptRecord(`GIN record ${kind(record)} without an image of block ${blockId}`);
}

function clearIncompleteSplit(view: DataView): void {
  setGinFlags(view, ginFlags(view) & ~GIN_INCOMPLETE_SPLIT);
}

function createPostingTree(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const at = mainData(record, 4);
  const size = record.view.getUint32(at, true);
  needBytes(at + 4, size, mainDataEnd(record));
  initGinPage(page, view, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  if (GIN_DATA_START + size > dataLimit(view)) corruptRecord(`GIN posting tree root of ${size} bytes`);
  copyBytes(record.bytes, at + 4, page, GIN_DATA_START, size);
  setPageLower(view, GIN_DATA_START + size);
}

function insert(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 2);
  const flags = record.view.getUint16(at, true);
  const isLeaf = (flags & INSERT_IS_LEAF) !== 0;
  if (blockId === 1 && !isLeaf) return clearIncompleteSplit(view);
  if (blockId !== 0) noSuchBlock(record, blockId);
  let rightChild = INVALID_BLOCK;
  if (!isLeaf) {
    mainData(record, 10);
    rightChild = record.view.getUint16(at + 6, true) * 0x10000 + record.view.getUint16(at + 8, true);
  }
  if ((flags & INSERT_IS_DATA) === 0) return insertEntry(page, view, record, rightChild);
  if (!isLeaf) return insertPostingItem(page, view, record, rightChild);
  const ref = blockRef(record, 0);
  recompressLeaf(page, view, record, blockData(ref, 2), ref.dataOffset + ref.dataLength);
}

function insertEntry(page: Uint8Array, view: DataView, record: WalRecord, rightChild: number): void {
  const ref = blockRef(record, 0);
  const at = blockData(ref, 12);
  const offsetNumber = record.view.getUint16(at, true);
  if (rightChild !== INVALID_BLOCK) setTupleId(view, itemOffset(view, offsetNumber, 6), rightChild, 0);
  if (record.bytes[at + 2] !== 0) deleteItem(page, view, offsetNumber);
  const size = indexTupleSize(record, at + 4, at + ref.dataLength);
  insertFromRecord(page, view, offsetNumber, record, at + 4, size);
}

/** Inserts an item for the left half of a split child; the item that was there now leads to the right half. */
function insertPostingItem(page: Uint8Array, view: DataView, record: WalRecord, rightChild: number): void {
  const data = blockData(blockRef(record, 0), 2 + POSTING_ITEM_SIZE);
  const offsetNumber = record.view.getUint16(data, true);
  const count = ginItemCount(view);
  const at = postingItemAt(view, offsetNumber, count);
  const end = GIN_DATA_START + count * POSTING_ITEM_SIZE;
  if (end + POSTING_ITEM_SIZE > dataLimit(view)) corruptRecord("GIN posting tree page overflows");
  view.setUint16(at, rightChild >>> 16, true);
  view.setUint16(at + 2, rightChild & 0xffff, true);
  page.copyWithin(at + POSTING_ITEM_SIZE, at, end);
  copyBytes(record.bytes, data + 2, page, at, POSTING_ITEM_SIZE);
  setPostingItems(view, count + 1);
}

function vacuumDataLeaf(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const ref = blockRef(record, 0);
  recompressLeaf(page, view, record, blockData(ref, 2), ref.dataOffset + ref.dataLength);
}

function deletePage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, 12);
  if (blockId === 0) {
    setGinFlags(view, ginFlags(view) | GIN_DELETED);
    view.setUint32(PD_PRUNE_XID, record.view.getUint32(at + 8, true), true);
  } else if (blockId === 1) {
    const count = ginItemCount(view);
    const item = postingItemAt(view, record.view.getUint16(at, true), count);
    page.copyWithin(item, item + POSTING_ITEM_SIZE, GIN_DATA_START + count * POSTING_ITEM_SIZE);
    setPostingItems(view, count - 1);
  } else if (blockId === 2) {
    setRightLink(view, record.view.getUint32(at + 4, true));
  } else {
    noSuchBlock(record, blockId);
  }
}

function updateMetaPage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, META_UPDATE.SIZE);
  if (blockId === 0) return initGinMetaPage(page, view, record.bytes, at + META_UPDATE.METADATA);
  if (blockId !== 1) noSuchBlock(record, blockId);
  const tuples = record.view.getInt32(at + META_UPDATE.TUPLES, true);
  if (tuples > 0) {
    appendListTuples(page, view, record, blockId, tuples);
    setGinItemCount(view, ginItemCount(view) + 1);
  } else if (record.view.getUint32(at + META_UPDATE.PREVIOUS_TAIL, true) !== INVALID_BLOCK) {
    setRightLink(view, record.view.getUint32(at + META_UPDATE.NEW_RIGHT_LINK, true));
  }
}

function appendListTuples(page: Uint8Array, view: DataView, record: WalRecord, blockId: number, tuples: number): void {
  const ref = blockRef(record, blockId);
  const count = appendTuples(page, view, record, ref.dataOffset, ref.dataOffset + blockDataLength(ref));
  if (count !== tuples) corruptRecord(`${count} tuples for the GIN pending list, ${tuples} announced`);
}

function insertListPage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) noSuchBlock(record, blockId);
  const at = mainData(record, 8);
  const rightLink = record.view.getUint32(at, true);
  const isTail = rightLink === INVALID_BLOCK;
  initGinPage(page, view, isTail ? GIN_LIST | GIN_LIST_FULLROW : GIN_LIST);
  setRightLink(view, rightLink);
  setGinItemCount(view, isTail ? 1 : 0);
  appendListTuples(page, view, record, blockId, record.view.getInt32(at + 4, true));
}

function deleteListPages(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const at = mainData(record, DELETE_LIST_SIZE);
  if (blockId === 0) return initGinMetaPage(page, view, record.bytes, at);
  if (blockId > record.view.getInt32(at + 56, true)) noSuchBlock(record, blockId);
  initGinPage(page, view, GIN_DELETED);
}
