import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeValue, encodeValue } from "../../src/interpret/value-codec.ts";
import { ValueBatch } from "../../src/interpret/value-batch.ts";
import type { KeyValue, Value } from "../../src/interpret/value.ts";
import type { Key } from "../../src/keyspace/key.ts";

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u8 = fc.integer({ min: 0, max: 0xff });
const key: fc.Arbitrary<Key> = fc.record({ field1: u8, field2: u32, field3: u32, field4: u32, field5: u8, field6: u32 });
const value: fc.Arbitrary<Value> = fc.oneof(
  fc.record({ kind: fc.constant("image" as const), bytes: fc.uint8Array({ maxLength: 9000 }) }),
  fc.record({ kind: fc.constant("postgres" as const), willInit: fc.boolean(), record: fc.uint8Array({ maxLength: 9000 }) }),
  fc.record({ kind: fc.constant("neon" as const), record: fc.record({ type: fc.constant("clog-set-aborted" as const), xids: fc.array(u32, { maxLength: 3 }) }) }),
);
const values: fc.Arbitrary<KeyValue[]> = fc.array(fc.record({ key, lsn: fc.integer({ min: 1, max: 2 ** 52 }), value }), { maxLength: 200 });

function encoded(entries: readonly KeyValue[]): string[] {
  return entries.map((entry) => `${JSON.stringify(entry.key)} ${entry.lsn} ${encodeValue(entry.value).toHex()}`);
}

describe("a batch of values", () => {
  test("gives back what was added, and nothing after it was cleared", () => {
    fc.assert(
      fc.property(values, values, (first, second) => {
        const batch = ValueBatch.of(first);
        expect(encoded(batch.toValues())).toEqual(encoded(first));
        batch.clear();
        for (const entry of second) batch.add(entry.key, entry.lsn, entry.value);
        expect(encoded(batch.toValues())).toEqual(encoded(second));
      }),
      { numRuns: 50 },
    );
  });

  test("changes and removes entries", () => {
    fc.assert(
      fc.property(values, fc.func(fc.boolean()), (entries, goes) => {
        const batch = ValueBatch.of(entries);
        const changed = entries.map((entry, at): KeyValue => (at % 3 === 0 ? { ...entry, value: { kind: "image", bytes: Uint8Array.of(at & 0xff) } } : entry));
        for (let at = 0; at < changed.length; at += 3) batch.setValue(at, changed[at].value);
        const gone = new Set(changed.map((_, at) => at).filter((at) => goes(at)));
        batch.remove(gone);
        expect(encoded(batch.toValues())).toEqual(encoded(changed.filter((_, at) => !gone.has(at))));
      }),
      { numRuns: 50 },
    );
  });

  test("stores a record once for all its pages", () => {
    const batch = new ValueBatch();
    const bytes = Uint8Array.from({ length: 400 }, (_, i) => i & 0xff);
    const offset = batch.appendRecord({ bytes, start: 100, totalLength: 200 }, false);
    const before = batch.byteLength;
    for (const block of [7, 9]) batch.addPage({ spcOid: 1, dbOid: 2, relNumber: 3, fork: 0 }, block, 0x100, offset, false);
    const initOffset = batch.appendRecord({ bytes, start: 100, totalLength: 200 }, true);
    batch.addPage({ spcOid: 1, dbOid: 2, relNumber: 3, fork: 0 }, 11, 0x100, initOffset, true);
    expect(batch.byteLength).toBe(before * 2);
    expect(batch.toValues().map((entry) => [entry.key.field6, entry.value])).toEqual([7, 9, 11].map((block) => [block, { kind: "postgres", willInit: block === 11, record: bytes.slice(100, 300) }]));
    expect(decodeValue(batch.bytes.subarray(offset, before))).toEqual({ kind: "postgres", willInit: false, record: bytes.slice(100, 300) });
  });
});
