import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { dataViewOf } from "../../../../src/kit/bytes.ts";
import { isStrataError } from "../../../../src/kit/errors.ts";
import { GIN_COMPRESSED, GIN_DATA, GIN_LEAF, initGinPage } from "../../../../src/postgres/redo/gin/page.ts";
import { MAX_SEGMENT_ITEMS, decodeSegment, encodeSegment, segmentSize } from "../../../../src/postgres/redo/gin/posting-list.ts";
import { redoRecord } from "../../../../src/postgres/redo/redo.ts";
import { RMGR } from "../../../../src/postgres/wal/constants.ts";
import { fields, makeRecord } from "../../../support/redo-record.ts";

type Action = { kind: "delete" } | { kind: "insert" | "replace" | "add"; items: number[] };

function segment(items: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8192);
  const size = encodeSegment(Float64Array.from(items), items.length, { bytes, at: 0, end: bytes.length });
  return bytes.slice(0, size);
}

function tupleId(item: number): Uint8Array {
  const block = Math.floor(item / 2048);
  return fields("u16", block >>> 16, "u16", block & 0xffff, "u16", item % 2048);
}

function leaf(segments: readonly (readonly number[])[]): Uint8Array {
  const page = new Uint8Array(8192);
  const view = dataViewOf(page);
  initGinPage(page, view, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  let at = 32;
  for (const items of segments) {
    const bytes = segment(items);
    page.set(bytes, at);
    at += bytes.length;
  }
  view.setUint16(12, at, true);
  return page;
}

function segmentsOf(page: Uint8Array): number[][] {
  const end = dataViewOf(page).getUint16(12, true);
  const result: number[][] = [];
  const items = new Float64Array(MAX_SEGMENT_ITEMS);
  for (let at = 32; at < end; at += segmentSize(page, at, end)) {
    const count = decodeSegment(page, at, end, items);
    result.push(Array.from(items.subarray(0, count)));
  }
  return result;
}

const CODES = { delete: 1, insert: 2, replace: 3, add: 4 } as const;

function encodeActions(actions: readonly [number, Action][]): Uint8Array {
  const parts = [fields("u16", actions.length)];
  for (const [number, action] of actions) {
    parts.push(Uint8Array.of(number, CODES[action.kind]));
    if (action.kind === "add") parts.push(fields("u16", action.items.length), ...action.items.map(tupleId));
    else if (action.kind !== "delete") parts.push(segment(action.items));
  }
  return Buffer.concat(parts);
}

function apply(page: Uint8Array, data: Uint8Array): void {
  const vacuum = makeRecord({ rmid: RMGR.GIN, info: 0x90, blocks: [{ data }] });
  redoRecord(page, vacuum, 0, 4096);
}

const items = fc.uniqueArray(fc.integer({ min: 1, max: 2047 }), { minLength: 1, maxLength: 30 }).map((list) => list.sort((a, b) => a - b));
/** Segments hold ranges of their own, so that adding items keeps them apart. */
const segments = fc.array(items, { minLength: 1, maxLength: 12 }).map((lists) => lists.map((list, index) => list.map((item) => index * 2048 * 4 + item)));
const action = (index: number): fc.Arbitrary<Action> =>
  fc.oneof(
    fc.constant<Action>({ kind: "delete" }),
    fc.record({ kind: fc.constantFrom("insert" as const, "replace" as const), items: items.map((list) => list.map((item) => index * 8192 + 4096 + item)) }),
    fc.record({ kind: fc.constant("add" as const), items: items.map((list) => list.map((item) => index * 8192 + 2048 + item)) }),
  );
const scenario = segments.chain((before) =>
  fc.tuple(fc.constant(before), fc.tuple(...before.map((_, index) => fc.option(action(index), { nil: undefined, freq: 2 })))),
);

/** The same changes on plain arrays. */
function model(before: readonly number[][], chosen: readonly (Action | undefined)[]): number[][] {
  const after: number[][] = [];
  before.forEach((list, index) => {
    const change = chosen[index];
    if (change === undefined) after.push(list);
    else if (change.kind === "insert") after.push(change.items, list);
    else if (change.kind === "replace") after.push(change.items);
    else if (change.kind === "add") after.push([...new Set([...list, ...change.items])].sort((a, b) => a - b));
  });
  return after;
}

describe("GIN leaf recompression", () => {
  test("any mix of actions does to the page what it does to plain lists", () => {
    fc.assert(
      fc.property(scenario, ([before, chosen]) => {
        const page = leaf(before);
        const actions = chosen.flatMap((change, index): [number, Action][] => (change === undefined ? [] : [[index, change]]));
        apply(page, encodeActions(actions));
        expect(segmentsOf(page)).toEqual(model(before, chosen));
      }),
      { numRuns: 300 },
    );
  });

  test("segments after the last one are appended", () => {
    const page = leaf([[1, 2]]);
    apply(page, encodeActions([[1, { kind: "insert", items: [9000, 9001] }]]));
    expect(segmentsOf(page)).toEqual([[1, 2], [9000, 9001]]);
  });

  test("a leaf from before 9.4 becomes one segment first", () => {
    const page = leaf([]);
    const view = dataViewOf(page);
    [10, 20, 4100].forEach((item, index) => page.set(tupleId(item), 32 + 6 * index));
    view.setUint16(8188, 3, true);
    view.setUint16(8190, GIN_DATA | GIN_LEAF, true);
    apply(page, encodeActions([[0, { kind: "add", items: [15] }]]));
    expect(segmentsOf(page)).toEqual([[10, 15, 20, 4100]]);
    expect(view.getUint16(8188, true)).toBe(0);
    expect(view.getUint16(8190, true)).toBe(GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  });

  test("damaged actions give a typed error and touch nothing around the page", () => {
    fc.assert(
      fc.property(scenario, fc.nat(), fc.integer({ min: 0, max: 255 }), ([before, chosen], where, value) => {
        const actions = chosen.flatMap((change, index): [number, Action][] => (change === undefined ? [] : [[index, change]]));
        const data = encodeActions(actions);
        data[where % data.length] = value;
        const guarded = new Uint8Array(8192 + 128).fill(0x5a);
        guarded.set(leaf(before), 64);
        try {
          apply(guarded.subarray(64, 64 + 8192), data);
        } catch (error) {
          expect(isStrataError(error)).toBe(true);
        }
        expect(guarded.subarray(0, 64).every((byte) => byte === 0x5a) && guarded.subarray(64 + 8192).every((byte) => byte === 0x5a)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});
