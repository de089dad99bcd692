/**
 * Pages of a hash index.
 *
 * Special area, 16 bytes, of every page:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u32 | previous block of the bucket; on a primary bucket page the highest bucket when it was set up |
 * | 4 | u32 | next block of the bucket |
 * | 8 | u32 | bucket |
 * | 12 | u16 | flags: 1 overflow, 2 bucket, 4 bitmap, 8 meta, 0x10 being populated, 0x20 being split, 0x40 needs cleanup after a split, 0x80 has dead tuples |
 * | 14 | u16 | 0xff80 |
 *
 * Metapage, from byte 24:
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0, 4 | u32 | magic 0x6440640, version 4 |
 * | 8 | f64 | tuples |
 * | 16, 18 | u16 | fill factor (tuples a bucket), page size usable for a bitmap |
 * | 20, 22 | u16 | bytes in a bitmap page, log2 of its bits |
 * | 24, 28, 32 | u32 | highest bucket, mask for the whole table, mask for its lower half |
 * | 36, 40, 44 | u32 | split point new overflow pages belong to, lowest free overflow bit, bitmap pages |
 * | 48 | u32 | hash function's OID |
 * | 52 | u32[98] | overflow pages before each split point |
 * | 444 | u32[1024] | blocks of the bitmap pages |
 *
 * Bitmap page: the bits from byte 24.
 *
 * Source: PostgreSQL access/hash.h, access/hash/hashpage.c, hashovfl.c, hashutil.c.
 */
import { PAGE_HEADER_SIZE, PAGE_SIZE, initPage, setPageLower, specialOffset } from "../../page/page-layout.ts";
import { corruptRecord } from "../handler.ts";
import { INVALID_BLOCK } from "../index-tuples.ts";

export const HASH_OPAQUE_SIZE = 16;
export const OPAQUE_PREVIOUS = 0;
export const OPAQUE_NEXT = 4;
const OPAQUE_BUCKET = 8;
const OPAQUE_FLAGS = 12;
const OPAQUE_PAGE_ID = 14;
const HASH_PAGE_ID = 0xff80;

export const LH_UNUSED_PAGE = 0;
export const LH_OVERFLOW_PAGE = 1;
export const LH_BUCKET_PAGE = 2;
export const LH_BITMAP_PAGE = 4;
export const LH_META_PAGE = 8;
export const LH_PAGE_TYPE = 15;
export const LH_BUCKET_NEEDS_SPLIT_CLEANUP = 0x40;
export const LH_PAGE_HAS_DEAD_TUPLES = 0x80;

/** Offsets into the page of the metapage's fields. */
export const META = {
  MAGIC: 24, VERSION: 28, TUPLES: 32, FILL_FACTOR: 40, USABLE_SIZE: 42, BITMAP_SIZE: 44, BITMAP_SHIFT: 46,
  MAX_BUCKET: 48, HIGH_MASK: 52, LOW_MASK: 56, OVERFLOW_POINT: 60, FIRST_FREE: 64, MAP_COUNT: 68, PROC_ID: 72,
  SPARES: 76, MAPS: 468,
} as const;
export const MAX_SPLIT_POINTS = 98;
export const MAX_BITMAPS = 1024;
const META_END = 24 + 4544;

const HASH_MAGIC = 0x6440640;
const HASH_VERSION = 4;
const MAX_INITIAL_BUCKETS = 0x4000_0000;
/** Split point groups below this have one phase, the others four. */
const SINGLE_PHASE_GROUPS = 10;

export interface HashOpaque {
  previous: number;
  next: number;
  bucket: number;
  flags: number;
}

export function opaqueOffset(view: DataView): number {
  return specialOffset(view, HASH_OPAQUE_SIZE);
}

export function getFlags(view: DataView): number {
  return view.getUint16(opaqueOffset(view) + OPAQUE_FLAGS, true);
}

export function setFlags(view: DataView, flags: number): void {
  view.setUint16(opaqueOffset(view) + OPAQUE_FLAGS, flags, true);
}

/** Makes the page an empty one of the hash index. The links and the bucket are those of `initHashPage`'s callers. */
export function initHashPage(page: Uint8Array, view: DataView, bucket: number, flags: number): void {
  initPage(page, view, HASH_OPAQUE_SIZE);
  const at = PAGE_SIZE - HASH_OPAQUE_SIZE;
  view.setUint32(at + OPAQUE_PREVIOUS, INVALID_BLOCK, true);
  view.setUint32(at + OPAQUE_NEXT, INVALID_BLOCK, true);
  view.setUint32(at + OPAQUE_BUCKET, bucket, true);
  view.setUint16(at + OPAQUE_FLAGS, flags, true);
  view.setUint16(at + OPAQUE_PAGE_ID, HASH_PAGE_ID, true);
}

