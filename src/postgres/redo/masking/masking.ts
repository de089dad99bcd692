/**
 * What PostgreSQL itself disregards when it compares a page after redo with the image the primary took
 * (`wal_consistency_checking`): hints and other things that change without WAL, and space nobody reads. Zeroes take
 * the place of whatever is disregarded.
 *
 * One rule is stricter than PostgreSQL's: it calls the bits of the visibility map unused space, we compare them.
 *
 * Source: PostgreSQL access/common/bufmask.c and the `rm_mask` function of each manager.
 */
import { dataViewOf } from "../../../kit/bytes.ts";
import {
  LP_NORMAL, LP_UNUSED, PAGE_HEADER_SIZE, PAGE_SIZE, PD_ALL_VISIBLE, PD_HAS_FREE_LINES, PD_LOWER, PD_PAGE_FULL, PD_PRUNE_XID, PD_UPPER,
  clearPageFlag, lineAt, lineCount, lineState, maxAlign, pageIsNew, pageLower, pageSpecial, pageUpper,
} from "../../page/page-layout.ts";
import { FORK_VISIBILITY_MAP, RMGR } from "../../wal/constants.ts";

interface PageToMask {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly fork: number;
  readonly blockNumber: number;
}

interface MaskingRule {
  /** One line for people, printed with the results of a check. */
  readonly disregards: string;
  readonly mask: (page: PageToMask) => void;
}

const PD_CHECKSUM = 8;
const HINTS = "pd_prune_xid, hint flags, hole";

function maskLsnAndChecksum(view: DataView): void {
  view.setUint32(0, 0, true);
  view.setUint32(4, 0, true);
  view.setUint16(PD_CHECKSUM, 0, true);
}

function maskHints(view: DataView): void {
  view.setUint32(PD_PRUNE_XID, 0, true);
  clearPageFlag(view, PD_PAGE_FULL | PD_HAS_FREE_LINES | PD_ALL_VISIBLE);
}

function maskHole(page: PageToMask): void {
  const lower = pageLower(page.view);
  const upper = pageUpper(page.view);
  if (lower >= PAGE_HEADER_SIZE && lower <= upper && upper <= pageSpecial(page.view)) page.bytes.fill(0, lower, upper);
}

function maskContent(page: PageToMask): void {
  page.bytes.fill(0, PAGE_HEADER_SIZE);
  page.view.setUint16(PD_LOWER, 0, true);
  page.view.setUint16(PD_UPPER, 0, true);
}

/** Line pointers may be marked dead without WAL. */
function maskLineStates(view: DataView): void {
  const lines = Math.min(lineCount(view), (PAGE_SIZE - PAGE_HEADER_SIZE) >> 2);
  for (let n = 1; n <= lines; n++) view.setUint32(lineAt(n), view.getUint32(lineAt(n), true) & ~(3 << 15), true);
}

/** Where the special area is, or null when it cannot hold `size` bytes. */
function special(view: DataView, size: number): number | null {
  const at = pageSpecial(view);
  return at >= PAGE_HEADER_SIZE && at + size <= PAGE_SIZE ? at : null;
}

const HEAP_XACT_MASK = 0xfff0;
const XMIN_FROZEN = 0x0300;
const XMAX_HINTS = 0x0c00;
const SPECULATIVE_OFFSET = 0xfffe;

function maskTuple(page: PageToMask, at: number, offsetNumber: number): void {
  const { view } = page;
  const mask = view.getUint16(at + 20, true);
  view.setUint16(at + 20, (mask & XMIN_FROZEN) === XMIN_FROZEN ? mask & ~XMAX_HINTS : mask & ~HEAP_XACT_MASK, true);
  view.setUint32(at + 8, 0, true);
  if (view.getUint16(at + 16, true) === SPECULATIVE_OFFSET) {
    view.setUint16(at + 12, page.blockNumber >>> 16, true);
    view.setUint16(at + 14, page.blockNumber & 0xffff, true);
    view.setUint16(at + 16, offsetNumber, true);
  }
}

function maskHeap(page: PageToMask): void {
  maskHints(page.view);
  if (page.fork === FORK_VISIBILITY_MAP) return;
  maskHole(page);
  const lines = Math.min(lineCount(page.view), (PAGE_SIZE - PAGE_HEADER_SIZE) >> 2);
  for (let n = 1; n <= lines; n++) {
    const word = page.view.getUint32(lineAt(n), true);
    const at = word & 0x7fff;
    const length = word >>> 17;
    if (lineState(word) === LP_UNUSED || length === 0 || at + maxAlign(length) > PAGE_SIZE) continue;
    if (lineState(word) === LP_NORMAL && length >= 23) maskTuple(page, at, n);
    page.bytes.fill(0, at + length, at + maxAlign(length));
  }
}

