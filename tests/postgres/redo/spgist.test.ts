import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { itemOffset, lineCount } from "../../../src/postgres/page/page-layout.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { fields, makeRecord } from "../../support/redo-record.ts";

const SPGIST = RMGR.SPGIST;
const LIVE = 0;
const REDIRECT = 1;
const DEAD = 2;
const PLACEHOLDER = 3;

function leafTuple(fill: number, next = 0): Uint8Array {
  return Uint8Array.of(...fields("u32", 24 << 2, "u16", next, "u16", 0, "u16", 9, "u16", fill), ...new Uint8Array(12).fill(fill));
}

/** An inner tuple of `nodes` nodes without labels, behind a prefix of 8 bytes. */
function innerTuple(nodes: number): Uint8Array {
  const size = 8 + 8 + nodes * 8;
  const parts = [fields("u32", ((nodes << 3) | (8 << 16)) >>> 0, "u16", size, "u16", 0), new Uint8Array(8).fill(0x50)];
  for (let i = 0; i < nodes; i++) parts.push(fields("u16", 0xffff, "u16", 0xffff, "u16", 0, "u16", 8));
  return Buffer.concat(parts);
}

function leafPage(tuples: number): { page: Uint8Array; view: DataView } {
  const page = new Uint8Array(8192);
  for (let n = 1; n <= tuples; n++) {
    const main = Uint8Array.of(...fields("u8", n === 1 ? 1 : 0, "u8", 0, "u16", n, "u16", n === 1 ? 0 : 1, "u16", 0, "u16", 0), ...leafTuple(n));
    redoRecord(page, makeRecord({ rmid: SPGIST, info: 0x10, main, blocks: [{ block: 4 }] }), 0, 100);
  }
  return { page, view: dataViewOf(page) };
}

function states(view: DataView): number[] {
  return Array.from({ length: lineCount(view) }, (_, i) => view.getUint32(itemOffset(view, i + 1, 4), true) & 3);
}

function counters(view: DataView): { redirects: number; placeholders: number } {
  return { redirects: view.getUint16(8186, true), placeholders: view.getUint16(8188, true) };
}

function move(options: { isBuild: boolean }): ReturnType<typeof makeRecord> {
  const header = fields("u16", 3, "u8", 1, "u8", 0, "u8", 0, "u8", 0, "u16", 1, "u16", 2, "u16", 0, "u32", 700, "u8", options.isBuild ? 1 : 0, "u8", 0, "u16", 0);
  const numbers = fields("u16", 3, "u16", 1, "u16", 4, "u16", 1, "u16", 2, "u16", 3, "u16", 4);
  const main = Buffer.concat([header, numbers, leafTuple(3), leafTuple(1), leafTuple(4), leafTuple(9)]);
  return makeRecord({ rmid: SPGIST, info: 0x20, main, blocks: [{ block: 4 }, { block: 6 }, { block: 2 }] });
}

