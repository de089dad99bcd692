/**
 * Closing the gaps between a page's tuples. The tuples end up packed against the special area in reverse line pointer
 * order; PostgreSQL's result depends on that order, so ours must too: pages are compared byte by byte.
 *
 * Source: PostgreSQL storage/page/bufpage.c compactify_tuples, PageRepairFragmentation, PageTruncateLinePointerArray.
 */
import { copyBytes } from "../../kit/copy.ts";
import {
  LP_UNUSED, PAGE_SIZE, PD_HAS_FREE_LINES, checkPageHeader, clearPageFlag, corruptPage, lineAt, lineCount, lineState,
  maxAlign, pageLower, pageSpecial, pageUpper, setPageFlag, setPageLower, setPageUpper,
} from "./page-layout.ts";

/** More than the line pointers a page has room for. */
const MAX_LINES = 2048;
const scratch = new Uint8Array(PAGE_SIZE);

/** Items to keep, filled by the callers of `compactItems`: slot k of each array belongs to one item. */
export const keptLine = new Uint16Array(MAX_LINES);
export const keptOffset = new Uint16Array(MAX_LINES);
export const keptAligned = new Uint16Array(MAX_LINES);

/** Points line `offsetNumber` to `offset`, keeping its state and length. */
function moveLine(view: DataView, offsetNumber: number, offset: number): void {
  const at = lineAt(offsetNumber);
  view.setUint32(at, ((view.getUint32(at, true) & 0xffff8000) | offset) >>> 0, true);
}

/**
 * Packs the `count` items in `kept*` against the special area, in that order, and sets pd_upper.
 * The offsets were checked by the caller: each item lies between pd_upper and pd_special, the sum fits.
 */
export function compactItems(page: Uint8Array, view: DataView, count: number): void {
  let upper = pageSpecial(view);
  let i = 0;
  while (i < count && keptOffset[i] + keptAligned[i] === upper) {
    upper -= keptAligned[i];
    i++;
  }
  if (i < count) {
    const from = pageUpper(view);
    copyBytes(page, from, scratch, from, PAGE_SIZE - from);
  }
  while (i < count) {
    const runEnd = keptOffset[i] + keptAligned[i];
    let runStart = runEnd;
    while (i < count && keptOffset[i] + keptAligned[i] === runStart) {
      upper -= keptAligned[i];
      runStart = keptOffset[i];
      moveLine(view, keptLine[i], upper);
      i++;
    }
    copyBytes(scratch, runStart, page, upper, runEnd - runStart);
  }
  setPageUpper(view, upper);
}

/**
 * Frees the space of items pruning removed (PageRepairFragmentation).
 * @param truncateLines drop unused line pointers at the end, as PostgreSQL does from 15 on
 * @throws StrataError corrupt `corrupt-page`
 */
export function repairFragmentation(page: Uint8Array, view: DataView, truncateLines: boolean): void {
  checkPageHeader(view);
  const lower = pageLower(view);
  const upper = pageUpper(view);
  const special = pageSpecial(view);
  const lines = lineCount(view);
  let kept = 0;
  let unused = 0;
  let lastUsed = 0;
  let total = 0;
  for (let n = 1; n <= lines; n++) {
    const word = view.getUint32(lineAt(n), true);
    if (lineState(word) === LP_UNUSED) {
      view.setUint32(lineAt(n), 0, true);
      unused++;
      continue;
    }
    lastUsed = n;
    const length = word >>> 17;
    if (length === 0) continue;
    const offset = word & 0x7fff;
    const aligned = maxAlign(length);
    if (offset < upper || offset + aligned > special) corruptPage(`line pointer ${n}: offset ${offset}, length ${length}`);
    keptLine[kept] = n;
    keptOffset[kept] = offset;
    keptAligned[kept] = aligned;
    total += aligned;
    kept++;
  }
  if (total > special - lower) corruptPage(`item lengths: ${total}, available ${special - lower}`);
  compactItems(page, view, kept);
  if (truncateLines && lastUsed !== lines) {
    unused -= lines - lastUsed;
    setPageLower(view, lower - (lines - lastUsed) * 4);
  }
  if (unused > 0) setPageFlag(view, PD_HAS_FREE_LINES);
  else clearPageFlag(view, PD_HAS_FREE_LINES);
}

/** Drops unused line pointers from the end, but never the first (PageTruncateLinePointerArray). @throws StrataError corrupt `corrupt-page` */
export function truncateLinePointers(view: DataView): void {
  checkPageHeader(view);
  let last = lineCount(view);
  while (last > 1 && lineState(view.getUint32(lineAt(last), true)) === LP_UNUSED) last--;
  let hasFree = false;
  for (let n = 1; n <= last && !hasFree; n++) hasFree = lineState(view.getUint32(lineAt(n), true)) === LP_UNUSED;
  setPageLower(view, lineAt(last + 1));
  if (hasFree) setPageFlag(view, PD_HAS_FREE_LINES);
  else clearPageFlag(view, PD_HAS_FREE_LINES);
}
