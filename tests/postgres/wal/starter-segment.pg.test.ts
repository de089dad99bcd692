import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type Lsn, lsnToString, parseLsn } from "../../../src/kit/lsn.ts";
import { decodeControlFile } from "../../../src/postgres/control-file/control-file.ts";
import { skipPageHeader } from "../../../src/postgres/wal/page-header.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { walSegmentName } from "../../../src/postgres/wal/segment-name.ts";
import { type StarterSegment, buildStarterSegment } from "../../../src/postgres/wal/starter-segment.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { STOCK_MAJORS, StockPostgres } from "../../support/stock-postgres.ts";

const MIB = 1024 * 1024;
const BASE = 0x2_0000_0000;

/** Where the starter record goes, by what its 114 bytes meet there. Ascending: one data directory lives through all. */
const PLACES: readonly (readonly [string, Lsn])[] = [
  ["at the start of a page", BASE + 3 * 8192],
  ["first thing behind a page header", BASE + MIB + 4 * 8192 + 24],
  ["in the middle of a page", BASE + MIB + 70 * 8192 + 1048],
  ["crossing a page", BASE + 2 * MIB + 7 * 8192 - 56],
  ["crossing a page within its header", BASE + 3 * MIB + 7 * 8192 - 8],
  ["at the start of a segment", BASE + 4 * MIB],
  ["crossing a segment", BASE + 6 * MIB - 64],
  ["at the end of 32 bits", 0xff_ffff_ff90],
];

for (const major of STOCK_MAJORS) {
  describe(`PostgreSQL ${major} from a starter segment`, () => {
    let server: StockPostgres;
    beforeAll(async () => {
      server = await StockPostgres.create({ major, initdbArgs: ["--wal-segsize=1"], conf: ["autovacuum = off"] });
      await server.start();
      await server.sql()`create table t as select generate_series(1, 100) as a`;
      await server.stop();
    }, 60_000);
    afterAll(async () => server.remove());

    test.each(PLACES)("%s", async (_name, lsn) => {
      const logBefore = server.log.length;
      const starter = installStarter(server, lsn);
      await server.start();
      const log = server.log.slice(logBefore);
      expect(log).toContain("database system was shut down at");
      expect(log).not.toMatch(/recovery|redo|invalid|PANIC|FATAL/);
      const sql = server.sql();
      const [{ before }] = await sql`select count(*)::int as before from t where a <= 100`;
      expect(before).toBe(100);
      await sql`insert into t values (101)`;
      const [{ flushed }] = await sql`select pg_current_wal_flush_lsn()::text as flushed`;
      await server.stop();
      checkNoGap(server, starter, { lsn, flushed: parseLsn(flushed) });
    }, 60_000);
  });
}

/** Replaces all WAL of a stopped server. */
function installStarter(server: StockPostgres, timelineLsn: Lsn): StarterSegment {
  const control = decodeControlFile(server.readDataFile("global/pg_control"));
  expect(control.state).toBe("shut-down");
  const { systemId, segmentSize, checkpoint, version } = control;
  const prevLsn = timelineLsn - 104;
  const starter = buildStarterSegment({ version, systemId, timelineLsn, prevLsn, timelineId: 1, segmentSize, checkpoint, template: control });
  for (const name of server.walSegments()) rmSync(join(server.dataDirectory, "pg_wal", name));
  for (const file of starter.files) {
    const segment = new Uint8Array(segmentSize);
    segment.set(file.bytes);
    server.writeDataFile(`pg_wal/${file.fileName}`, segment);
  }
  server.writeDataFile("global/pg_control", starter.controlFile);
  return starter;
}

/** The stream the safekeepers would have got: the starter's bytes, then the server's own from `endLsn`. */
function checkNoGap(server: StockPostgres, starter: StarterSegment, range: { lsn: Lsn; flushed: Lsn }): void {
  const segmentSize = MIB;
  const decoder = new WalStreamDecoder(range.lsn, server.major, segmentSize);
  const record = new WalRecord();
  decoder.feed(starter.wal, range.lsn);
  expect(decoder.next(record)).toBe(true);
  expect([record.lsn, record.endLsn, record.rmid, record.info, record.totalLength]).toEqual([starter.recordLsn, starter.endLsn, 0, 0, 114]);
  expect(decoder.next(record)).toBe(false);
  let records = 0;
  while (decoder.position < range.flushed) {
    const at = decoder.position;
    const segment = server.readDataFile(`pg_wal/${walSegmentName({ timelineId: 1, lsn: at, segmentSize })}`);
    const offset = at % segmentSize;
    decoder.feed(segment.subarray(offset, Math.min(segmentSize, offset + range.flushed - at)), at);
    while (decoder.next(record)) {
      if (records++ > 0) continue;
      expect(lsnToString(record.lsn)).toBe(lsnToString(skipPageHeader(starter.endLsn, segmentSize)));
      expect(record.prevLsn).toBe(starter.recordLsn);
    }
  }
  expect(records).toBeGreaterThanOrEqual(2);
  expect(decoder.recordEnd).toBe(range.flushed);
}
