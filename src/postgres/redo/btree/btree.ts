/**
 * Resource manager 11, B-tree.
 *
 * | info | record | blocks |
 * | --- | --- | --- |
 * | 0x00, 0x10, 0x20 | insert on a leaf, on an upper page, with new meta data | 0 page, 1 child whose split is now complete, 2 meta |
 * | 0x30, 0x40 | split, the new tuple left / right | see split.ts |
 * | 0x50 | insert that splits a posting list | 0 page |
 * | 0x60 | deduplication | 0 page |
 * | 0x70, 0xc0 | delete, vacuum | 0 page |
 * | 0x80, 0x90, 0xb0 | unlink page, with new meta data; mark half-dead | see page-deletion.ts |
 * | 0xa0 | new root | 0 root, 1 left child, 2 meta |
 * | 0xd0 | page is about to be reused | none |
 * | 0xe0 | meta data of a cleanup | 0 meta |
 *
 * Source: PostgreSQL access/nbtree/nbtxlog.c.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { insertItemSpace } from "../../page/items.ts";
import type { WalRecord } from "../../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, blockData, blockDataLength, blockRef, mainData, unsupportedRedo } from "../handler.ts";
import {
  BTP_INCOMPLETE_SPLIT, BTP_LEAF, BTP_ROOT, OPAQUE_FLAGS, OPAQUE_LEVEL, clearOpaqueFlag, initBtreePage, restoreMeta, restoreTuples,
  TUPLE_HEADER_SIZE,
} from "./layout.ts";
import { redoMarkHalfDead, redoUnlinkPage } from "./page-deletion.ts";
import { displacedTid, redoDedup, redoRemoveItems, swapPosting } from "./posting.ts";
import { redoSplit } from "./split.ts";

const INSERT_LEAF = 0x00;
const INSERT_UPPER = 0x10;
const INSERT_META = 0x20;
const SPLIT_LEFT = 0x30;
const SPLIT_RIGHT = 0x40;
const INSERT_POSTING = 0x50;
const DEDUP = 0x60;
const DELETE = 0x70;
const UNLINK_PAGE = 0x80;
const UNLINK_PAGE_META = 0x90;
const NEW_ROOT = 0xa0;
const MARK_HALF_DEAD = 0xb0;
const VACUUM = 0xc0;
const META_CLEANUP = 0xe0;

/** Main data: u16 item number. Block 0 data: the tuple. */
function redoInsert(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId === 1) return clearOpaqueFlag(view, BTP_INCOMPLETE_SPLIT);
  if (blockId === 2) return restoreMeta(page, view, record, blockId);
  if (blockId !== 0) unsupportedRedo(record, blockId);
  const offsetNumber = record.view.getUint16(mainData(record, 2), true);
  const ref = blockRef(record, 0);
  const from = blockData(ref, TUPLE_HEADER_SIZE);
  const size = blockDataLength(ref);
  copyBytes(record.bytes, from, page, insertItemSpace(page, view, offsetNumber, size), size);
}

/** Block 0 data: u16 position in the posting list of the item before, then the tuple as it was to be inserted. */
function redoInsertPosting(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId !== 0) unsupportedRedo(record, blockId);
  const offsetNumber = record.view.getUint16(mainData(record, 2), true);
  const ref = blockRef(record, 0);
  const from = blockData(ref, 2 + TUPLE_HEADER_SIZE);
  const size = blockDataLength(ref) - 2;
  swapPosting(page, view, offsetNumber - 1, record.view.getUint16(from, true), record, from + 2);
  const at = insertItemSpace(page, view, offsetNumber, size);
  copyBytes(record.bytes, from + 2, page, at, size);
  copyBytes(displacedTid, 0, page, at, displacedTid.length);
}

/** Main data: u32 root block, u32 level. Block 0 data: the tuples of a root above the leaf level. */
function redoNewRoot(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if (blockId === 1) return clearOpaqueFlag(view, BTP_INCOMPLETE_SPLIT);
  if (blockId === 2) return restoreMeta(page, view, record, blockId);
  if (blockId !== 0) unsupportedRedo(record, blockId);
  const level = record.view.getUint32(mainData(record, 8) + 4, true);
  const special = initBtreePage(page, view);
  view.setUint32(special + OPAQUE_LEVEL, level, true);
  view.setUint16(special + OPAQUE_FLAGS, BTP_ROOT | (level === 0 ? BTP_LEAF : 0), true);
  if (level > 0) restoreTuples(page, view, record, 0);
}

function redo(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  switch (record.info & RMGR_INFO_MASK) {
    case INSERT_LEAF:
    case INSERT_UPPER:
    case INSERT_META:
      return redoInsert(page, view, record, blockId);
    case SPLIT_LEFT:
      return redoSplit(page, view, record, blockId, true);
    case SPLIT_RIGHT:
      return redoSplit(page, view, record, blockId, false);
    case INSERT_POSTING:
      return redoInsertPosting(page, view, record, blockId);
    case DEDUP:
      return redoDedup(page, view, record);
    case DELETE:
      return redoRemoveItems(page, view, record, mainData(record, 8) + 4);
    case VACUUM:
      return redoRemoveItems(page, view, record, mainData(record, 4));
    case UNLINK_PAGE:
    case UNLINK_PAGE_META:
      return redoUnlinkPage(page, view, record, blockId);
    case NEW_ROOT:
      return redoNewRoot(page, view, record, blockId);
    case MARK_HALF_DEAD:
      return redoMarkHalfDead(page, view, record, blockId);
    case META_CLEANUP:
      return restoreMeta(page, view, record, blockId);
    default:
      return unsupportedRedo(record, blockId);
  }
}

export const btreeManager: RedoManager = { name: "btree", redo, supports: (info) => info <= META_CLEANUP };
