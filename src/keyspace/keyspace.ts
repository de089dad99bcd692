/**
 * Sets of keys as ordered, disjoint, half-open ranges: what is in use at an LSN, and how to cut it into partitions.
 */
import { invariant } from "../kit/errors.ts";
import { compareKeys, type Key, type KeyRange, nextKey, rangesOverlap } from "./key.ts";
import { SPARSE_RANGE } from "./mapping.ts";

export interface KeySpace {
  /** In key order, not overlapping, not touching. */
  readonly ranges: readonly KeyRange[];
}

/** What a timeline uses at an LSN. */
export interface TimelineKeySpace {
  /** Every key here exists. */
  readonly dense: KeySpace;
  /** Keys here may exist; each range is kept apart from its neighbours. */
  readonly sparse: KeySpace;
}

export const EMPTY_KEYSPACE: KeySpace = { ranges: [] };

/** Collects keys and ranges that come in rising order, joining those that touch. */
export class KeySpaceBuilder {
  readonly #ranges: KeyRange[] = [];

  addKey(key: Key): this {
    return this.addRange({ start: key, end: nextKey(key) });
  }

  /** An empty range is ignored; the start may not lie below the end of what was added. */
  addRange(range: KeyRange): this {
    if (compareKeys(range.start, range.end) >= 0) return this;
    const last = this.#ranges.at(-1);
    if (last === undefined || compareKeys(last.end, range.start) < 0) {
      this.#ranges.push(range);
      return this;
    }
    invariant(compareKeys(last.end, range.start) === 0, "key ranges must be added in rising order");
    this.#ranges[this.#ranges.length - 1] = { start: last.start, end: range.end };
    return this;
  }

  build(): KeySpace {
    return { ranges: this.#ranges.slice() };
  }
}

/** From ranges in any order, overlapping or not. */
export function keySpaceFromRanges(ranges: readonly KeyRange[]): KeySpace {
  const sorted = ranges.filter((r) => compareKeys(r.start, r.end) < 0).sort((a, b) => compareKeys(a.start, b.start));
  const merged: KeyRange[] = [];
  for (const range of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && compareKeys(range.start, last.end) <= 0) {
      if (compareKeys(last.end, range.end) < 0) merged[merged.length - 1] = { start: last.start, end: range.end };
    } else {
      merged.push(range);
    }
  }
  return { ranges: merged };
}

function firstRangeEndingAfter(space: KeySpace, key: Key): number {
  let low = 0;
  let high = space.ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareKeys(space.ranges[middle].end, key) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function keySpaceContains(space: KeySpace, key: Key): boolean {
  const at = firstRangeEndingAfter(space, key);
  return at < space.ranges.length && compareKeys(space.ranges[at].start, key) <= 0;
}

export function keySpaceOverlaps(space: KeySpace, range: KeyRange): boolean {
  const at = firstRangeEndingAfter(space, range.start);
  return at < space.ranges.length && rangesOverlap(space.ranges[at], range);
}

/** What of `space` lies in `range`. */
export function clipKeySpace(space: KeySpace, range: KeyRange): KeySpace {
  const ranges: KeyRange[] = [];
  for (let at = firstRangeEndingAfter(space, range.start); at < space.ranges.length; at++) {
    const candidate = space.ranges[at];
    if (compareKeys(candidate.start, range.end) >= 0) break;
    const start = compareKeys(candidate.start, range.start) < 0 ? range.start : candidate.start;
    const end = compareKeys(candidate.end, range.end) > 0 ? range.end : candidate.end;
    ranges.push({ start, end });
  }
  return { ranges };
}

/** What of `space` lies outside `removed`. */
export function subtractKeySpace(space: KeySpace, removed: KeySpace): KeySpace {
  const ranges: KeyRange[] = [];
  for (const range of space.ranges) {
    let start = range.start;
    for (const hole of clipKeySpace(removed, range).ranges) {
      if (compareKeys(start, hole.start) < 0) ranges.push({ start, end: hole.start });
      start = hole.end;
    }
    if (compareKeys(start, range.end) < 0) ranges.push({ start, end: range.end });
  }
  return { ranges };
}

/**
 * Number of keys in a range that lies within one relation fork or SLRU segment (the last size key of the fork
 * before it may be included); u32::MAX for a range that spans more, or a sparse one.
 */
export function rangeKeyCount(range: KeyRange): number {
  const { start, end } = range;
  if (rangesOverlap(range, SPARSE_RANGE)) return 0xffffffff;
  if (start.field1 !== end.field1 || start.field2 !== end.field2 || start.field3 !== end.field3 || start.field4 !== end.field4) return 0xffffffff;
  if (start.field5 === end.field5) return end.field6 - start.field6;
  if (end.field5 === start.field5 + 1) return Math.min(0xffffffff, 0x1_0000_0000 - start.field6 + end.field6);
  return 0xffffffff;
}
