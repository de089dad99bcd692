/**
 * Page splits. The right half comes whole in the record; the left half is rebuilt from what the page had, so that its
 * tuples keep their physical order.
 *
 * | offset in main data | type | field |
 * | --- | --- | --- |
 * | 0 | u32 | level |
 * | 4 | u16 | first item that went right |
 * | 6 | u16 | item number of the new tuple |
 * | 8 | u16 | position in a posting list that the new tuple splits, 0 for none |
 *
 * Blocks: 0 the page itself (data: new tuple if it stays left or splits a posting list, then the new high key) · 1 the
 * new right half · 2 the page right of it · 3 the child whose split the new tuple completes.
 *
 * Source: PostgreSQL access/nbtree/nbtxlog.c btree_xlog_split.
 */
import { copyBytes } from "../../../kit/copy.ts";
import { insertItemSpace } from "../../page/items.ts";
import { itemOffset, lineCount, lineLength, lineWord, specialOffset } from "../../page/page-layout.ts";
import { oldPage, oldView, startRebuild } from "../../page/rebuild.ts";
import type { WalRecord } from "../../wal/record.ts";
import { blockData, blockDataLength, blockRef, corruptRecord, hasBlock, mainData, unsupportedRedo } from "../handler.ts";
import {
  BTP_INCOMPLETE_SPLIT, BTP_LEAF, OPAQUE_CYCLE_ID, OPAQUE_FLAGS, OPAQUE_LEVEL, OPAQUE_NEXT, OPAQUE_PREV, OPAQUE_SIZE,
  clearOpaqueFlag, firstDataKey, initBtreePage, recordTupleSize, restoreTuples,
} from "./layout.ts";
import { displacedTid, swapPosting } from "./posting.ts";

const MAIN_SIZE = 10;

function redoRightHalf(page: Uint8Array, view: DataView, record: WalRecord, level: number): void {
  const special = initBtreePage(page, view);
  view.setUint32(special + OPAQUE_PREV, blockRef(record, 0).blockNumber, true);
  view.setUint32(special + OPAQUE_NEXT, hasBlock(record, 2) ? record.blocks[2].blockNumber : 0, true);
  view.setUint32(special + OPAQUE_LEVEL, level, true);
  view.setUint16(special + OPAQUE_FLAGS, level === 0 ? BTP_LEAF : 0, true);
  restoreTuples(page, view, record, 1);
}

function append(page: Uint8Array, view: DataView, source: Uint8Array, from: number, size: number): void {
  copyBytes(source, from, page, insertItemSpace(page, view, lineCount(view) + 1, size), size);
}

/** The new tuple, with the item pointer a posting list split displaced when there was one. */
function appendNewTuple(page: Uint8Array, view: DataView, record: WalRecord, newTuple: number, size: number, displaced: boolean): void {
  const at = insertItemSpace(page, view, lineCount(view) + 1, size);
  copyBytes(record.bytes, newTuple, page, at, size);
  if (displaced) copyBytes(displacedTid, 0, page, at, displacedTid.length);
}

function redoLeftHalf(page: Uint8Array, view: DataView, record: WalRecord, newStaysLeft: boolean): void {
  const main = record.mainDataOffset;
  const firstRight = record.view.getUint16(main + 4, true);
  const newItem = record.view.getUint16(main + 6, true);
  const postingIndex = record.view.getUint16(main + 8, true);
  const ref = blockRef(record, 0);
  let at = blockData(ref, 0);
  const end = at + blockDataLength(ref);
  const newTuple = at;
  let newSize = 0;
  if (newStaysLeft || postingIndex !== 0) {
    newSize = recordTupleSize(record, at, end);
    at += newSize;
  }
  const highKeySize = recordTupleSize(record, at, end);
  const firstData = firstDataKey(view);
  startRebuild(page, view);
  if (firstRight > lineCount(oldView) + 1) corruptRecord(`first item on the right is ${firstRight} of ${lineCount(oldView)}`);
  if (postingIndex !== 0) swapPosting(oldPage, oldView, newItem - 1, postingIndex, record, newTuple);
  append(page, view, record.bytes, at, highKeySize);
  for (let n = firstData; n < firstRight; n++) {
    if (newStaysLeft && n === newItem) appendNewTuple(page, view, record, newTuple, newSize, postingIndex !== 0);
    const size = lineLength(lineWord(oldView, n));
    append(page, view, oldPage, itemOffset(oldView, n, 0), size);
  }
  if (newStaysLeft && newItem === Math.max(firstRight, firstData)) appendNewTuple(page, view, record, newTuple, newSize, postingIndex !== 0);
  const special = specialOffset(view, OPAQUE_SIZE);
  const leaf = record.view.getUint32(main, true) === 0 ? BTP_LEAF : 0;
  view.setUint16(special + OPAQUE_FLAGS, BTP_INCOMPLETE_SPLIT | leaf, true);
  view.setUint32(special + OPAQUE_NEXT, blockRef(record, 1).blockNumber, true);
  view.setUint16(special + OPAQUE_CYCLE_ID, 0, true);
}

export function redoSplit(page: Uint8Array, view: DataView, record: WalRecord, blockId: number, newStaysLeft: boolean): void {
  const level = record.view.getUint32(mainData(record, MAIN_SIZE), true);
  if (blockId === 0) redoLeftHalf(page, view, record, newStaysLeft);
  else if (blockId === 1) redoRightHalf(page, view, record, level);
  else if (blockId === 2) view.setUint32(specialOffset(view, OPAQUE_SIZE) + OPAQUE_PREV, blockRef(record, 1).blockNumber, true);
  else if (blockId === 3) clearOpaqueFlag(view, BTP_INCOMPLETE_SPLIT);
  else unsupportedRedo(record, blockId);
}
