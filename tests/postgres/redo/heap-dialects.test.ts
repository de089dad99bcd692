/**
 * Heap records with command ids, as the peer's patched servers write them. No stock server does, so the records are
 * made by hand: each must do what the stock record of the same change does, and leave the command id besides.
 */
import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { itemOffset, lineCount, pageLsn } from "../../../src/postgres/page/page-layout.ts";
import { redoRecord, redoSupported } from "../../../src/postgres/redo/redo.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { type HandMadeBlock, handMadeRecord, u16, u32 } from "./hand-made-record.ts";

type Dialect = "stock" | "patched-14" | "peer-manager";
type Operation = "insert" | "insert-init" | "delete" | "update" | "hot-update" | "lock" | "multi-insert";

const XID = 900;
const CID = 0x01020304;
const COMBO = 0x20;
const VERSIONS: Readonly<Record<Dialect, PgMajor>> = { stock: 17, "patched-14": 14, "peer-manager": 17 };

const INFO: Readonly<Record<Operation, { heap: number; peer: number }>> = {
  insert: { heap: 0x00, peer: 0x00 }, "insert-init": { heap: 0x80, peer: 0x80 }, delete: { heap: 0x10, peer: 0x10 }, update: { heap: 0x20, peer: 0x20 },
  "hot-update": { heap: 0x40, peer: 0x30 }, lock: { heap: 0x60, peer: 0x40 }, "multi-insert": { heap: 0x50, peer: 0x50 },
};

function redo(page: Uint8Array, change: { dialect: Dialect; operation: Operation; main: number[]; blocks: HandMadeBlock[]; blockId?: number }): void {
  const { dialect, operation } = change;
  const stockManager = operation === "multi-insert" ? RMGR.HEAP2 : RMGR.HEAP;
  const record = handMadeRecord({
    version: VERSIONS[dialect], rmid: dialect === "peer-manager" ? RMGR.NEON : stockManager, xid: XID, main: change.main, blocks: change.blocks,
    info: dialect === "peer-manager" ? INFO[operation].peer : INFO[operation].heap, heapCommandIds: dialect === "patched-14",
  });
  redoRecord(page, record, change.blockId ?? 0, 0x1_0000_0100);
}

/** infomask2, infomask, command id where there is one, data offset. */
function header(dialect: Dialect, infomask2: number, infomask: number): number[] {
  return [...u16(infomask2), ...u16(infomask), ...(dialect === "stock" ? [] : u32(CID)), 24];
}

const ROW = [0, 11, 12, 13, 14, 15, 16];

/** Item 1 starts the page. */
function insert(page: Uint8Array, dialect: Dialect, offsetNumber: number): void {
  const init = offsetNumber === 1;
  const blocks = [{ blockNumber: 5, willInit: init, data: [...header(dialect, 2, 0x0802), ...ROW] }];
  redo(page, { dialect, operation: init ? "insert-init" : "insert", main: [...u16(offsetNumber), 0], blocks });
}

function deleteMain(dialect: Dialect, offsetNumber: number, infobits: number): number[] {
  if (dialect === "stock") return [...u32(XID), ...u16(offsetNumber), infobits, 0];
  if (dialect === "patched-14") return [...u32(XID), ...u16(offsetNumber), 0, 0, ...u32(CID), infobits, 0];
  return [...u32(XID), ...u16(offsetNumber), infobits, 0, ...u32(CID)];
}

function lockMain(dialect: Dialect, offsetNumber: number, infobits: number): number[] {
  if (dialect === "peer-manager") return [...u32(XID), ...u32(CID), ...u16(offsetNumber), infobits, 0];
  return deleteMain(dialect, offsetNumber, infobits);
}

function updateMain(dialect: Dialect, change: { from: number; to: number; flags?: number }): number[] {
  const cid = dialect === "stock" ? [] : u32(CID);
  return [...u32(XID), ...u16(change.from), 0, change.flags ?? 0, ...cid, ...u32(0), ...u16(change.to)];
}

function multiInsert(page: Uint8Array, dialect: Dialect): void {
  const tuple = (size: number): number[] => [
    ...u16(size), ...u16(2), ...u16(0x0802), ...(dialect === "patched-14" ? [0, 0, ...u32(CID)] : []), 24, ...Array.from({ length: size }, (_, i) => i),
  ];
  const first = tuple(4);
  const data = [...first, ...(first.length % 2 === 1 ? [0] : []), ...tuple(9)];
  redo(page, {
    dialect, operation: "multi-insert", main: [0, 0, ...u16(2), ...(dialect === "peer-manager" ? u32(CID) : []), ...u16(2), ...u16(3)], blocks: [{ blockNumber: 5, data }],
  });
}

/** A page with one row, then `change`. */
function after(dialect: Dialect, change: (page: Uint8Array) => void): Uint8Array {
  const page = new Uint8Array(8192);
  insert(page, dialect, 1);
  change(page);
  return page;
}

/** Command ids of all tuples. */
function commandIds(page: Uint8Array): number[] {
  const view = dataViewOf(page);
  return Array.from({ length: lineCount(view) }, (_, i) => view.getUint32(itemOffset(view, i + 1, 23) + 8, true));
}

