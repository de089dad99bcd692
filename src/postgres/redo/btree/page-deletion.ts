/**
 * Deleting an empty page from the tree, in two records: the leaf is marked half-dead and loses its downlink, then each
 * page of the branch is unlinked from its siblings.
 *
 * Mark half-dead, main data: 0 u16 downlink's item in the parent · 4 u32 leaf · 8 u32 left sibling · 12 u32 right
 * sibling · 16 u32 top parent. Blocks: 0 the leaf · 1 the parent.
 * Unlink, main data: 0 u32 left sibling · 4 u32 right sibling · 8 u32 level · 16 u64 safe xid · 24 u32 left sibling of
 * the leaf · 28 u32 right sibling of the leaf · 32 u32 top parent of the leaf. Blocks: 0 the target · 1 its left
 * sibling · 2 its right sibling · 3 the leaf when it is not the target · 4 the meta page.
 *
 * Source: PostgreSQL access/nbtree/nbtxlog.c btree_xlog_mark_page_halfdead, btree_xlog_unlink_page.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { deleteItem, insertItemSpace } from "../../page/items.ts";
import { itemOffset, setPageLower, specialOffset } from "../../page/page-layout.ts";
import type { WalRecord } from "../../wal/record.ts";
import { mainData, unsupportedRedo } from "../handler.ts";
import {
  BTP_DELETED, BTP_HALF_DEAD, BTP_HAS_FULLXID, BTP_LEAF, OPAQUE_FLAGS, OPAQUE_LEVEL, OPAQUE_NEXT, OPAQUE_PREV, OPAQUE_SIZE,
  TUPLE_ALT_TID, TUPLE_HEADER_SIZE, initBtreePage, restoreMeta,
} from "./layout.ts";

const HALF_DEAD_SIZE = 20;
const UNLINK_SIZE = 36;
const SAFE_XID_AT = 24;

/** An empty half-dead leaf; its dummy high key points to `topParent`. Siblings and parent as they stand at `from`, in that order. */
function buildHalfDeadLeaf(page: Uint8Array, view: DataView, record: WalRecord, from: number): void {
  const special = initBtreePage(page, view);
  const topParent = record.view.getUint32(from + 8, true);
  view.setUint32(special + OPAQUE_PREV, record.view.getUint32(from, true), true);
  view.setUint32(special + OPAQUE_NEXT, record.view.getUint32(from + 4, true), true);
  view.setUint16(special + OPAQUE_FLAGS, BTP_HALF_DEAD | BTP_LEAF, true);
  const at = insertItemSpace(page, view, 1, TUPLE_HEADER_SIZE);
  view.setUint16(at, topParent >>> 16, true);
  view.setUint16(at + 2, topParent & 0xffff, true);
  view.setUint16(at + 4, 0, true);
  view.setUint16(at + 6, TUPLE_HEADER_SIZE | TUPLE_ALT_TID, true);
}

/** The downlink at `item` takes over its right neighbour's target, and the neighbour goes. */
function removeDownlink(page: Uint8Array, view: DataView, item: number): void {
  const right = itemOffset(view, item + 1, TUPLE_HEADER_SIZE);
  const left = itemOffset(view, item, TUPLE_HEADER_SIZE);
  view.setUint32(left, view.getUint32(right, true), true);
  deleteItem(page, view, item + 1);
}

export function redoMarkHalfDead(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const main = mainData(record, HALF_DEAD_SIZE);
  if (blockId === 0) buildHalfDeadLeaf(page, view, record, main + 8);
  else if (blockId === 1) removeDownlink(page, view, record.view.getUint16(main, true));
  else unsupportedRedo(record, blockId);
}

function buildDeletedPage(page: Uint8Array, view: DataView, record: WalRecord, main: number): void {
  const level = record.view.getUint32(main + 8, true);
  const special = initBtreePage(page, view);
  view.setUint32(special + OPAQUE_PREV, record.view.getUint32(main, true), true);
  view.setUint32(special + OPAQUE_NEXT, record.view.getUint32(main + 4, true), true);
  view.setUint32(special + OPAQUE_LEVEL, level, true);
  view.setUint16(special + OPAQUE_FLAGS, BTP_DELETED | BTP_HAS_FULLXID | (level === 0 ? BTP_LEAF : 0), true);
  copyBytes(record.bytes, main + 16, page, SAFE_XID_AT, 8);
  setPageLower(view, SAFE_XID_AT + 8);
}

export function redoUnlinkPage(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const main = mainData(record, UNLINK_SIZE);
  if (blockId === 0) buildDeletedPage(page, view, record, main);
  else if (blockId === 1) view.setUint32(specialOffset(view, OPAQUE_SIZE) + OPAQUE_NEXT, record.view.getUint32(main + 4, true), true);
  else if (blockId === 2) view.setUint32(specialOffset(view, OPAQUE_SIZE) + OPAQUE_PREV, record.view.getUint32(main, true), true);
  else if (blockId === 3) buildHalfDeadLeaf(page, view, record, main + 24);
  else if (blockId === 4) restoreMeta(page, view, record, blockId);
  else unsupportedRedo(record, blockId);
}
