/**
 * Resource manager 15, sequence: the page is always rebuilt from the record.
 *
 * | offset in main data | type | field |
 * | --- | --- | --- |
 * | 0 | u32 × 3 | tablespace, database, relation |
 * | 12 | bytes | the sequence's one tuple |
 *
 * Source: PostgreSQL commands/sequence.c seq_redo.
 */
import { copyBytes } from "../../kit/copy.ts";
import { insertItemSpace } from "../page/items.ts";
import { initPage, pageSpecial } from "../page/page-layout.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RedoManager, RMGR_INFO_MASK, mainData, unsupportedRedo } from "./handler.ts";

const SEQ_LOG = 0x00;
const SEQ_MAGIC = 0x1717;
const SPECIAL_SIZE = 4;
const HEADER_SIZE = 12;

function redo(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  if ((record.info & RMGR_INFO_MASK) !== SEQ_LOG) unsupportedRedo(record, blockId);
  const tuple = mainData(record, HEADER_SIZE) + HEADER_SIZE;
  const size = record.mainDataLength - HEADER_SIZE;
  initPage(page, view, SPECIAL_SIZE);
  view.setUint32(pageSpecial(view), SEQ_MAGIC, true);
  copyBytes(record.bytes, tuple, page, insertItemSpace(page, view, 1, size), size);
}

export const sequenceManager: RedoManager = { name: "sequence", redo, supports: (info) => info === SEQ_LOG };