describe("SP-GiST redo", () => {
  test("new leaf tuples are chained behind the head", () => {
    const { view } = leafPage(3);
    expect(states(view)).toEqual([LIVE, LIVE, LIVE]);
    expect(view.getUint16(itemOffset(view, 1, 12) + 4, true)).toBe(3);
    expect(view.getUint16(8184, true)).toBe(4);
  });

  test("moved leaves leave a redirect for the first listed and placeholders for the others", () => {
    const { page, view } = leafPage(5);
    redoRecord(page, move({ isBuild: false }), 0, 200);
    expect(states(view)).toEqual([PLACEHOLDER, LIVE, REDIRECT, PLACEHOLDER, LIVE]);
    expect(counters(view)).toEqual({ redirects: 1, placeholders: 2 });
    const at = itemOffset(view, 3, 16);
    expect([view.getUint16(at + 8, true), view.getUint16(at + 10, true), view.getUint32(at + 12, true)]).toEqual([6, 4, 700]);
  });

  test("an index being built needs no redirects", () => {
    const { page, view } = leafPage(5);
    redoRecord(page, move({ isBuild: true }), 0, 200);
    expect(counters(view)).toEqual({ redirects: 0, placeholders: 3 });
  });

  test("the destination gets the tuples, the parent's node the new place", () => {
    const record = move({ isBuild: false });
    const destination = new Uint8Array(8192);
    redoRecord(destination, record, 1, 200);
    expect(states(dataViewOf(destination))).toEqual([LIVE, LIVE, LIVE, LIVE]);
    const parent = new Uint8Array(8192);
    const view = dataViewOf(parent);
    const addNode = fields("u16", 1, "u16", 1, "u8", 1, "u8", 255, "u16", 0, "u16", 0, "u16", 0, "u32", 7, "u32", 0);
    redoRecord(parent, makeRecord({ rmid: SPGIST, info: 0x30, main: Buffer.concat([addNode, innerTuple(3)]), blocks: [{}, { block: 2 }] }), 1, 100);
    redoRecord(parent, record, 2, 200);
    const node = itemOffset(view, 1, 8) + 16 + 2 * 8;
    expect([view.getUint16(node + 2, true), view.getUint16(node + 4, true)]).toEqual([6, 4]);
    record.bytes[record.mainDataOffset + 8] = 3;
    expect(() => redoRecord(parent, record, 2, 300)).toThrow("without node 3");
  });

  test("vacuum kills, frees, moves and chains leaf tuples in one record", () => {
    const { page, view } = leafPage(6);
    const moved = page[itemOffset(view, 5, 24) + 20];
    const main = fields(
      "u16", 1, "u16", 1, "u16", 1, "u16", 1, "u32", 700, "u32", 0,
      "u16", 2, "u16", 6, "u16", 5, "u16", 3, "u16", 3, "u16", 4,
    );
    redoRecord(page, makeRecord({ rmid: SPGIST, info: 0x60, main, blocks: [{}] }), 0, 300);
    expect(states(view)).toEqual([LIVE, DEAD, LIVE, LIVE, PLACEHOLDER, PLACEHOLDER]);
    expect(page[itemOffset(view, 3, 24) + 20]).toBe(moved);
    expect(view.getUint16(itemOffset(view, 3, 24) + 4, true)).toBe(4);
  });

  test("redirects become placeholders, those at the end go: offsets from byte 8 in 14 and 15, from 10 on", () => {
    for (const version of [14, 15, 16, 17] as PgMajor[]) {
      const { page, view } = leafPage(5);
      redoRecord(page, move({ isBuild: false }), 0, 200);
      const header = fields("u16", 1, "u16", 5, "u32", 700, ...(version < 16 ? [] : ["u8", 0, "u8", 0]));
      const clean = makeRecord({ rmid: SPGIST, info: 0x80, version, main: Buffer.concat([header, fields("u16", 3)]), blocks: [{}] });
      redoRecord(page, clean, 0, 300);
      expect(states(view)).toEqual([PLACEHOLDER, LIVE, PLACEHOLDER, PLACEHOLDER]);
      expect(counters(view)).toEqual({ redirects: 0, placeholders: 2 });
    }
  });

  test("only placeholders are replaced, and no offset number counts twice", () => {
    const { page } = leafPage(5);
    const onto = Buffer.concat([fields("u8", 0, "u8", 0, "u16", 2, "u16", 1, "u16", 0, "u16", 0), leafTuple(1)]);
    expect(() => redoRecord(page, makeRecord({ rmid: SPGIST, info: 0x10, main: onto, blocks: [{}] }), 0, 200)).toThrow("no placeholder");
    const twice = fields("u16", 2, "u16", 0, "u16", 0, "u16", 0, "u32", 0, "u32", 0, "u16", 1, "u16", 1);
    expect(() => redoRecord(page, makeRecord({ rmid: SPGIST, info: 0x60, main: twice, blocks: [{}] }), 0, 200)).toThrow("double");
  });
});
