/** pg_control, relation map and SLRU arithmetic without a server; the files of real servers are in wal/real-wal.pg.test.ts. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StrataError } from "../../src/kit/errors.ts";
import { type ControlFile, decodeControlFile, encodeControlFile } from "../../src/postgres/control-file/control-file.ts";
import { decodeRelationMap, encodeRelationMap } from "../../src/postgres/relation-map/relation-map.ts";
import { CLOG_XACTS_PER_PAGE, clogPageOf, clogStatus, setClogStatus } from "../../src/postgres/slru/clog.ts";
import { COMMIT_TS_XACTS_PER_PAGE, commitTs, setCommitTs } from "../../src/postgres/slru/commit-ts.ts";
import { MULTIXACT_MEMBERS_PER_PAGE, multiXactMember, nextMemberOffset, nextMultiXid, setMultiXactMember } from "../../src/postgres/slru/multixact.ts";
import { parseSlruSegmentName, slruPagePrecedes, slruPlace, slruSegmentName } from "../../src/postgres/slru/segments.ts";
import { VERSION_CONSTANTS } from "../../src/postgres/versions/constants.ts";
import { PG_MAJORS } from "../../src/postgres/versions/major.ts";
import { parseWalSegmentName, walSegmentName } from "../../src/postgres/wal/segment-name.ts";
import { buildStarterSegment } from "../../src/postgres/wal/starter-segment.ts";

const SEED = Number(process.env["STRATA_TEST_SEED"] ?? 20260101);

function controlFileOf(version: (typeof PG_MAJORS)[number]): Uint8Array {
  const checkpoint = {
    redo: 0, timelineId: 1, previousTimelineId: 1, fullPageWrites: true, walLevel: version >= 17 ? 1 : 0, nextFullXid: (3n << 32n) + 800n,
    nextOid: 20000, nextMulti: 5, nextMultiOffset: 9, oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1,
    timeSeconds: 1_700_000_000n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
  };
  const place = { systemId: 0x1234_5678_9abc_def0n, timelineLsn: 0x3_0000_0028, prevLsn: 0x2_ffff_ff00, timelineId: 1, segmentSize: 16 << 20 };
  return buildStarterSegment({ version, ...place, checkpoint, template: { mockAuthenticationNonce: new Uint8Array(32).fill(7) } }).controlFile;
}

describe("pg_control", () => {
  test.each(PG_MAJORS)("of PostgreSQL %d is read as it was written", (version) => {
    const bytes = controlFileOf(version);
    const control: ControlFile = decodeControlFile(bytes);
    expect([control.version, control.checkpointLsn, control.checkpoint.redo, control.state]).toEqual([version, 0x3_0000_0028, 0x3_0000_0028, "shut-down"]);
    expect([control.systemId, control.checkpoint.nextFullXid, control.segmentSize]).toEqual([0x1234_5678_9abc_def0n, (3n << 32n) + 800n, 16 << 20]);
    expect(Buffer.compare(encodeControlFile(control), bytes)).toBe(0);
  });

  test("with any bit flipped is refused", () => {
    const bytes = controlFileOf(18);
    for (let bit = 0; bit < 296 * 8; bit++) {
      const damaged = bytes.slice();
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => decodeControlFile(damaged)).toThrow(StrataError);
    }
  });
});

test("relation maps come back, and damaged ones are refused", () => {
  for (const version of PG_MAJORS) {
    const mappings = Array.from({ length: VERSION_CONSTANTS[version].relationMapCapacity }, (_, i) => ({ catalogOid: 1000 + i, relNumber: 2000 + i }));
    const bytes = encodeRelationMap(mappings, version);
    expect(decodeRelationMap(bytes, version)).toEqual(mappings);
    expect(() => encodeRelationMap([...mappings, { catalogOid: 1, relNumber: 1 }], version)).toThrow(expect.objectContaining({ code: "too-many-mappings" }));
    for (const at of [0, 4, 100, bytes.length - 12]) {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] as number) ^ 0x10;
      expect(() => decodeRelationMap(damaged, version)).toThrow(expect.objectContaining({ code: "bad-relation-map" }));
    }
  }
});

describe("SLRU", () => {
  test("entries are independent of their neighbours", () => {
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 0, max: 3 })), { maxLength: 30 }), (base, writes) => {
        const clog = new Uint8Array(8192);
        const timestamps = new Uint8Array(8192);
        const members = new Uint8Array(8192);
        const expected = new Map<number, number>();
        for (const [offset, status] of writes) {
          const id = (base + offset) >>> 0;
          setClogStatus(clog, id, status);
          setCommitTs(timestamps, id, { timestamp: BigInt(status) << 40n, originId: id & 0xffff });
          setMultiXactMember(members, id, { xid: id, status });
          expected.set(id, status);
        }
        for (const [id, status] of expected) {
          expect(clogStatus(clog, id)).toBe(status);
          expect(commitTs(timestamps, id)).toEqual({ timestamp: BigInt(status) << 40n, originId: id & 0xffff });
          expect(multiXactMember(members, id)).toEqual({ xid: id, status });
        }
      }),
      { seed: SEED, numRuns: 200 },
    );
    expect([CLOG_XACTS_PER_PAGE, COMMIT_TS_XACTS_PER_PAGE, MULTIXACT_MEMBERS_PER_PAGE]).toEqual([32768, 819, 1636]);
  });

  test("ids and pages wrap", () => {
    expect([nextMultiXid(7), nextMultiXid(0xffff_ffff)]).toEqual([8, 1]);
    expect([nextMemberOffset(10, 2), nextMemberOffset(0xffff_fffe, 2), nextMemberOffset(0xffff_ffff, 3)]).toEqual([12, 1, 2]);
    const last = clogPageOf(0xffff_ffff);
    expect([slruPagePrecedes(3, 4, 32768), slruPagePrecedes(4, 3, 32768), slruPagePrecedes(4, 4, 32768)]).toEqual([true, false, false]);
    expect([slruPagePrecedes(last, 0, 32768), slruPagePrecedes(0, last, 32768)]).toEqual([true, false]);
  });

  test("files are named by segment", () => {
    expect([slruPlace(0), slruPlace(33), slruSegmentName(26), slruSegmentName(0x14078)]).toEqual([
      { segment: 0, block: 0 }, { segment: 1, block: 1 }, "001A", "14078",
    ]);
    expect([parseSlruSegmentName("001A"), parseSlruSegmentName("x"), parseSlruSegmentName("001")]).toEqual([26, null, null]);
  });
});

test("WAL segments are named by timeline and position", () => {
  fc.assert(
    fc.property(fc.constantFrom(1, 16, 64, 1024), fc.nat(2 ** 20), fc.integer({ min: 1, max: 0xffff_ffff }), (mib, number, timelineId) => {
      const segmentSize = mib * 1024 * 1024;
      const lsn = number * segmentSize;
      expect(parseWalSegmentName(walSegmentName({ timelineId, lsn: lsn + 4711, segmentSize }), segmentSize)).toEqual({ timelineId, lsn });
    }),
    { seed: SEED, numRuns: 200 },
  );
  expect(walSegmentName({ timelineId: 1, lsn: 0xff_ffff_ff90, segmentSize: 16 << 20 })).toBe("00000001000000FF000000FF");
  expect(parseWalSegmentName("00000001000000FF00000100", 16 << 20)).toBeNull();
  expect(parseWalSegmentName("000000010000000000000001.partial", 16 << 20)).toBeNull();
});
