/** Properties of decoder, finder and generator together: whatever is written comes back, however the stream is cut. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StrataError } from "../../../src/kit/errors.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { type RecordSpec, encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { findEndOfWal, findFirstRecord } from "../../../src/postgres/wal/find-records.ts";
import { WalGenerator, heapInserts, logicalMessages } from "../../../src/postgres/wal/generator.ts";
import { LONG_HEADER_SIZE, SHORT_HEADER_SIZE } from "../../../src/postgres/wal/page-header.ts";
import { WalRecord, copyRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { type RecordPlace, WalWriter } from "../../../src/postgres/wal/wal-writer.ts";

const SEGMENT = 1024 * 1024;
const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20260101);

function check(property: Parameters<typeof fc.assert>[0], numRuns: number): void {
  fc.assert(property, { seed: SEED, numRuns });
}

const version = fc.constantFrom<PgMajor>(14, 15, 16, 17, 18);

/** A record boundary anywhere around the seams of pages and segments. */
const startLsn = fc.tuple(fc.constantFrom(0, 1, 127, 128), fc.integer({ min: 0, max: 1023 })).map(([page, slot]) => {
  const pageLsn = 0x1_0000_0000 + page * 8192;
  const header = pageLsn % SEGMENT === 0 ? LONG_HEADER_SIZE : SHORT_HEADER_SIZE;
  return slot * 8 < header ? pageLsn : pageLsn + slot * 8;
});

const block = fc.record({
  relation: fc.integer({ min: 1, max: 3 }),
  fork: fc.integer({ min: 0, max: 3 }),
  blockNumber: fc.nat(0xffff_ffff),
  willInit: fc.boolean(),
  dataLength: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9000 })),
  hole: fc.option(fc.record({ offset: fc.integer({ min: 1, max: 4000 }), length: fc.integer({ min: 1, max: 4000 }) })),
  image: fc.boolean(),
});

const recordShape = fc.record({
  xid: fc.nat(0xffff_ffff),
  mainLength: fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 0, max: 300 }) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 70_000 }) }),
  origin: fc.option(fc.nat(0xffff), { nil: undefined }),
  toplevelXid: fc.option(fc.nat(0xffff_ffff), { nil: undefined }),
  blocks: fc.array(block, { maxLength: 4 }),
});

type RecordShape = typeof recordShape extends fc.Arbitrary<infer T> ? T : never;

function patterned(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed) & 0xff;
  return bytes;
}

function specOf(pgVersion: PgMajor, shape: RecordShape): RecordSpec {
  return {
    version: pgVersion,
    rmid: RMGR.GENERIC,
    info: 0,
    xid: shape.xid,
    ...(shape.origin === undefined ? {} : { origin: shape.origin }),
    ...(shape.toplevelXid === undefined ? {} : { toplevelXid: shape.toplevelXid }),
    mainData: patterned(shape.mainLength, 7),
    blocks: shape.blocks.map((item, index) => ({
      id: index * 2,
      spcOid: 1663,
      dbOid: 5,
      relNumber: item.relation,
      fork: item.fork,
      blockNumber: item.blockNumber,
      willInit: item.willInit,
      ...(item.dataLength > 0 ? { data: patterned(item.dataLength, index) } : {}),
      ...(item.image ? { image: { page: patterned(8192, 3), holeOffset: item.hole?.offset ?? 0, holeLength: item.hole?.length ?? 0, apply: item.willInit } } : {}),
    })),
  };
}

interface Written {
  readonly bytes: Uint8Array;
  readonly records: readonly (RecordPlace & { readonly bytes: Uint8Array })[];
}

function write(pgVersion: PgMajor, start: number, specs: readonly RecordSpec[]): Written {
  const writer = new WalWriter({ version: pgVersion, segmentSize: SEGMENT, startLsn: start, previousLsn: start - 64, systemId: 7n, timelineId: 1 });
  const records = specs.map((spec) => {
    const bytes = encodeRecord(spec);
    return { ...writer.append(bytes), bytes };
  });
  return { bytes: writer.take(), records };
}

