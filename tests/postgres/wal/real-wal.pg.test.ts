/**
 * WAL of real servers: every record as pg_walinspect sees it (15 and later), every byte up to the server's own end, and the
 * transaction status, commit timestamp and multixact pages that follow from the effects equal to the server's files.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Lsn, lsnToString, parseLsn } from "../../../src/kit/lsn.ts";
import { decodeControlFile, encodeControlFile } from "../../../src/postgres/control-file/control-file.ts";
import { type WalEffect, decodeEffect } from "../../../src/postgres/effects/effect.ts";
import { restoreImage } from "../../../src/postgres/page/restore-image.ts";
import { decodeRelationMap, encodeRelationMap } from "../../../src/postgres/relation-map/relation-map.ts";
import { SLRU_PAGES_PER_SEGMENT, SLRU_PAGE_SIZE, parseSlruSegmentName } from "../../../src/postgres/slru/segments.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { parseWalSegmentName } from "../../../src/postgres/wal/segment-name.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { SlruReplay, type SlruPages } from "../../support/slru-replay.ts";
import { STOCK_MAJORS, StockPostgres } from "../../support/stock-postgres.ts";

const MIB = 1024 * 1024;
const CONF = [
  "autovacuum = off",
  "wal_level = logical",
  "wal_compression = on",
  "max_prepared_transactions = 4",
  "track_commit_timestamp = on",
  "wal_keep_size = '2GB'",
  "max_wal_size = '4GB'",
];

/** One statement or transaction each; what they are to leave in the log is checked below. */
const WORKLOAD = [
  "create table t (id int primary key, a text)",
  "insert into t select i, md5(i::text) from generate_series(1, 5000) i",
  "vacuum t",
  "update t set a = a || 'x' where id % 10 = 0",
  "delete from t where id % 9 = 0",
  "begin; savepoint a; insert into t values (100001); savepoint b; insert into t values (100002); rollback to b; commit",
  "begin; insert into t values (100003); rollback",
  // One transaction with more subtransactions than a status page has room for, and a commit record of 160 kB.
  "do $$ begin for i in 1..40000 loop begin insert into t values (200000 + i); exception when unique_violation then null; end; end loop; end $$",
  "begin; insert into t values (100004); savepoint s; insert into t values (100005); prepare transaction 'one'",
  "commit prepared 'one'",
  "begin; insert into t values (100006); prepare transaction 'two'",
  "rollback prepared 'two'",
  "create table gone (a int)",
  "insert into gone select generate_series(1, 3000)",
  "delete from gone",
  "vacuum gone",
  "drop table gone",
  "vacuum full pg_class",
  "select pg_logical_emit_message(false, 'neon-file:pg_logical/x', repeat('content', 5000))",
  "select pg_logical_emit_message(true, 'other', 'hello')",
  "select pg_replication_origin_create('origin')",
  "select pg_replication_origin_advance('origin', '0/1234568')",
  "select pg_replication_origin_drop('origin')",
  "create database copied template template0",
  "drop database copied",
  "select pg_create_restore_point('here')",
  "select pg_switch_wal()",
  "insert into t select i, md5(i::text) from generate_series(300001, 303000) i",
  "checkpoint",
];

const EXPECTED_KINDS: readonly WalEffect["kind"][] = [
  "checkpoint-shutdown", "checkpoint-online", "next-oid", "switch", "restore-point", "full-page-images",
  "xact-commit", "xact-abort", "xact-prepare", "smgr-create", "smgr-truncate", "clog-zero-page", "commit-ts-zero-page",
  "multixact-create", "multixact-zero-offsets-page", "multixact-zero-members-page", "relmap-update", "dbase-create-copy", "dbase-drop", "tablespace-create", "tablespace-drop", "standby-locks",
  "running-xacts", "replorigin-set", "replorigin-drop", "aux-file", "logical-message", "clear-visibility-map",
];

