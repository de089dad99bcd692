import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ByteWriter } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { decodeEffect } from "../../../src/postgres/effects/effect.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { decodeRecord } from "../../../src/postgres/wal/decode-record.ts";
import { type BlockSpec, encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";

const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20260101);

function record(spec: { version: PgMajor; rmid: number; info: number; xid?: number; origin?: number; mainData: Uint8Array; blocks?: BlockSpec[] }): WalRecord {
  const decoded = new WalRecord();
  decodeRecord(encodeRecord(spec), spec.version, decoded, { lsn: 0x1_0000_1000, checkCrc: false });
  return decoded;
}

const heapBlock = (id: number, blockNumber: number, fork = 0): BlockSpec => ({ id, spcOid: 1663, dbOid: 5, relNumber: 16384, fork, blockNumber });

describe("transaction ends", () => {
  const main = new ByteWriter()
    .i64be(0n)
    .u32le(0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x80 | 0x4000_0000)
    .u32le(5).u32le(1663)
    .u32le(2).u32le(701).u32le(702)
    .u32le(1).u32le(1663).u32le(5).u32le(16400)
    .u32le(1).zeros(16)
    .u32le(699).cstring("gid")
    .lsnLe(0x1234).u64le(77n)
    .finish();

  test("carry everything a commit of a prepared transaction says", () => {
    const effect = decodeEffect(record({ version: 17, rmid: RMGR.XACT, info: 0xb0, xid: 0, origin: 3, mainData: main }));
    expect(effect).toEqual({
      kind: "xact-commit", xid: 699, prepared: true, time: 0n, subxids: [701, 702],
      droppedRelations: [{ spcOid: 1663, dbOid: 5, relNumber: 16400 }],
      dropsRelcacheInitFile: true, dbOid: 5, spcOid: 1663, gid: "gid", origin: { originId: 3, originLsn: 0x1234, timestamp: 77n },
    });
  });

  test("cut short are refused at every length", () => {
    for (let length = 0; length < main.length; length++) {
      const cut = record({ version: 17, rmid: RMGR.XACT, info: 0xb0, mainData: main.subarray(0, length) });
      expect(() => decodeEffect(cut)).toThrow(expect.objectContaining({ kind: "corrupt" }));
    }
  });
});

