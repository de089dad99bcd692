/**
 * GIN compressed posting list segment: a sorted list of heap tuple ids.
 *
 * | offset | size | field                                                                 |
 * | ------ | ---- | --------------------------------------------------------------------- |
 * | 0      | 6    | first item, uncompressed: u16 block high, u16 block low, u16 offset   |
 * | 6      | 2    | n, u16: bytes that follow, without padding                            |
 * | 8      | n    | differences to the item before, 7 bits a byte, low bits first, the top bit set on all bytes but the last |
 * | 8 + n  | 0–1  | a zero byte where n is odd                                            |
 *
 * Inside the program an item is the number `block * 2048 + offset` (43 bits), the form the differences are taken in.
 *
 * Source: PostgreSQL src/backend/access/gin/ginpostinglist.c, src/include/access/ginblock.h.
 */
import { StrataError } from "../../../kit/errors.ts";

export const SEGMENT_HEADER_SIZE = 8;
/** Most bytes of one difference. */
const MAX_DELTA_BYTES = 7;
const OFFSET_RANGE = 2048;
const ITEM_LIMIT = 2 ** 43;
/** Items a page-sized segment can hold: its first one, and one for each byte. */
export const MAX_SEGMENT_ITEMS = 8192;

function bad(what: string): StrataError {
  return new StrataError("corrupt", "gin-posting-list", `GIN posting list: ${what}`);
}

/**
 * The item of the 6-byte tuple id at `at`.
 * @throws StrataError corrupt `gin-posting-list` when its offset number is 0 or does not fit 11 bits
 */
export function readItem(bytes: Uint8Array, at: number): number {
  const block = (bytes[at] | (bytes[at + 1] << 8)) * 0x10000 + (bytes[at + 2] | (bytes[at + 3] << 8));
  const offset = bytes[at + 4] | (bytes[at + 5] << 8);
  if (offset === 0 || offset >= OFFSET_RANGE) throw bad(`offset number ${offset}`);
  return block * OFFSET_RANGE + offset;
}

function writeItem(bytes: Uint8Array, at: number, item: number): void {
  const block = Math.floor(item / OFFSET_RANGE);
  const high = block >>> 16;
  const offset = item % OFFSET_RANGE;
  bytes[at] = high;
  bytes[at + 1] = high >>> 8;
  bytes[at + 2] = block;
  bytes[at + 3] = block >>> 8;
  bytes[at + 4] = offset;
  bytes[at + 5] = offset >>> 8;
}

/**
 * Bytes the segment at `at` takes, padding included; `end` is where the readable bytes end.
 * @throws StrataError corrupt `gin-posting-list` when it does not end by then
 */
export function segmentSize(bytes: Uint8Array, at: number, end: number): number {
  if (at + SEGMENT_HEADER_SIZE > end) throw bad("segment header cut off");
  const length = bytes[at + 6] | (bytes[at + 7] << 8);
  const size = SEGMENT_HEADER_SIZE + length + (length & 1);
  if (at + size > end) throw bad(`segment of ${size} bytes where ${end - at} are left`);
  return size;
}

/**
 * Decodes the segment at `at` into `items` (at least MAX_SEGMENT_ITEMS long) and returns how many there are.
 * @throws StrataError corrupt `gin-posting-list`
 */
export function decodeSegment(bytes: Uint8Array, at: number, end: number, items: Float64Array): number {
  segmentSize(bytes, at, end);
  let next = at + SEGMENT_HEADER_SIZE;
  const stop = next + (bytes[at + 6] | (bytes[at + 7] << 8));
  if (stop - next >= MAX_SEGMENT_ITEMS) throw bad("segment larger than a page");
  let item = readItem(bytes, at);
  let count = 0;
  items[count++] = item;
  while (next < stop) {
    const first = next;
    let byte = bytes[next++];
    let delta = byte & 0x7f;
    let scale = 128;
    while (byte >= 0x80) {
      if (next >= stop || next - first >= MAX_DELTA_BYTES) throw bad("difference cut off");
      byte = bytes[next++];
      delta += (byte & 0x7f) * scale;
      scale *= 128;
    }
    item += delta;
    if (delta === 0 || item >= ITEM_LIMIT) throw bad("items out of order or out of range");
    items[count++] = item;
  }
  return count;
}

function deltaSize(delta: number): number {
  let size = 1;
  for (let limit = 128; delta >= limit; limit *= 128) size++;
  return size;
}

/**
 * Encodes all of `items[0..count)` as one segment at `at` and returns its size, padding included; `end` is the first
 * byte that must not be written.
 * @throws StrataError corrupt `gin-posting-list` when they do not fit, or are not in rising order
 */
export function encodeSegment(items: Float64Array, count: number, target: { bytes: Uint8Array; at: number; end: number }): number {
  const { bytes, at, end } = target;
  if (count === 0 || at + SEGMENT_HEADER_SIZE > end) throw bad("no room for a segment");
  let previous = items[0];
  writeItem(bytes, at, previous);
  let next = at + SEGMENT_HEADER_SIZE;
  for (let index = 1; index < count; index++) {
    let delta = items[index] - previous;
    previous = items[index];
    if (!(delta > 0)) throw bad("items out of order");
    if (next + MAX_DELTA_BYTES > end && next + deltaSize(delta) > end) throw bad("items do not fit one segment");
    while (delta >= 128) {
      bytes[next++] = 0x80 | (delta % 128);
      delta = Math.floor(delta / 128);
    }
    bytes[next++] = delta;
  }
  const length = next - at - SEGMENT_HEADER_SIZE;
  bytes[at + 6] = length;
  bytes[at + 7] = length >>> 8;
  if ((length & 1) !== 0) {
    if (next >= end) throw bad("items do not fit one segment");
    bytes[next++] = 0;
  }
  return next - at;
}

/**
 * Merges two rising lists into `merged`, dropping doubles, and returns its length. `merged` must have room for both.
 * Source: ginMergeItemPointers.
 */
export function mergeItems(left: ItemList, right: ItemList, merged: Float64Array): number {
  const a = left.items;
  const b = right.items;
  let i = 0;
  let j = 0;
  let count = 0;
  while (i < left.count && j < right.count) {
    const x = a[i];
    const y = b[j];
    merged[count++] = x < y ? x : y;
    if (x <= y) i++;
    if (y <= x) j++;
  }
  while (i < left.count) merged[count++] = a[i++];
  while (j < right.count) merged[count++] = b[j++];
  return count;
}

/** The first `count` entries of a scratch array. */
export interface ItemList {
  items: Float64Array;
  count: number;
}