for (const major of STOCK_MAJORS) {
  describe(`WAL of PostgreSQL ${major}`, () => {
    let server: StockPostgres;
    let replay: SlruReplay;
    let from: Lsn;
    let inspected: InspectedRecord[] = [];

    beforeAll(async () => {
      server = await StockPostgres.create({ major, initdbArgs: ["--wal-segsize=1"], conf: CONF });
      await server.start();
      await server.stop();
      replay = new SlruReplay(readSlru(server));
      from = decodeControlFile(server.readDataFile("global/pg_control")).checkpointLsn;
      await server.start();
      await runWorkload(server);
      if (major >= 15) inspected = await inspect(server, from);
      await server.stop();
    }, 120_000);
    afterAll(async () => server.remove());

    test("is cut into the server's own records, and its effects make the server's own pages", () => {
      const kinds = new Set<string>();
      const record = new WalRecord();
      let index = 0;
      const page = new Uint8Array(SLRU_PAGE_SIZE);
      const end = forEachRecord(server, { from, record }, () => {
        if (index < inspected.length) compareInspected(record, inspected[index] as InspectedRecord);
        index++;
        for (const block of record.blocks.slice(0, record.blockCount)) if (block.hasImage) restoreImage(record, block, page);
        const effect = decodeEffect(record);
        if (effect === null) return;
        kinds.add(effect.kind);
        replay.apply(effect);
      });
      const control = decodeControlFile(server.readDataFile("global/pg_control"));
      expect(lsnToString(record.lsn)).toBe(lsnToString(control.checkpointLsn));
      expect(lsnToString(end)).toBe(lsnToString(record.endLsn));
      if (major >= 15) expect(inspected.length).toBeGreaterThan(5000);
      expect(index).toBeGreaterThan(inspected.length);
      const expected = major >= 15 ? [...EXPECTED_KINDS, "dbase-create-empty"] : EXPECTED_KINDS;
      expect(expected.filter((kind) => !kinds.has(kind))).toEqual([]);
      compareSlru(replay.pages, readSlru(server));
    }, 60_000);

    test("control file and relation maps are written back to the byte", () => {
      const control = server.readDataFile("global/pg_control");
      expect(Buffer.compare(encodeControlFile(decodeControlFile(control)), control)).toBe(0);
      for (const database of readdirSync(join(server.dataDirectory, "base")).filter((name) => /^\d+$/.test(name))) {
        const map = server.readDataFile(`base/${database}/pg_filenode.map`);
        const mappings = decodeRelationMap(map, major);
        expect(mappings.find((mapping) => mapping.catalogOid === 1259)?.relNumber).toBeGreaterThan(0);
        expect(Buffer.compare(encodeRelationMap(mappings, major), map)).toBe(0);
      }
    });
  });
}

async function runWorkload(server: StockPostgres): Promise<void> {
  const sql = await server.sql().reserve();
  for (const statement of WORKLOAD) for (const part of splitTransaction(statement)) await sql.unsafe(part);
  if (server.major >= 15) await sql.unsafe("create database by_files template template0 strategy file_copy");
  sql.release();
  await makeMultiXacts(server);
  const place = join(server.directory, "data", "tablespace-place");
  mkdirSync(place, { mode: 0o777 });
  Bun.spawnSync(["chmod", "0777", place]);
  Bun.spawnSync(["chown", "65534:65534", place]);
  const again = server.sql();
  await again.unsafe(`create tablespace elsewhere location '${place}'`);
  await again.unsafe("create table there (a int) tablespace elsewhere");
  await again.unsafe("drop table there");
  await again.unsafe("drop tablespace elsewhere");
}

function splitTransaction(statement: string): string[] {
  return statement.startsWith("begin;") ? statement.split("; ") : [statement];
}

/**
 * 2100 multixacts, so that their offsets need a second page: each of another subtransaction and the one transaction that locked
 * all rows before.
 */
async function makeMultiXacts(server: StockPostgres): Promise<void> {
  const sql = server.sql();
  await sql.unsafe("create table m as select generate_series(1, 2100) as id");
  await sql.unsafe("create index on m (id)");
  await sql.begin(async (first) => {
    await first.unsafe("select count(*) from (select * from m for key share) s");
    await sql.begin(async (second) => {
      await second.unsafe(`do $$ begin for i in 1..2100 loop
        begin perform 1 from m where id = i for share; exception when unique_violation then null; end;
      end loop; end $$`);
    });
  });
}

