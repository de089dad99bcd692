/**
 * Masking rules of the hash, GIN, GiST, SP-GiST and BRIN managers.
 *
 * | manager | beyond LSN, checksum, header hints and unused space |
 * | --- | --- |
 * | hash | line pointer states of bucket and overflow pages, unused pages whole, "has dead tuples" |
 * | gin | deleted pages whole; unused space only where pd_lower was set |
 * | gist | NSN, "right neighbour has no downlink", "has garbage", line pointer states of leaves |
 * | spgist | – |
 * | brin | unused space only of regular pages and metapages; "is being evacuated" |
 *
 * Source: PostgreSQL hash_mask, gin_mask, gist_mask, spg_mask, brin_mask in the managers' *_xlog.c.
 */
import { PAGE_HEADER_SIZE, pageLower, specialOffset } from "../../page/page-layout.ts";
import { LH_BUCKET_PAGE, LH_OVERFLOW_PAGE, LH_PAGE_HAS_DEAD_TUPLES, LH_PAGE_TYPE, LH_UNUSED_PAGE } from "../hash/page.ts";
import { GIN_DELETED, ginFlags } from "../gin/page.ts";
import { maskContent, maskHeaderHints, maskLineStates, maskLsnAndChecksum, maskUnusedSpace } from "./primitives.ts";

const HASH_FLAGS = 12;
const GIST_FLAGS = 12;
const GIST_LEAF = 1;
const GIST_FOLLOW_RIGHT = 8;
const GIST_HAS_GARBAGE = 0x10;
const BRIN_EVACUATE = 1;
const BRIN_META = 0xf091;
const BRIN_REGULAR = 0xf093;

export function maskHash(page: Uint8Array, view: DataView): void {
  maskLsnAndChecksum(view);
  maskHeaderHints(view);
  maskUnusedSpace(page, view);
  const at = specialOffset(view, 16) + HASH_FLAGS;
  const flags = view.getUint16(at, true);
  const type = flags & LH_PAGE_TYPE;
  if (type === LH_UNUSED_PAGE) maskContent(page, view);
  else if (type === LH_BUCKET_PAGE || type === LH_OVERFLOW_PAGE) maskLineStates(view);
  // As PostgreSQL does, after the content: of an unused page nothing is left to clear the bit from.
  view.setUint16(at, view.getUint16(at, true) & ~LH_PAGE_HAS_DEAD_TUPLES, true);
}

export function maskGin(page: Uint8Array, view: DataView): void {
  maskLsnAndChecksum(view);
  maskHeaderHints(view);
  if ((ginFlags(view) & GIN_DELETED) !== 0) maskContent(page, view);
  else if (pageLower(view) > PAGE_HEADER_SIZE) maskUnusedSpace(page, view);
}

export function maskGist(page: Uint8Array, view: DataView): void {
  maskLsnAndChecksum(view);
  maskHeaderHints(view);
  maskUnusedSpace(page, view);
  const special = specialOffset(view, 16);
  view.setUint32(special, 0, true);
  view.setUint32(special + 4, 0, true);
  const flags = view.getUint16(special + GIST_FLAGS, true);
  if ((flags & GIST_LEAF) !== 0) maskLineStates(view);
  view.setUint16(special + GIST_FLAGS, (flags | GIST_FOLLOW_RIGHT) & ~GIST_HAS_GARBAGE, true);
}

export function maskSpgist(page: Uint8Array, view: DataView): void {
  maskLsnAndChecksum(view);
  maskHeaderHints(view);
  if (pageLower(view) >= PAGE_HEADER_SIZE) maskUnusedSpace(page, view);
}

export function maskBrin(page: Uint8Array, view: DataView): void {
  maskLsnAndChecksum(view);
  maskHeaderHints(view);
  const special = specialOffset(view, 8);
  const type = view.getUint16(special + 6, true);
  if (type === BRIN_REGULAR || (type === BRIN_META && pageLower(view) > PAGE_HEADER_SIZE)) maskUnusedSpace(page, view);
  view.setUint16(special + 4, view.getUint16(special + 4, true) & ~BRIN_EVACUATE, true);
}
