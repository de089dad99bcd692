/**
 * Resource manager 0, xlog: full-page images logged for their own sake (new index builds, hint bits under checksums).
 * The dispatcher restores the images; what arrives here is a block whose image is absent or not to be applied.
 *
 * Source: PostgreSQL access/transam/xlog.c xlog_redo.
 */
import { type RedoManager, RMGR_INFO_MASK, corruptRecord, unsupportedRedo } from "./handler.ts";
import type { WalRecord } from "../wal/record.ts";

const FPI_FOR_HINT = 0xa0;
const FPI = 0xb0;

/** A hint needs no redo: with full_page_writes off the record may come without its image. */
function redo(_page: Uint8Array, _view: DataView, record: WalRecord, blockId: number): void {
  const info = record.info & RMGR_INFO_MASK;
  if (info === FPI_FOR_HINT) return;
  if (info === FPI) corruptRecord("a full-page image record without its image");
  unsupportedRedo(record, blockId);
}

export const xlogManager: RedoManager = {
  name: "xlog",
  redo,
  supports: (info) => info === FPI || info === FPI_FOR_HINT,
};