interface InspectedRecord {
  readonly start: string;
  readonly end: string;
  readonly prev: string;
  readonly xid: string;
  readonly length: number;
  readonly mainLength: number;
  readonly imageLength: number;
}

async function inspect(server: StockPostgres, from: Lsn): Promise<InspectedRecord[]> {
  const sql = server.sql();
  await sql.unsafe("create extension pg_walinspect");
  const rows = await sql.unsafe(`select start_lsn::text as start, end_lsn::text as end, prev_lsn::text as prev, xid::text as xid,
    record_length as length, main_data_length as "mainLength", fpi_length as "imageLength"
    from pg_get_wal_records_info('${lsnToString(from)}', pg_current_wal_flush_lsn())`);
  return rows as unknown as InspectedRecord[];
}

function compareInspected(record: WalRecord, row: InspectedRecord): void {
  let imageLength = 0;
  for (const block of record.blocks.slice(0, record.blockCount)) imageLength += block.imageLength;
  const ours = [lsnToString(record.lsn), lsnToString(record.prevLsn), String(record.xid), record.totalLength, record.mainDataLength, imageLength];
  const theirs = [row.start, row.prev, row.xid, row.length, row.mainLength, row.imageLength];
  // Not `expect` for each of many thousand records: it is slow.
  if (ours.join() !== theirs.join() || record.endLsn !== parseLsn(row.end)) expect([...ours, lsnToString(record.endLsn)]).toEqual([...theirs, row.end]);
}

/** Reads from the record at `from` to the end of valid WAL; returns where that is. */
function forEachRecord(server: StockPostgres, reading: { from: Lsn; record: WalRecord }, visit: () => void): Lsn {
  const { from, record } = reading;
  const decoder = new WalStreamDecoder(from, server.major, MIB);
  try {
    for (const name of server.walSegments()) {
      const lsn = parseWalSegmentName(name, MIB)?.lsn as Lsn;
      if (lsn + MIB <= from) continue;
      decoder.feed(server.readDataFile(`pg_wal/${name}`), lsn);
      while (decoder.next(record)) visit();
    }
  } catch (error) {
    expect(error).toMatchObject({ kind: "corrupt", code: expect.stringMatching(/^wal-bad-(record|page-header|prev-link)$/) });
  }
  return decoder.recordEnd;
}

function readSlru(server: StockPostgres): SlruPages {
  const read = (directory: string): Map<number, Uint8Array> => {
    const pages = new Map<number, Uint8Array>();
    const whole = join(server.dataDirectory, directory);
    for (const name of existsSync(whole) ? readdirSync(whole) : []) {
      const segment = parseSlruSegmentName(name);
      if (segment === null) continue;
      const bytes = server.readDataFile(`${directory}/${name}`);
      for (let at = 0; at < bytes.length; at += SLRU_PAGE_SIZE) {
        pages.set(segment * SLRU_PAGES_PER_SEGMENT + at / SLRU_PAGE_SIZE, bytes.slice(at, at + SLRU_PAGE_SIZE));
      }
    }
    return pages;
  };
  return { clog: read("pg_xact"), commitTs: read("pg_commit_ts"), offsets: read("pg_multixact/offsets"), members: read("pg_multixact/members") };
}

function compareSlru(ours: SlruPages, theirs: SlruPages): void {
  for (const kind of ["clog", "commitTs", "offsets", "members"] as const) {
    expect([kind, ...[...ours[kind].keys()].sort()]).toEqual([kind, ...[...theirs[kind].keys()].sort()]);
    for (const [page, bytes] of theirs[kind]) {
      const difference = firstDifference(ours[kind].get(page) as Uint8Array, bytes);
      expect({ kind, page, difference }).toEqual({ kind, page, difference: -1 });
    }
  }
  expect(theirs.clog.size).toBeGreaterThan(1);
  expect(theirs.offsets.size).toBeGreaterThan(1);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

