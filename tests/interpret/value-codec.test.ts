import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { applyNeonRecord } from "../../src/interpret/apply-neon-record.ts";
import { decodeValue, encodedValueSize, encodeValue } from "../../src/interpret/value-codec.ts";
import type { NeonRecord, Value } from "../../src/interpret/value.ts";
import { relBlockKey, slruBlockKey } from "../../src/keyspace/mapping.ts";
import { utf8 } from "../../src/kit/bytes.ts";

const u32 = fc.nat({ max: 0xffffffff });
const bytes = fc.uint8Array({ maxLength: 300 });
const xids = fc.array(u32, { maxLength: 9 });
const neon: fc.Arbitrary<NeonRecord> = fc.oneof(
  fc.record({ type: fc.constant("clear-visibility-map-flags" as const), newHeapBlock: fc.option(u32), oldHeapBlock: fc.option(u32), flags: fc.nat(255) }),
  fc.record({ type: fc.constant("clog-set-committed" as const), xids, timestamp: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }) }),
  fc.record({ type: fc.constant("clog-set-aborted" as const), xids }),
  fc.record({ type: fc.constant("multixact-offset-create" as const), multiXid: u32, memberOffset: u32 }),
  fc.record({ type: fc.constant("multixact-members-create" as const), memberOffset: u32, members: fc.array(fc.record({ xid: u32, status: u32 }), { maxLength: 9 }) }),
  fc.record({ type: fc.constant("aux-file" as const), path: fc.string(), content: fc.option(bytes) }),
  fc.record({ type: fc.constant("commit-ts-set" as const), xids, timestamp: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), originId: fc.nat(0xffff) }),
  fc.record({ type: fc.constant("truncate-visibility-map" as const), truncByte: fc.nat(8191), truncOffset: fc.nat(7) }),
);
const value: fc.Arbitrary<Value> = fc.oneof(
  bytes.map((b): Value => ({ kind: "image", bytes: b })),
  fc.record({ kind: fc.constant("postgres" as const), willInit: fc.boolean(), record: bytes }),
  neon.map((record): Value => ({ kind: "neon", record })),
);

describe("value codec", () => {
  test("golden vectors", () => {
    expect(encodeValue({ kind: "image", bytes: utf8("foobar") }).toHex()).toBe("000000000000000000000006666f6f626172");
    expect(encodeValue({ kind: "postgres", willInit: true, record: utf8("foobar") }).toHex()).toBe("0000000100000000010000000000000006666f6f626172");
    expect(encodeValue({ kind: "neon", record: { type: "clear-visibility-map-flags", newHeapBlock: 0x11, oldHeapBlock: null, flags: 3 } }).toHex()).toBe(
      "000000010000000101000000110003",
    );
    expect(encodeValue({ kind: "neon", record: { type: "commit-ts-set", xids: [9], timestamp: 2n, originId: 3 } }).toHex()).toBe(
      "00000001000004000000000000000001000000090000000000000002" + "0003",
    );
  });

  test("what is written is read back", () => {
    fc.assert(
      fc.property(value, (original) => {
        const encoded = encodeValue(original);
        expect(decodeValue(encoded)).toEqual(original);
        expect(encodedValueSize(original)).toBe(encoded.length);
      }),
    );
  });

  test("any damage is a typed error or another value, never a hang", () => {
    fc.assert(
      fc.property(value, fc.nat(), fc.nat(7), (original, at, bit) => {
        const encoded = encodeValue(original);
        encoded[at % encoded.length] ^= 1 << bit;
        try {
          decodeValue(encoded);
        } catch (error) {
          expect((error as Error).name).toBe("StrataError");
        }
        expect(() => decodeValue(encoded.subarray(0, at % encoded.length))).toThrow();
      }),
    );
  });
});

describe("neon records", () => {
  const clogKey = slruBlockKey("clog", 0, 0);

  test("a commit sets two bits and appends the timestamp", () => {
    const page = applyNeonRecord(clogKey, { type: "clog-set-committed", xids: [5, 1000], timestamp: 77n }, new Uint8Array(8192), 64);
    expect(page.length).toBe(8200);
    expect(page[1]).toBe(1 << 2);
    expect(page[250]).toBe(1);
    expect(page[8199]).toBe(77);
    const again = applyNeonRecord(clogKey, { type: "clog-set-aborted", xids: [5] }, page, 72);
    expect(again[1]).toBe(2 << 2);
    expect(again).toBe(page);
  });

  test("a record for another page is refused", () => {
    expect(() => applyNeonRecord(clogKey, { type: "clog-set-aborted", xids: [40000] }, new Uint8Array(8192), 64)).toThrow("belongs to page 1 of clog");
  });

  test("commit timestamps", () => {
    const key = slruBlockKey("commit-ts", 1, 0);
    const first = 32 * 819;
    const page = applyNeonRecord(key, { type: "commit-ts-set", xids: [first, first + 818], timestamp: 0x0102n, originId: 7 }, new Uint8Array(8192), 64);
    expect([...page.subarray(0, 12)]).toEqual([2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
    expect([...page.subarray(8180, 8192)]).toEqual([2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
    expect(() => applyNeonRecord(key, { type: "commit-ts-set", xids: [first + 819], timestamp: 1n, originId: 0 }, page, 64)).toThrow("belongs to page 33 of commit-ts");
  });

  test("visibility-map bits", () => {
    const key = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 9, fork: 2 }, 0);
    const page = new Uint8Array(8192).fill(0xff);
    applyNeonRecord(key, { type: "clear-visibility-map-flags", newHeapBlock: 5, oldHeapBlock: 0, flags: 3 }, page, 0x1_0000_0010);
    expect(page[24]).toBe(0xfc);
    expect(page[25]).toBe(0xf3);
    expect([...page.subarray(0, 8)]).toEqual([1, 0, 0, 0, 0x10, 0, 0, 0]);
    applyNeonRecord(key, { type: "truncate-visibility-map", truncByte: 2, truncOffset: 4 }, page, 0x20);
    expect([...page.subarray(24, 28)]).toEqual([0xfc, 0xf3, 0x0f, 0]);
    expect(page[8191]).toBe(0);
  });

  test("multixact members across groups", () => {
    const key = slruBlockKey("multixact-members", 0, 0);
    const members = [1, 2, 3].map((n) => ({ xid: 100 + n, status: n }));
    const page = applyNeonRecord(key, { type: "multixact-members-create", memberOffset: 2, members }, new Uint8Array(8192), 64);
    expect([...page.subarray(0, 4)]).toEqual([0, 0, 1, 2]);
    expect(page[12]).toBe(101);
    expect(page[16]).toBe(102);
    expect(page[20]).toBe(3);
    expect(page[24]).toBe(103);
  });
});
