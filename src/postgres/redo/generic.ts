/**
 * Resource manager 20, generic: byte-wise differences, written by extensions (bloom among them).
 *
 * Block data is a run of fragments: u16 offset, u16 length, `length` bytes to put at `offset` of the page.
 *
 * Source: PostgreSQL access/transam/generic_xlog.c generic_redo.
 */
import { copyBytes } from "../../kit/copy.ts";
import { PAGE_SIZE, corruptPage, pageLower, pageUpper } from "../page/page-layout.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RedoManager, blockData, blockDataLength, blockRef, corruptRecord } from "./handler.ts";

const FRAGMENT_HEADER_SIZE = 4;

function redo(page: Uint8Array, view: DataView, record: WalRecord, blockId: number): void {
  const ref = blockRef(record, blockId);
  let at = blockData(ref, 0);
  const end = at + blockDataLength(ref);
  while (at < end) {
    if (at + FRAGMENT_HEADER_SIZE > end) corruptRecord("a fragment header cut short");
    const offset = record.view.getUint16(at, true);
    const length = record.view.getUint16(at + 2, true);
    at += FRAGMENT_HEADER_SIZE;
    if (at + length > end || offset + length > PAGE_SIZE) corruptRecord(`fragment of ${length} bytes at page offset ${offset}`);
    copyBytes(record.bytes, at, page, offset, length);
    at += length;
  }
  const lower = pageLower(view);
  const upper = pageUpper(view);
  if (lower > upper || upper > PAGE_SIZE) corruptPage(`page pointers after a generic record: lower ${lower}, upper ${upper}`);
  page.fill(0, lower, upper);
}

export const genericManager: RedoManager = { name: "generic", redo, supports: (info) => info === 0 };