describe("WAL written and read", () => {
  test("every record comes back whole, however the stream is cut", () => {
    const cut = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 41, max: 20_000 }));
    const shapes = fc.array(recordShape, { minLength: 1, maxLength: 12 });
    check(
      fc.property(fc.record({ pgVersion: version, start: startLsn, recordShapes: shapes, cuts: fc.array(cut, { minLength: 1, maxLength: 8 }) }), (input) => {
        const { pgVersion, start, recordShapes, cuts } = input;
        const specs = recordShapes.map((shape) => specOf(pgVersion, shape));
        const written = write(pgVersion, start, specs);
        const decoder = new WalStreamDecoder(start, pgVersion, SEGMENT);
        const record = new WalRecord();
        let seen = 0;
        for (let at = 0, turn = 0; at < written.bytes.length; turn++) {
          const length = cuts[turn % cuts.length] ?? 1;
          decoder.feed(written.bytes.slice(at, at + length), start + at);
          at += length;
          while (decoder.next(record)) {
            compareRecord(record, specs[seen] as RecordSpec, written.records[seen] as Written["records"][number]);
            seen++;
          }
        }
        expect(seen).toBe(specs.length);
        expect(decoder.recordEnd).toBe(start + written.bytes.length);
      }),
      150,
    );
  });

  test("a stream sent again from an earlier byte gives the same records", () => {
    const written = write(17, 0x1_0000_0000, Array.from({ length: 40 }, (_, i) => messageSpec(i * 37)));
    const decoder = new WalStreamDecoder(0x1_0000_0000, 17, SEGMENT);
    const record = new WalRecord();
    let seen = 0;
    for (let at = 0; at < written.bytes.length; at += 500) {
      const from = Math.max(0, at - 300);
      decoder.feed(written.bytes.subarray(from, at + 500), 0x1_0000_0000 + from);
      while (decoder.next(record)) seen++;
    }
    expect(seen).toBe(40);
    expect(() => decoder.feed(written.bytes, decoder.position + 8)).toThrow(expect.objectContaining({ code: "wal-gap" }));
  });

  test("one flipped bit is a typed error, or lies in padding and changes nothing", () => {
    const specs = Array.from({ length: 30 }, (_, i) => messageSpec(i * 61));
    const runs = 400;
    let detected = 0;
    check(
      fc.property(startLsn, fc.nat(), fc.integer({ min: 0, max: 7 }), (start, position, bit) => {
        const written = write(16, start, specs);
        const damaged = written.bytes.slice();
        const at = position % damaged.length;
        damaged[at] = (damaged[at] as number) ^ (1 << bit);
        const decoder = new WalStreamDecoder(start, 16, SEGMENT);
        const record = new WalRecord();
        let seen = 0;
        try {
          decoder.feed(damaged);
          while (decoder.next(record)) {
            expect(copyRecord(record)).toEqual((written.records[seen] as { bytes: Uint8Array }).bytes);
            seen++;
          }
        } catch (error) {
          if (!(error instanceof StrataError)) throw error;
          expect([error.kind, error.code.startsWith("wal-")]).toEqual(["corrupt", true]);
          detected++;
          return;
        }
        // Undetected: padding, page header fields nothing depends on, or a length that now asks for bytes still to come.
        expect(seen === specs.length || decoder.recordEnd < start + damaged.length).toBe(true);
      }),
      runs,
    );
    expect(detected).toBeGreaterThan(runs * 0.9);
  });

  test("random bytes never give a record", () => {
    check(
      fc.property(fc.uint8Array({ minLength: 100, maxLength: 3000 }), (bytes) => {
        const decoder = new WalStreamDecoder(0x1_0000_0100, 17, SEGMENT);
        decoder.feed(bytes);
        try {
          expect(decoder.next(new WalRecord())).toBe(false);
        } catch (error) {
          expect(error).toBeInstanceOf(StrataError);
        }
      }),
      200,
    );
  });
});

