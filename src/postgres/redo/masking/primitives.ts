/**
 * What may differ between a page and its redo without either being wrong, blanked on both before they are compared.
 * The rules of each manager are made of these.
 *
 * Source: PostgreSQL access/common/bufmask.c.
 */
import {
  PAGE_HEADER_SIZE, PAGE_SIZE, PD_ALL_VISIBLE, PD_HAS_FREE_LINES, PD_LOWER, PD_PAGE_FULL, PD_PRUNE_XID, PD_UPPER, clearPageFlag, corruptPage,
  lineAt, lineCount, packLine, pageLower, pageSpecial, pageUpper,
} from "../../page/page-layout.ts";

/** What masked bytes are set to. */
export const MASK_BYTE = 0;
const PD_CHECKSUM = 8;

/** One manager's rules: blanks on `page` (`view` covers it) what its records do not determine. @throws StrataError corrupt `corrupt-page` */
export type PageMask = (page: Uint8Array, view: DataView) => void;

/** pd_lsn and pd_checksum (mask_page_lsn_and_checksum). */
export function maskLsnAndChecksum(view: DataView): void {
  view.setUint32(0, 0, true);
  view.setUint32(4, 0, true);
  view.setUint16(PD_CHECKSUM, 0, true);
}

/** pd_prune_xid and the flags of the page header (mask_page_hint_bits). */
export function maskHeaderHints(view: DataView): void {
  view.setUint32(PD_PRUNE_XID, 0, true);
  clearPageFlag(view, PD_PAGE_FULL | PD_HAS_FREE_LINES | PD_ALL_VISIBLE);
}

/** The bytes between pd_lower and pd_upper (mask_unused_space). @throws StrataError corrupt `corrupt-page` */
export function maskUnusedSpace(page: Uint8Array, view: DataView): void {
  const lower = pageLower(view);
  const upper = pageUpper(view);
  const special = pageSpecial(view);
  if (lower > upper || special < upper || lower < PAGE_HEADER_SIZE || special > PAGE_SIZE) {
    corruptPage(`page pointers: lower ${lower}, upper ${upper}, special ${special}`);
  }
  page.fill(MASK_BYTE, lower, upper);
}

/** The state of every line pointer in use (mask_lp_flags). */
export function maskLineStates(view: DataView): void {
  const lines = lineCount(view);
  for (let n = 1; n <= lines; n++) {
    const word = view.getUint32(lineAt(n), true);
    view.setUint32(lineAt(n), packLine(word & 0x7fff, 0, word >>> 17), true);
  }
}

/** Everything but the header's flags, pd_special, version and prune xid (mask_page_content). */
export function maskContent(page: Uint8Array, view: DataView): void {
  page.fill(MASK_BYTE, PAGE_HEADER_SIZE);
  view.setUint16(PD_LOWER, 0, true);
  view.setUint16(PD_UPPER, 0, true);
}