function maskBtree(page: PageToMask): void {
  maskHints(page.view);
  maskHole(page);
  const at = special(page.view, 16);
  if (at === null) return;
  const flags = page.view.getUint16(at + 12, true);
  if ((flags & 1) !== 0) maskLineStates(page.view);
  page.view.setUint16(at + 12, flags & ~(64 | 32), true);
  page.view.setUint16(at + 14, 0, true);
}

function maskHash(page: PageToMask): void {
  maskHints(page.view);
  maskHole(page);
  const at = special(page.view, 16);
  if (at === null) return;
  const flags = page.view.getUint16(at + 12, true);
  const type = flags & 15;
  page.view.setUint16(at + 12, flags & ~0x80, true);
  if (type === 0) maskContent(page);
  else if (type === 1 || type === 2) maskLineStates(page.view);
}

function maskGin(page: PageToMask): void {
  maskHints(page.view);
  const at = special(page.view, 8);
  if (at === null) return;
  if ((page.view.getUint16(at + 6, true) & 4) !== 0) maskContent(page);
  else if (pageLower(page.view) > PAGE_HEADER_SIZE) maskHole(page);
}

function maskGist(page: PageToMask): void {
  maskHints(page.view);
  maskHole(page);
  const at = special(page.view, 16);
  if (at === null) return;
  const flags = page.view.getUint16(at + 12, true);
  page.bytes.fill(0, at, at + 8);
  if ((flags & 1) !== 0) maskLineStates(page.view);
  page.view.setUint16(at + 12, (flags | 8) & ~16, true);
}

function maskBrin(page: PageToMask): void {
  maskHints(page.view);
  const type = page.view.getUint16(PAGE_SIZE - 2, true);
  if (type === 0xf093 || (type === 0xf091 && pageLower(page.view) > PAGE_HEADER_SIZE)) maskHole(page);
  page.view.setUint16(PAGE_SIZE - 4, page.view.getUint16(PAGE_SIZE - 4, true) & ~1, true);
}

function maskSpgist(page: PageToMask): void {
  maskHints(page.view);
  if (pageLower(page.view) >= PAGE_HEADER_SIZE) maskHole(page);
}

const HEAP_RULE: MaskingRule = {
  disregards: `${HINTS} (not of the visibility map), tuples' transaction hints, command ids, speculative ctids, padding`,
  mask: maskHeap,
};

const rules = new Map<number, MaskingRule>([
  [RMGR.HEAP, HEAP_RULE],
  [RMGR.HEAP2, HEAP_RULE],
  [RMGR.NEON, HEAP_RULE],
  [RMGR.BTREE, { disregards: `${HINTS}, leaf line pointer states, has-garbage and split-end flags, cycle id`, mask: maskBtree }],
  [RMGR.HASH, { disregards: `${HINTS}, bucket line pointer states, unused pages, has-dead-tuples flag`, mask: maskHash }],
  [RMGR.GIN, { disregards: `${HINTS}, content of deleted pages`, mask: maskGin }],
  [RMGR.GIST, { disregards: `${HINTS}, NSN, follow-right and has-garbage flags, leaf line pointer states`, mask: maskGist }],
  [RMGR.SEQ, { disregards: "hole", mask: maskHole }],
  [RMGR.SPGIST, { disregards: HINTS, mask: maskSpgist }],
  [RMGR.BRIN, { disregards: `${HINTS} of regular and meta pages, evacuate flag`, mask: maskBrin }],
  [RMGR.GENERIC, { disregards: "hole", mask: maskHole }],
]);

/** Zeroes in `bytes`, a page of 8192 bytes, what the manager's consistency check disregards; pd_lsn and pd_checksum always. */
export function maskPage(bytes: Uint8Array, rmid: number, fork: number, blockNumber: number): void {
  const view = dataViewOf(bytes);
  maskLsnAndChecksum(view);
  if (!pageIsNew(view)) rules.get(rmid)?.mask({ bytes, view, fork, blockNumber });
}

/** What `maskPage` disregards for a manager besides LSN and checksum, in words; null when nothing. */
export function maskingRule(rmid: number): string | null {
  return rules.get(rmid)?.disregards ?? null;
}