/** A bitmap page of `sizeBytes` bytes, all overflow pages in use. @throws StrataError corrupt `corrupt-record` */
export function initBitmapPage(page: Uint8Array, view: DataView, sizeBytes: number): void {
  if (sizeBytes > PAGE_SIZE - PAGE_HEADER_SIZE - HASH_OPAQUE_SIZE) corruptRecord(`hash bitmap of ${sizeBytes} bytes`);
  initHashPage(page, view, INVALID_BLOCK, LH_BITMAP_PAGE);
  page.fill(0xff, PAGE_HEADER_SIZE, PAGE_HEADER_SIZE + sizeBytes);
  setPageLower(view, PAGE_HEADER_SIZE + sizeBytes);
}

/** Offset of the u32 that holds bit `bit` of a bitmap page. @throws StrataError corrupt `corrupt-record` */
export function bitmapWordAt(bit: number): number {
  const at = PAGE_HEADER_SIZE + Math.floor(bit / 32) * 4;
  if (at + 4 > PAGE_SIZE - HASH_OPAQUE_SIZE) corruptRecord(`hash bitmap bit ${bit}`);
  return at;
}

/** Smallest n with 2^n >= value. */
function ceilLog2(value: number): number {
  return value <= 1 ? 0 : 32 - Math.clz32(value - 1);
}

/** The split point (index into the spares array) a table of `buckets` buckets is in (_hash_spareindex). */
export function splitPointOf(buckets: number): number {
  const group = ceilLog2(buckets);
  if (group < SINGLE_PHASE_GROUPS) return group;
  return SINGLE_PHASE_GROUPS + ((group - SINGLE_PHASE_GROUPS) << 2) + (((buckets - 1) >>> (group - 3)) & 3);
}

/** Buckets allocated up to and with a split point (_hash_get_totalbuckets). */
export function bucketsAtSplitPoint(splitPoint: number): number {
  if (splitPoint < SINGLE_PHASE_GROUPS) return 2 ** splitPoint;
  const beyond = splitPoint - SINGLE_PHASE_GROUPS;
  const before = 2 ** (SINGLE_PHASE_GROUPS + (beyond >> 2) - 1);
  return before + Math.floor(before / 4) * ((beyond & 3) + 1);
}

function initialBuckets(tuples: number, fillFactor: number): number {
  const wanted = tuples / fillFactor;
  if (!(wanted > 2)) return 2;
  if (wanted >= MAX_INITIAL_BUCKETS) return MAX_INITIAL_BUCKETS;
  return bucketsAtSplitPoint(splitPointOf(Math.floor(wanted)));
}

/** The metapage of a new index (_hash_init_metabuffer). */
export function initMetaPage(page: Uint8Array, view: DataView, tuples: number, procId: number, fillFactor: number): void {
  initHashPage(page, view, INVALID_BLOCK, LH_META_PAGE);
  const buckets = initialBuckets(tuples, fillFactor);
  const splitPoint = splitPointOf(buckets);
  const highMask = 2 ** ceilLog2(buckets + 1) - 1;
  view.setUint32(META.MAGIC, HASH_MAGIC, true);
  view.setUint32(META.VERSION, HASH_VERSION, true);
  view.setUint16(META.FILL_FACTOR, fillFactor, true);
  view.setUint16(META.USABLE_SIZE, PAGE_SIZE - PAGE_HEADER_SIZE - HASH_OPAQUE_SIZE, true);
  view.setUint16(META.BITMAP_SIZE, 4096, true);
  view.setUint16(META.BITMAP_SHIFT, 15, true);
  view.setUint32(META.MAX_BUCKET, buckets - 1, true);
  view.setUint32(META.HIGH_MASK, highMask, true);
  view.setUint32(META.LOW_MASK, highMask >>> 1, true);
  view.setUint32(META.OVERFLOW_POINT, splitPoint, true);
  view.setUint32(META.PROC_ID, procId, true);
  view.setUint32(META.SPARES + 4 * splitPoint, 1, true);
  setPageLower(view, META_END);
}

/** Adds a bitmap page's block to the metapage. @throws StrataError corrupt `corrupt-record` when its list is full */
export function addBitmapBlock(view: DataView, block: number): void {
  const count = view.getUint32(META.MAP_COUNT, true);
  if (count >= MAX_BITMAPS) corruptRecord(`hash metapage with ${count} bitmap pages`);
  view.setUint32(META.MAPS + 4 * count, block, true);
  view.setUint32(META.MAP_COUNT, count + 1, true);
}

/** Offset of the spares entry of a split point. @throws StrataError corrupt `corrupt-record` */
export function sparesAt(splitPoint: number): number {
  if (splitPoint >= MAX_SPLIT_POINTS) corruptRecord(`hash split point ${splitPoint}`);
  return META.SPARES + 4 * splitPoint;
}
