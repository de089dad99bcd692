/**
 * What PostgreSQL itself disregards when it compares a page after redo with the image the primary took
 * (`wal_consistency_checking`): hints and other things that change without WAL, and space nobody reads.
 *
 * One rule is stricter than PostgreSQL's: it calls the bits of the visibility map unused space, we compare them.
 *
 * Source: PostgreSQL access/common/bufmask.c and the `rm_mask` function of each manager.
 */
import { dataViewOf } from "../../../kit/bytes.ts";
import { LP_NORMAL, LP_UNUSED, PAGE_SIZE, lineAt, lineCount, lineState, maxAlign, pageIsNew, specialOffset } from "../../page/page-layout.ts";
import { FORK_VISIBILITY_MAP, RMGR } from "../../wal/constants.ts";
import { BTP_HAS_GARBAGE, BTP_LEAF, BTP_SPLIT_END, OPAQUE_CYCLE_ID, OPAQUE_FLAGS, OPAQUE_SIZE } from "../btree/layout.ts";
import { TUPLE_HEADER_SIZE, T_CID, T_CTID, T_INFOMASK, setCtid } from "../heap/layout.ts";
import { maskBrin, maskGin, maskGist, maskHash, maskSpgist } from "./index-masks.ts";
import { MASK_BYTE, maskHeaderHints, maskLineStates, maskLsnAndChecksum, maskUnusedSpace } from "./primitives.ts";

/** Where a page belongs. */
export interface PagePlace {
  readonly fork: number;
  readonly blockNumber: number;
}

interface MaskingRule {
  /** One line for people, printed with the results of a check. */
  readonly disregards: string;
  readonly mask: (page: Uint8Array, view: DataView, place: PagePlace) => void;
}

const HEAP_XACT_MASK = 0xfff0;
const XMIN_FROZEN = 0x0300;
const XMAX_HINTS = 0x0c00;
const SPECULATIVE_OFFSET = 0xfffe;

function maskTuple(view: DataView, at: number, place: PagePlace, offsetNumber: number): void {
  const mask = view.getUint16(at + T_INFOMASK, true);
  view.setUint16(at + T_INFOMASK, mask & ~((mask & XMIN_FROZEN) === XMIN_FROZEN ? XMAX_HINTS : HEAP_XACT_MASK), true);
  view.setUint32(at + T_CID, 0, true);
  if (view.getUint16(at + T_CTID + 4, true) === SPECULATIVE_OFFSET) setCtid(view, at, place.blockNumber, offsetNumber);
}

function maskHeap(page: Uint8Array, view: DataView, place: PagePlace): void {
  maskHeaderHints(view);
  if (place.fork === FORK_VISIBILITY_MAP) return;
  maskUnusedSpace(page, view);
  const lines = lineCount(view);
  for (let n = 1; n <= lines; n++) {
    const word = view.getUint32(lineAt(n), true);
    const at = word & 0x7fff;
    const length = word >>> 17;
    if (lineState(word) === LP_UNUSED || length === 0 || at + maxAlign(length) > PAGE_SIZE) continue;
    if (lineState(word) === LP_NORMAL && length >= TUPLE_HEADER_SIZE) maskTuple(view, at, place, n);
    page.fill(MASK_BYTE, at + length, at + maxAlign(length));
  }
}

function maskBtree(page: Uint8Array, view: DataView): void {
  maskHeaderHints(view);
  maskUnusedSpace(page, view);
  const at = specialOffset(view, OPAQUE_SIZE);
  const flags = view.getUint16(at + OPAQUE_FLAGS, true);
  if ((flags & BTP_LEAF) !== 0) maskLineStates(view);
  view.setUint16(at + OPAQUE_FLAGS, flags & ~(BTP_HAS_GARBAGE | BTP_SPLIT_END), true);
  view.setUint16(at + OPAQUE_CYCLE_ID, 0, true);
}

const HINTS = "pd_prune_xid, hint flags, hole";
const HEAP_RULE: MaskingRule = {
  disregards: `${HINTS} (not of the visibility map), tuples' transaction hints, command ids, speculative ctids, padding`,
  mask: maskHeap,
};
const HOLE_RULE: MaskingRule = { disregards: "hole", mask: maskUnusedSpace };

const rules = new Map<number, MaskingRule>([
  [RMGR.HEAP2, HEAP_RULE],
  [RMGR.HEAP, HEAP_RULE],
  [RMGR.BTREE, { disregards: `${HINTS}, leaf line pointer states, has-garbage and split-end flags, cycle id`, mask: maskBtree }],
  [RMGR.HASH, { disregards: `${HINTS}, bucket line pointer states, unused pages, has-dead-tuples flag`, mask: maskHash }],
  [RMGR.GIN, { disregards: `${HINTS}, content of deleted pages`, mask: maskGin }],
  [RMGR.GIST, { disregards: `${HINTS}, NSN, follow-right and has-garbage flags, leaf line pointer states`, mask: maskGist }],
  [RMGR.SEQ, HOLE_RULE],
  [RMGR.SPGIST, { disregards: HINTS, mask: maskSpgist }],
  [RMGR.BRIN, { disregards: `${HINTS} of regular and meta pages, evacuate flag`, mask: maskBrin }],
  [RMGR.GENERIC, HOLE_RULE],
  [RMGR.NEON, HEAP_RULE],
]);

/**
 * Blanks in `page` (8192 bytes) what the manager's consistency check disregards; pd_lsn and pd_checksum always.
 * @throws StrataError corrupt `corrupt-page`
 */
export function maskPage(page: Uint8Array, rmid: number, place: PagePlace): void {
  const view = dataViewOf(page);
  maskLsnAndChecksum(view);
  if (!pageIsNew(view)) rules.get(rmid)?.mask(page, view, place);
}

/** What `maskPage` disregards for a manager besides LSN and checksum, in words; null when nothing. */
export function maskingRule(rmid: number): string | null {
  return rules.get(rmid)?.disregards ?? null;
}