describe("visibility-map bits", () => {
  const clear = (r: WalRecord) => {
    const effect = decodeEffect(r);
    return effect?.kind === "clear-visibility-map" ? [effect.newHeapBlock, effect.oldHeapBlock, effect.flags] : effect;
  };
  const bytes = (length: number, set: Record<number, number>) => new Uint8Array(length).map((_, i) => set[i] ?? 0);

  test("of stock heap records", () => {
    const heap = (info: number, mainData: Uint8Array, blocks = [heapBlock(0, 9)]) => record({ version: 15, rmid: RMGR.HEAP, info, mainData, blocks });
    expect(clear(heap(0x00, bytes(3, { 2: 1 })))).toEqual([9, null, 3]);
    expect(clear(heap(0x80, bytes(3, { 2: 0 })))).toBeNull();
    expect(clear(heap(0x10, bytes(8, { 7: 1 })))).toEqual([9, null, 3]);
    expect(clear(heap(0x10, bytes(40, { 7: 1 | 4 })))).toEqual([9, null, 3]);
    expect(clear(heap(0x20, bytes(14, { 7: 3 }), [heapBlock(0, 9), heapBlock(1, 4)]))).toEqual([9, 4, 3]);
    expect(clear(heap(0x40, bytes(14, { 7: 1 })))).toEqual([null, 9, 3]);
    expect(clear(heap(0x60, bytes(8, { 7: 1 })))).toEqual([null, 9, 2]);
    const heap2 = (info: number, mainData: Uint8Array) => record({ version: 15, rmid: RMGR.HEAP2, info, mainData, blocks: [heapBlock(0, 9)] });
    expect(clear(heap2(0x50, bytes(8, { 0: 1 })))).toEqual([9, null, 3]);
    expect(clear(heap2(0x60, bytes(8, { 7: 1 })))).toEqual([null, 9, 2]);
    expect(clear(heap2(0x40, bytes(9, { 0: 1, 7: 1 })))).toBeNull();
  });

  test("of the peer's heap records with a command id", () => {
    const patched = (info: number, mainData: Uint8Array) => record({ version: 15, rmid: RMGR.HEAP, info, mainData, blocks: [heapBlock(0, 9)] });
    expect(clear(patched(0x10, bytes(14, { 8: 5, 13: 1 })))).toEqual([9, null, 3]);
    expect(clear(patched(0x10, bytes(14, { 8: 5, 13: 0 })))).toBeNull();
    expect(clear(patched(0x10, bytes(60, { 8: 5, 13: 1 | 4 })))).toEqual([9, null, 3]);
    expect(clear(patched(0x60, bytes(14, { 8: 5, 13: 1 })))).toEqual([null, 9, 2]);
    const neon = (info: number, mainData: Uint8Array) => record({ version: 16, rmid: RMGR.NEON, info, mainData, blocks: [heapBlock(0, 9)] });
    expect(clear(neon(0x00, bytes(8, { 2: 1 })))).toEqual([9, null, 3]);
    expect(clear(neon(0x10, bytes(12, { 7: 1 })))).toEqual([9, null, 3]);
    expect(clear(neon(0x30, bytes(18, { 7: 1 })))).toEqual([null, 9, 3]);
    expect(clear(neon(0x40, bytes(12, { 11: 1 })))).toEqual([null, 9, 2]);
    expect(clear(neon(0x50, bytes(8, { 0: 1 })))).toEqual([9, null, 3]);
  });

  test("are left to redo when the record names the map's page", () => {
    const blocks = [heapBlock(0, 9), heapBlock(1, 0, 2)];
    expect(clear(record({ version: 17, rmid: RMGR.HEAP, info: 0x00, mainData: bytes(3, { 2: 1 }), blocks }))).toBeNull();
  });

  test("without a heap block or flags are damage", () => {
    const noBlock = record({ version: 17, rmid: RMGR.HEAP, info: 0x00, mainData: bytes(3, { 2: 1 }) });
    expect(() => decodeEffect(noBlock)).toThrow(expect.objectContaining({ code: "wal-bad-effect" }));
    const short = record({ version: 17, rmid: RMGR.HEAP, info: 0x10, mainData: bytes(5, {}), blocks: [heapBlock(0, 9)] });
    expect(() => decodeEffect(short)).toThrow(expect.objectContaining({ code: "wal-bad-effect" }));
  });
});

describe("databases", () => {
  const main = new ByteWriter().u32le(7).u32le(1).u32le(1663).u32le(4).u32le(5).finish();

  test("14 numbers its records differently", () => {
    const drop = { kind: "dbase-drop", dbOid: 7, spcOids: [1663] } as const;
    expect(decodeEffect(record({ version: 14, rmid: RMGR.DBASE, info: 0x10, mainData: main }))).toEqual(drop);
    expect(decodeEffect(record({ version: 15, rmid: RMGR.DBASE, info: 0x20, mainData: main }))).toEqual(drop);
    expect(decodeEffect(record({ version: 15, rmid: RMGR.DBASE, info: 0x10, mainData: main }))).toMatchObject({ kind: "dbase-create-empty" });
    expect(() => decodeEffect(record({ version: 14, rmid: RMGR.DBASE, info: 0x20, mainData: main }))).toThrow(expect.objectContaining({ code: "wal-unknown-record" }));
  });
});

test("any contents of any record give an effect or a typed error", () => {
  const managers = fc.constantFrom(...Object.values(RMGR));
  const infos = fc.integer({ min: 0, max: 15 }).map((high) => high << 4);
  const numbers = fc.constantFrom(0, 1, 2, 255, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff);
  const mainData = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.array(numbers, { maxLength: 40 }).map((values) => values.reduce((writer, value) => writer.u32le(value), new ByteWriter()).finish()),
  );
  fc.assert(
    fc.property(fc.record({ version: fc.constantFrom<PgMajor>(14, 15, 16, 17, 18), rmid: managers, info: infos, main: mainData }), ({ version, rmid, info, main }) => {
      if (rmid === RMGR.NEON && version === 14) return;
      try {
        decodeEffect(record({ version, rmid, info, mainData: main, blocks: [heapBlock(0, 1)] }));
      } catch (error) {
        if (!(error instanceof StrataError) || error.kind !== "corrupt") throw error;
      }
    }),
    { seed: SEED, numRuns: 5000 },
  );
});