/** The page with command ids and combo marks blanked, so that dialects can be compared. */
function withoutCommandIds(page: Uint8Array): Buffer {
  const copy = page.slice();
  const view = dataViewOf(copy);
  for (let n = 1; n <= lineCount(view); n++) {
    const tuple = itemOffset(view, n, 23);
    view.setUint32(tuple + 8, 0, true);
    view.setUint16(tuple + 20, view.getUint16(tuple + 20, true) & ~COMBO, true);
  }
  return Buffer.from(copy);
}

const EXCLUSIVE_LOCK = 2 | 4;
const COMBO_INFOBIT = 32;
const PREFIX = 32;

const CHANGES: readonly { name: string; apply: (dialect: Dialect, page: Uint8Array) => void; cids: readonly number[] }[] = [
  { name: "insert", apply: (dialect, page) => insert(page, dialect, 2), cids: [CID, CID] },
  { name: "delete", apply: (dialect, page) => redo(page, { dialect, operation: "delete", main: deleteMain(dialect, 1, 16), blocks: [{ blockNumber: 5 }] }), cids: [CID] },
  { name: "lock", apply: (dialect, page) => redo(page, { dialect, operation: "lock", main: lockMain(dialect, 1, EXCLUSIVE_LOCK), blocks: [{ blockNumber: 5 }] }), cids: [CID] },
  {
    name: "hot update sharing a prefix",
    apply: (dialect, page) =>
      redo(page, {
        dialect, operation: "hot-update", main: updateMain(dialect, { from: 1, to: 2, flags: PREFIX }), blocks: [{ blockNumber: 5, data: [...u16(3), ...header(dialect, 0x8002, 0x2802), 0, 77, 78] }],
      }),
    cids: [CID, CID],
  },
  {
    name: "update from another page",
    apply: (dialect, page) =>
      redo(page, { dialect, operation: "update", main: updateMain(dialect, { from: 7, to: 2 }), blocks: [{ blockNumber: 5, data: [...header(dialect, 2, 0x2802), ...ROW] }, { blockNumber: 9 }] }),
    cids: [CID, CID],
  },
  {
    name: "update to another page",
    apply: (dialect, page) =>
      redo(page, {
        dialect, operation: "update", main: updateMain(dialect, { from: 1, to: 4 }), blockId: 1, blocks: [{ blockNumber: 9, data: [...header(dialect, 2, 0x2802), ...ROW] }, { blockNumber: 5 }],
      }),
    cids: [CID],
  },
  { name: "multi-insert", apply: (dialect, page) => multiInsert(page, dialect), cids: [CID, CID, CID] },
];

describe("heap records with command ids", () => {
  for (const { name, apply, cids } of CHANGES) {
    for (const dialect of ["patched-14", "peer-manager"] as const) {
      test(`${name}, ${dialect}`, () => {
        const stock = after("stock", (page) => apply("stock", page));
        const page = after(dialect, (fresh) => apply(dialect, fresh));
        expect(withoutCommandIds(page)).toEqual(withoutCommandIds(stock));
        expect(commandIds(page)).toEqual([...cids]);
        expect(commandIds(stock)).toEqual(cids.map(() => 0));
        expect(pageLsn(dataViewOf(page))).toBe(0x1_0000_0100);
      });
    }
  }

  test("a combo command id is marked as such, and unmarked by the next change without", () => {
    for (const dialect of ["patched-14", "peer-manager"] as const) {
      const isCombo = (infobits: number): boolean => {
        const page = after(dialect, (fresh) => {
          redo(fresh, { dialect, operation: "delete", main: deleteMain(dialect, 1, COMBO_INFOBIT), blocks: [{ blockNumber: 5 }] });
          redo(fresh, { dialect, operation: "lock", main: lockMain(dialect, 1, infobits), blocks: [{ blockNumber: 5 }] });
        });
        const view = dataViewOf(page);
        return (view.getUint16(itemOffset(view, 1, 23) + 20, true) & COMBO) !== 0;
      };
      expect([isCombo(COMBO_INFOBIT), isCombo(0)]).toEqual([true, false]);
    }
  });

  test("the peer's manager: unknown operations and shared bytes across pages are refused", () => {
    expect([redoSupported(RMGR.NEON, 0x50), redoSupported(RMGR.NEON, 0x60), redoSupported(200, 0)]).toEqual([true, false, false]);
    const page = after("peer-manager", () => {});
    const unknown = handMadeRecord({ version: 17, rmid: RMGR.NEON, info: 0x70, xid: XID, main: [0, 0, 0], blocks: [{ blockNumber: 5 }] });
    expect(() => redoRecord(page, unknown, 0, 8)).toThrow(expect.objectContaining({ code: "unsupported-redo" }));
    const across = { dialect: "peer-manager", operation: "update", main: updateMain("peer-manager", { from: 1, to: 2, flags: PREFIX }), blocks: [{ blockNumber: 5, data: [...u16(3), ...header("peer-manager", 2, 2), 0] }, { blockNumber: 9 }] } as const;
    expect(() => redo(page, { ...across, main: [...across.main], blocks: [...across.blocks] })).toThrow(StrataError);
  });
});
