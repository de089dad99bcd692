/**
 * The one entry to WAL redo: a page, a record, one of its blocks → the page changed in place.
 *
 * Which managers there are stands in the table below; each has a file or folder of its own.
 *
 * Source: PostgreSQL access/transam/xlogutils.c XLogReadBufferForRedoExtended.
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { InvariantError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { PAGE_SIZE, pageIsNew, setPageLsn } from "../page/page-layout.ts";
import { restoreImage } from "../page/restore-image.ts";
import { RMGR } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { btreeManager } from "./btree/btree.ts";
import { brinManager } from "./brin.ts";
import { heap2Manager } from "./heap/heap2.ts";
import { heapManager, peerHeapManager } from "./heap/heap.ts";
import { genericManager } from "./generic.ts";
import { ginManager } from "./gin/gin.ts";
import { gistManager } from "./gist.ts";
import { type RedoManager, RMGR_INFO_MASK, blockRef, corruptRecord, recordPlace, unsupportedRedo } from "./handler.ts";
import { hashManager } from "./hash/hash.ts";
import { sequenceManager } from "./sequence.ts";
import { spgistManager } from "./spgist/spgist.ts";
import { xlogManager } from "./xlog.ts";

/** Highest resource manager id + 1. */
const MAX_MANAGERS = 256;
const managers: (RedoManager | undefined)[] = new Array<RedoManager | undefined>(MAX_MANAGERS).fill(undefined);
managers[RMGR.XLOG] = xlogManager;
managers[RMGR.HEAP2] = heap2Manager;
managers[RMGR.HEAP] = heapManager;
managers[RMGR.BTREE] = btreeManager;
managers[RMGR.HASH] = hashManager;
managers[RMGR.GIN] = ginManager;
managers[RMGR.GIST] = gistManager;
managers[RMGR.SPGIST] = spgistManager;
managers[RMGR.BRIN] = brinManager;
managers[RMGR.SEQ] = sequenceManager;
managers[RMGR.GENERIC] = genericManager;
managers[RMGR.NEON] = peerHeapManager;

/** Whether `redoRecord` can apply records of this manager with these info bits (xl_info, or its upper four bits) to a block. */
export function redoSupported(rmid: number, info: number): boolean {
  const manager = managers[rmid];
  return manager !== undefined && manager.supports(info & RMGR_INFO_MASK);
}

/** The name of a manager with redo, for messages and tables. */
export function redoManagerName(rmid: number): string {
  return managers[rmid]?.name ?? `rmgr ${rmid}`;
}

/** A view of the page most recently changed: many records go to one page in a row, and a view for each would be garbage. */
let viewedPage: Uint8Array = new Uint8Array(PAGE_SIZE);
let viewOfPage: DataView = dataViewOf(viewedPage);

function viewOf(page: Uint8Array): DataView {
  if (page !== viewedPage) {
    if (page.length !== PAGE_SIZE) throw new InvariantError(`a page of ${page.length} bytes`);
    viewOfPage = dataViewOf(page);
    viewedPage = page;
  }
  return viewOfPage;
}

function apply(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const ref = blockRef(record, blockId);
  if (ref.hasImage && ref.applyImage) {
    restoreImage(record, ref, page);
    managers[record.rmid]?.afterImage?.(page, view, record, blockId);
    return;
  }
  const manager = managers[record.rmid];
  if (manager === undefined) unsupportedRedo(record, blockId);
  if (ref.willInit) page.fill(0);
  manager.redo(page, view, record, blockId);
}

/** Says where it happened; a read or write past a buffer's end, which the runtime refused, is damaged input as well. */
function located(error: unknown, record: WalRecord, blockId: number): unknown {
  const isRange = error instanceof RangeError;
  if (!isRange && !(error instanceof StrataError && error.code !== "unsupported-redo")) return error;
  const code = error instanceof StrataError ? error.code : "corrupt-record";
  const lsn = lsnToString(record.lsn);
  return new StrataError("corrupt", code, `redo of ${redoManagerName(record.rmid)} info 0x${record.info.toString(16)} ${recordPlace(record)}, block ${blockId}: ${error.message}`, {
    // Its words are in ours already.
    cause: error instanceof StrataError ? error.cause : error,
    details: { rmid: record.rmid, info: record.info, lsn, blockId },
  });
}

/**
 * Applies what `record` says of its block `blockId` to `page` (8192 bytes, changed in place) and stamps it with
 * `endLsn`. An image that is to be applied replaces the page; a block the record initializes starts from zeroes.
 * After an error the page is undefined.
 *
 * @throws StrataError corrupt `corrupt-record`, `corrupt-page` or the image codecs' codes; fix-input `unsupported-redo`
 */
export function redoRecord(page: Uint8Array, record: WalRecord, blockId: number, endLsn: Lsn): void {
  const view = viewOf(page);
  record.endLsn = endLsn;
  if (record.mainDataOffset + record.mainDataLength > record.bytes.length) corruptRecord("main data ends outside the record");
  try {
    apply(page, view, record, blockId);
  } catch (error) {
    throw located(error, record, blockId);
  }
  if (!pageIsNew(view)) setPageLsn(view, endLsn);
}
