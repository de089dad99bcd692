import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isStrataError } from "../../src/kit/errors.ts";
import { interpretRecord } from "../../src/interpret/interpret-record.ts";
import { decodeInterpretedBatch, encodeInterpretedBatch, encodeInterpretedRecord } from "../../src/interpret/wire-format.ts";
import { makeShardIdentity, type ShardIdentity, UNSHARDED_IDENTITY } from "../../src/keyspace/shard.ts";
import { RMGR } from "../../src/postgres/wal/constants.ts";
import { decodeRecord } from "../../src/postgres/wal/decode-record.ts";
import { type BlockSpec, encodeRecord, type RecordSpec } from "../../src/postgres/wal/encode-record.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";

const END = 0x1_2345_6788;

function recordOf(spec: Omit<RecordSpec, "version">): WalRecord {
  const record = new WalRecord();
  decodeRecord(encodeRecord({ version: 17, ...spec }), 17, record, { checkCrc: false });
  record.lsn = END - 200;
  record.endLsn = END;
  return record;
}

const block = (over: Partial<BlockSpec>): BlockSpec => ({ id: 0, spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0, blockNumber: 7, data: Uint8Array.of(1, 2, 3), ...over });
const btree = (blocks: BlockSpec[], xid = 800): WalRecord => recordOf({ rmid: RMGR.BTREE, info: 0, xid, mainData: Uint8Array.of(1, 0), blocks });

function roundTrip(record: WalRecord, options: { shard?: ShardIdentity; extended?: boolean } = {}) {
  const { shard = UNSHARDED_IDENTITY, extended = true } = options;
  const bytes = encodeInterpretedRecord(record, { shard, extended });
  return bytes === null ? null : decodeInterpretedBatch(encodeInterpretedBatch([bytes], END), { version: 17, shard }).records[0];
}

describe("compact keys", () => {
  test("the peer's bytes: two unsigned halves", () => {
    const bytes = encodeInterpretedRecord(btree([block({ dbOid: 0x01020384, relNumber: 0x05f60708, fork: 2, blockNumber: 0xfffffffe })]), { shard: UNSHARDED_IDENTITY, extended: false });
    const text = Buffer.from(bytes ?? []).toString("hex");
    // 00 067f 01020384 05 | f60708 02 fffffffe, each half a varint.
    const varint = (value: bigint): string => {
      let out = "";
      for (let left = value; ; left >>= 7n) {
        const more = left > 0x7fn;
        out += Number((left & 0x7fn) | (more ? 0x80n : 0n)).toString(16).padStart(2, "0");
        if (!more) return out;
      }
    };
    const high = varint(0x00067f0102038405n);
    const low = varint(0xf6070802fffffffen);
    expect(low.length).toBe(20);
    expect(text).toContain(`08${high}10${low}`);
  });

  test("any page of the default tablespaces survives", () => {
    const u32 = fc.integer({ min: 0, max: 0xffffffff });
    const page = fc.record({
      spcOid: fc.constantFrom(1663, 1664), dbOid: u32, relNumber: fc.integer({ min: 1, max: 0xffffffff }), fork: fc.integer({ min: 0, max: 3 }), blockNumber: fc.integer({ min: 0, max: 0xfffffffe }),
    });
    fc.assert(fc.property(page, (place) => {
      const record = btree([block(place)]);
      expect(roundTrip(record)?.blocks).toEqual([...interpretRecord(record, UNSHARDED_IDENTITY).blocks]);
    }), { numRuns: 300 });
  });
});

test("a page in another tablespace goes as its whole record to one of ours, and is left out for the peer", () => {
  const record = btree([block({ spcOid: 70_000 }), block({ id: 1, spcOid: 1663 })]);
  expect(roundTrip(record)?.blocks).toEqual([...interpretRecord(record, UNSHARDED_IDENTITY).blocks]);
  expect(roundTrip(record, { extended: false })?.blocks.map(({ rel }) => rel.spcOid)).toEqual([1663]);
});

test("each shard gets its pages; shard 0 learns of the others', and of every record", () => {
  const record = btree([block({ blockNumber: 0 }), block({ id: 1, blockNumber: 1 }), block({ id: 2, blockNumber: 2 }), block({ id: 3, blockNumber: 3 })]);
  const shards = [0, 1, 2, 3].map((number) => makeShardIdentity({ number, count: 4 }, 1));
  const received = shards.map((shard) => roundTrip(record, { shard }));
  const owned = received.map((one) => one?.blocks.filter(({ value }) => value !== null).map(({ block: number }) => number) ?? []);
  expect(owned.flat().sort()).toEqual([0, 1, 2, 3]);
  expect(received[0]?.blocks.length).toBe(4);
  for (const one of received.slice(1)) expect(one?.blocks.every(({ value }) => value !== null) ?? true).toBe(true);
  const nothing = recordOf({ rmid: RMGR.STANDBY, info: 0x00, mainData: new Uint8Array(4) });
  expect(roundTrip(nothing, { shard: shards[0] })).toMatchObject({ endLsn: END, effect: null, blocks: [] });
  expect(roundTrip(nothing, { shard: shards[1] })).toBeNull();
});

test("bad input is a typed error", () => {
  const good = encodeInterpretedBatch([encodeInterpretedRecord(btree([block({}), block({ id: 1, relNumber: 5 })]), { shard: UNSHARDED_IDENTITY, extended: true }) ?? new Uint8Array(0)], END);
  const decode = (bytes: Uint8Array) => decodeInterpretedBatch(bytes, { version: 17, shard: UNSHARDED_IDENTITY });
  fc.assert(fc.property(fc.integer({ min: 0, max: good.length - 1 }), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, flip, cut) => {
    const bytes = good.slice(0, cut ? at : undefined);
    if (!cut) bytes[at] ^= flip;
    try {
      decode(bytes);
    } catch (error) {
      expect(isStrataError(error) && ["corrupt", "fix-input"].includes(error.kind)).toBe(true);
    }
  }), { numRuns: 1000 });
});
