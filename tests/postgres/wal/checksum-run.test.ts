import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkRun } from "../../../src/postgres/wal/checksum-run.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord, sealRecord } from "../../../src/postgres/wal/encode-record.ts";

const seed = Math.floor(Math.random() * 1e6);

/** Records of these body lengths one after the other, padded to 8, with a page's worth of room behind them. */
function run(lengths: readonly number[]): { bytes: Uint8Array; view: DataView; end: number; places: number[] } {
  const bytes = new Uint8Array(8192);
  const places: number[] = [];
  let at = 0;
  lengths.forEach((length, index) => {
    const mainData = Uint8Array.from({ length }, (_, i) => (i * 31 + index * 7) & 0xff);
    const record = encodeRecord({ version: 17, rmid: RMGR.LOGICALMSG, info: 0, xid: index, mainData });
    sealRecord(record, at + 1);
    bytes.set(record, at);
    places.push(at);
    at += (record.length + 7) & ~7;
  });
  return { bytes, view: new DataView(bytes.buffer), end: at, places };
}

const lengths = fc.array(fc.integer({ min: 30, max: 200 }), { minLength: 20, maxLength: 30 });

describe(`checksums of a run of records (seed ${seed})`, () => {
  test("hold for what was written", () => {
    fc.assert(fc.property(lengths, (all) => {
      const { bytes, view, end } = run(all);
      expect(checkRun(bytes, view, 0, 8192)).toBe(end);
      expect(checkRun(bytes, view, 0, end)).toBe(end);
    }), { seed, numRuns: 200 });
  });

  test("never hold when bits of one record are wrong, its header and checksum included", () => {
    fc.assert(fc.property(lengths, fc.nat(), fc.array(fc.nat(), { minLength: 1, maxLength: 4 }), (all, which, flips) => {
      const { bytes, view, end, places } = run(all);
      const at = places[which % places.length];
      const before = bytes.slice();
      // The length is what the run is made of, and the padding belongs to no record.
      for (const flip of flips) {
        const bit = 32 + (flip % (8 * (view.getInt32(at, true) - 4)));
        bytes[at + (bit >> 3)] ^= 1 << (bit & 7);
      }
      expect(checkRun(bytes, view, 0, 8192)).toBe(Buffer.compare(before, bytes) === 0 ? end : ~end);
    }), { seed, numRuns: 1000 });
  });

  test("hold whatever the padding is, from a record in the middle on", () => {
    fc.assert(fc.property(lengths, fc.nat(4), (all, first) => {
      const { bytes, view, end, places } = run(all);
      places.forEach((at) => bytes.fill(0xa5, at + view.getInt32(at, true), (at + view.getInt32(at, true) + 7) & ~7));
      expect(checkRun(bytes, view, places[first], 8192)).toBe(end);
    }), { seed, numRuns: 200 });
  });

  test("end where a length is none, or beyond the limit", () => {
    const { bytes, view, end, places } = run([900, 0, 900]);
    expect(checkRun(bytes, view, 0, end - 1)).toBe(places[2]);
    for (const length of [0, 23, -1, 8192, 0x7fff_ffff]) {
      view.setInt32(places[2], length, true);
      expect(checkRun(bytes, view, 0, 8192)).toBe(places[2]);
    }
    expect(checkRun(bytes, view, 0, 300)).toBe(~300);
  });
});