describe("finding records", () => {
  const start = 0x1_0000_0000;
  const written = write(17, start, Array.from({ length: 120 }, (_, i) => messageSpec(i % 10 === 0 ? 20_000 : 50 + i * 13)));

  test("the first record at or after any LSN", () => {
    const range = { version: 17 as const, segmentSize: SEGMENT, bytes: written.bytes, lsn: start };
    check(
      fc.property(fc.nat(written.bytes.length - 1), (offset) => {
        const expected = written.records.find((record) => record.lsn >= start + offset)?.lsn ?? null;
        expect(findFirstRecord(range, start + offset)).toBe(expected);
      }),
      300,
    );
  });

  test("the end of valid WAL is the end of the last whole record before the cut", () => {
    check(
      fc.property(fc.nat(written.bytes.length), fc.integer({ min: 0, max: 255 }), (offset, filler) => {
        const torn = written.bytes.slice();
        torn.fill(filler, offset);
        const found = findEndOfWal([torn], { version: 17, segmentSize: SEGMENT, startLsn: start, firstLsn: start });
        const whole = written.records.filter((record) => record.lsn + tornLength(record) <= start + offset);
        const last = whole.at(-1);
        // Filler can equal the bytes it replaces, never fewer records.
        expect(found.lastRecordLsn).toBeGreaterThanOrEqual(last?.lsn ?? 0);
        expect(found.endLsn).toBe(written.records.find((record) => record.lsn === found.lastRecordLsn)?.endLsn ?? start);
        expect(found.endLsn).toBeLessThanOrEqual(start + written.bytes.length);
      }),
      100,
    );
  });

  function tornLength(record: RecordPlace): number {
    return record.endLsn - record.lsn;
  }
});

describe("the generator", () => {
  test("fills pages and segments with the records asked for", () => {
    for (const generator of [logicalMessages(15, { prefix: "load", payloadSizeBytes: 5000 }), heapInserts(15, { tupleSizeBytes: 100, tuplesPerPage: 50 })]) {
      const options = { version: 15 as const, segmentSize: SEGMENT, startLsn: SEGMENT, previousLsn: 0, systemId: 1n, timelineId: 1 };
      const wal = new WalGenerator(generator, options);
      const decoder = new WalStreamDecoder(SEGMENT, 15, SEGMENT);
      const record = new WalRecord();
      let records = 0;
      let end = 0;
      for (let piece = 0; piece < 5; piece++) {
        decoder.feed(wal.generate(300_000));
        while (decoder.next(record)) {
          records++;
          end = record.endLsn;
        }
      }
      expect(end).toBe(wal.position);
      expect(records).toBeGreaterThan(250);
    }
  });
});

function messageSpec(length: number): RecordSpec {
  return { version: 17, rmid: RMGR.LOGICALMSG, info: 0, mainData: patterned(length, 1) };
}

function compareRecord(record: WalRecord, spec: RecordSpec, place: RecordPlace & { bytes: Uint8Array }): void {
  expect([record.lsn, record.endLsn, record.xid, record.rmid]).toEqual([place.lsn, place.endLsn, spec.xid ?? 0, spec.rmid]);
  expect([record.origin, record.toplevelXid]).toEqual([spec.origin ?? 0, spec.toplevelXid ?? 0]);
  expect(Buffer.compare(copyRecord(record), place.bytes)).toBe(0);
  expect(Buffer.compare(slice(record, record.mainDataOffset, record.mainDataLength), spec.mainData ?? new Uint8Array(0))).toBe(0);
  for (const wanted of spec.blocks ?? []) {
    const block = record.blocks[wanted.id] as (typeof record.blocks)[number];
    expect([block.inUse, block.relNumber, block.fork, block.blockNumber, block.willInit]).toEqual([
      true, wanted.relNumber, wanted.fork, wanted.blockNumber, wanted.willInit === true,
    ]);
    expect(Buffer.compare(slice(record, block.dataOffset, block.dataLength), wanted.data ?? new Uint8Array(0))).toBe(0);
    expect([block.hasImage, block.applyImage]).toEqual([wanted.image !== undefined, wanted.image?.apply === true]);
    if (wanted.image !== undefined) expect([block.holeOffset, block.holeLength]).toEqual([wanted.image.holeOffset, wanted.image.holeLength]);
  }
  const used = record.blocks.slice(0, record.blockCount).filter((block) => block.inUse);
  expect(used.length).toBe(spec.blocks?.length ?? 0);
}

function slice(record: WalRecord, offset: number, length: number): Uint8Array {
  return record.bytes.subarray(offset, offset + length);
}
