import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ChecksumRuns } from "../../../src/postgres/wal/checksum-run.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord, sealRecord } from "../../../src/postgres/wal/encode-record.ts";
import { WalGenerator, logicalMessages } from "../../../src/postgres/wal/generator.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";

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

/** Where the run at `start` of the page ends, the start when it does not hold. */
function endOf(bytes: Uint8Array, start = 0): number {
  return new ChecksumRuns().endOf(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), start, start);
}

const lengths = fc.array(fc.integer({ min: 30, max: 200 }), { minLength: 20, maxLength: 30 });

describe(`checksums of a run of records (seed ${seed})`, () => {
  test("hold for what was written", () => {
    fc.assert(fc.property(lengths, (all) => {
      const { bytes, end } = run(all);
      expect(endOf(bytes)).toBe(end);
      expect(endOf(bytes.subarray(0, end))).toBe(end);
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
      expect(endOf(bytes)).toBe(Buffer.compare(before, bytes) === 0 ? end : 0);
    }), { seed, numRuns: 1000 });
  });

  test("hold whatever the padding is, from a record in the middle on", () => {
    fc.assert(fc.property(lengths, fc.nat(4), (all, first) => {
      const { bytes, view, end, places } = run(all);
      places.forEach((at) => bytes.fill(0xa5, at + view.getInt32(at, true), (at + view.getInt32(at, true) + 7) & ~7));
      expect(endOf(bytes, places[first])).toBe(end);
    }), { seed, numRuns: 200 });
  });

  test("end where a length is none, or beyond the limit", () => {
    const { bytes, view, end, places } = run([900, 0, 900]);
    expect(endOf(bytes.subarray(0, end - 1))).toBe(places[2]);
    for (const length of [0, 23, -1, 8192, 0x7fff_ffff]) {
      view.setInt32(places[2], length, true);
      expect(endOf(bytes)).toBe(places[2]);
    }
    // Too few to be worth it.
    expect(endOf(bytes.subarray(0, 300))).toBe(0);
  });

  const SEGMENT = 1024 * 1024;
  const options = { version: 15 as const, segmentSize: SEGMENT, startLsn: SEGMENT, previousLsn: 0, systemId: 1n, timelineId: 1 };

  test("of many pages are found where each page's records begin, for all pages or none", () => {
    const wal = new WalGenerator(logicalMessages(15, { prefix: "p", payloadSizeBytes: 150 }), options).generate(400_000);
    const view = new DataView(wal.buffer, wal.byteOffset, wal.length);
    const starts: number[] = [];
    for (let page = 0; page + 8192 <= wal.length; page += 8192) {
      const header = (view.getUint16(page + 2, true) & 2) === 0 ? 24 : 40;
      starts.push(page + header + ((view.getInt32(page + 16, true) + 7) & ~7));
    }
    const runs = new ChecksumRuns();
    for (const start of starts) expect(runs.endOf(wal, view, start, start % 8192)).toBeGreaterThan(start + 7000);
    // One look takes in 128 KiB: fifteen pages or sixteen.
    wal[20 * 8192 + 4000] ^= 1;
    runs.clear();
    const held = starts.filter((start) => runs.endOf(wal, view, start, start % 8192) > start);
    const lost = starts.filter((start) => !held.includes(start));
    expect(lost).toContain(starts[20]);
    expect(lost.length).toBeGreaterThanOrEqual(15);
    expect(lost.length).toBeLessThanOrEqual(17);
    // Of a page whose records begin elsewhere than its header says, nothing is known.
    expect(runs.endOf(wal, view, starts[45] + 8, (starts[45] + 8) % 8192)).toBe(starts[45] + 8);
  });

  test("that do not hold are read to the damaged record", () => {
    fc.assert(fc.property(fc.integer({ min: 30, max: 3000 }), fc.nat(), (payloadSizeBytes, flip) => {
      const wal = new WalGenerator(logicalMessages(15, { prefix: "p", payloadSizeBytes }), options).generate(150_000);
      const whole = read(wal);
      const damaged = whole.records[flip % whole.records.length];
      // In the body, a byte that lies on the record's first page.
      const at = damaged.lsn - SEGMENT + 24 + (damaged.lsn % 8192 > 8160 ? 24 + 24 : 0);
      wal[at] ^= 1;
      const found = read(wal);
      expect(found.records).toEqual(whole.records.filter((record) => record.lsn < damaged.lsn));
      expect(found.code).toBe("wal-bad-crc");
    }), { seed, numRuns: 60 });
  });

  function read(wal: Uint8Array): { records: { lsn: number; xid: number }[]; code: string } {
    const decoder = new WalStreamDecoder(SEGMENT, 15, SEGMENT);
    const record = new WalRecord();
    const records = [];
    decoder.feed(wal);
    try {
      while (decoder.next(record)) records.push({ lsn: record.lsn, xid: record.xid });
    } catch (error) {
      return { records, code: (error as { code: string }).code };
    }
    return { records, code: "" };
  }
});
