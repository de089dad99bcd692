/**
 * A bucket with a timeline made of real WAL: a table of PostgreSQL 17 in image layers, and above them one L0 delta layer for each of
 * many rounds, in which every page of the table changed (an update of a row or two on each).
 */
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import { type Lsn, parseLsn } from "../../../src/kit/lsn.ts";
import { compareKeys, type Key, type KeyRange, nextKey } from "../../../src/keyspace/key.ts";
import type { RelTag } from "../../../src/keyspace/relation.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { keySpaceAt } from "../../../src/pageserver/datadir/keyspace-at.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir } from "../../../src/pageserver/import/import-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { type StorageFixture, storageFixture } from "../../pageserver/timeline/storage-fixture.ts";
import { StockPostgres } from "../../support/stock-postgres.ts";

const MAJOR = 17;
const SEGMENT = 16 * 1024 * 1024;
const TIMELINE = "de".repeat(16);
const CONF = ["autovacuum = off", "checkpoint_timeout = 1h", "max_wal_size = 8GB", "wal_keep_size = 8GB", "full_page_writes = off"];

export interface DeltaStack {
  /** Local directory of the bucket. */
  readonly bucket: string;
  readonly timelineId: string;
  readonly rel: RelTag;
  readonly pages: number;
  /** After each round, in order. */
  readonly lsns: readonly Lsn[];
  remove(): Promise<void>;
}

/** What the server did: where the rounds end, and its log. */
interface Rounds {
  readonly rel: RelTag;
  readonly pages: number;
  readonly lsns: readonly Lsn[];
  readonly segments: readonly { readonly lsn: Lsn; readonly content: Uint8Array }[];
}

/** What a round is to change on every page. */
interface Workload {
  readonly create: readonly string[];
  readonly update: (round: number) => string;
}

/**
 * - `updates`: few rows on a page and much room, as in the peer's own benchmark of such stacks (make_l0_stack): one record of a
 *   page in each layer.
 * - `updates-and-pruning`: half a page of rows, so that from the second round on each page is pruned, too: two records.
 */
export type DeltaWorkload = "updates" | "updates-and-pruning";

function workloadOf(name: DeltaWorkload, pages: number): Workload {
  if (name === "updates") {
    return {
      create: [
        "CREATE TABLE t (i bigint, v char(92)) WITH (fillfactor = 10)",
        `INSERT INTO t SELECT i, 'row' || i FROM generate_series(1, ${pages * 6}) i`,
        "ALTER TABLE t SET (fillfactor = 100)",
      ],
      update: (round) => `UPDATE t SET v = v || ',u' WHERE i % 6 = ${round % 6}`,
    };
  }
  return {
    create: ["CREATE TABLE t (i int, v text) WITH (fillfactor = 50)", `INSERT INTO t SELECT i, md5(i::text) || md5((-i)::text) FROM generate_series(1, ${pages * 40}) i`],
    update: (round) => `UPDATE t SET v = md5(v) || md5(i::text) WHERE (ctid::text::point)[1] = ${round}`,
  };
}

async function makeBase(workload: Workload): Promise<StockPostgres> {
  const base = await StockPostgres.create({ major: MAJOR, conf: CONF });
  await base.start();
  const sql = base.sql();
  for (const statement of workload.create) await sql.unsafe(statement);
  await sql.unsafe("VACUUM FREEZE t");
  await base.stop();
  return base;
}

async function makeRounds(base: StockPostgres, workload: Workload, rounds: number): Promise<Rounds> {
  const run = base.copy();
  try {
    await run.start();
    const sql = run.sql();
    const one = async (text: string): Promise<string> => String((await sql.unsafe(text))[0]?.["v"]);
    const lsns: Lsn[] = [];
    for (let round = 1; round <= rounds; round++) {
      await sql.unsafe(workload.update(round));
      lsns.push(parseLsn(await one("SELECT pg_current_wal_insert_lsn()::text AS v")));
    }
    const relNumber = Number(await one("SELECT pg_relation_filenode('t')::int AS v"));
    const pages = Number(await one("SELECT count(DISTINCT (ctid::text::point)[0])::int AS v FROM t"));
    const dbOid = Number(await one("SELECT oid::int AS v FROM pg_database WHERE datname = current_database()"));
    await sql.unsafe("SELECT pg_switch_wal()");
    await run.stop("immediate");
    const segments = run.walSegments().map((name) => ({ lsn: Number.parseInt(name.slice(16), 16) * SEGMENT + Number.parseInt(name.slice(8, 16), 16) * 2 ** 32, content: run.readDataFile(`pg_wal/${name}`) }));
    return { rel: { spcOid: 1663, dbOid, relNumber, fork: 0 }, pages, lsns, segments };
  } finally {
    await run.remove();
  }
}

function keysOf({ start, end }: KeyRange): Key[] {
  const keys: Key[] = [];
  for (let key = start; compareKeys(key, end) < 0; key = nextKey(key)) keys.push(key);
  return keys;
}

async function ingestRounds(fixture: StorageFixture, base: StockPostgres, { lsns, segments }: Rounds): Promise<void> {
  const files = new RealFiles();
  const manager = await fixture.attach(1);
  const { endLsn: from } = await inspectDatadir(files, base.dataDirectory);
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: from, pgVersion: MAJOR });
  const datadir = new TimelineDatadir(timeline, { version: MAJOR, shard: UNSHARDED_IDENTITY });
  await importDatadir(new DatadirModification(datadir), files, base.dataDirectory);
  await timeline.freezeAndFlush();
  const { dense } = await keySpaceAt(datadir.at(timeline.lastRecordLsn, { task: "bench" }), true);
  const keys = dense.ranges.flatMap(keysOf);
  fixture.liveKeys = () => keys;
  await manager.maintenanceOf(TIMELINE).compact({ forceImages: true });
  const ingest = await WalIngest.start(datadir);
  const decoder = new WalStreamDecoder(from, MAJOR, SEGMENT);
  const record = new WalRecord();
  let round = 0;
  for (const { lsn, content } of segments) {
    if (round === lsns.length || lsn + SEGMENT <= decoder.position) continue;
    const skip = Math.max(0, decoder.position - lsn);
    decoder.feed(content.subarray(skip), lsn + skip);
    while (round < lsns.length && decoder.next(record)) {
      await ingest.ingest(interpretRecord(record, datadir.shard));
      if (record.endLsn < lsns[round]) continue;
      await ingest.commit();
      await timeline.freezeAndFlush();
      round++;
    }
  }
  await timeline.waitUploaded();
  await manager.shutdown({ flush: false });
}

/** @param rounds delta layers; @param pages of the table, about */
export async function makeDeltaStack(options: { readonly rounds: number; readonly pages: number; readonly workload: DeltaWorkload }): Promise<DeltaStack> {
  const fixture = await storageFixture({ cacheBytes: 64 * 1024 * 1024 });
  try {
    const workload = workloadOf(options.workload, options.pages);
    const base = await makeBase(workload);
    try {
      const rounds = await makeRounds(base, workload, options.rounds);
      await ingestRounds(fixture, base, rounds);
      return { ...rounds, bucket: fixture.directory.replace(/local$/, "bucket"), timelineId: TIMELINE, remove: () => fixture.close() };
    } finally {
      await base.remove();
    }
  } catch (error) {
    await fixture.close();
    throw error;
  }
}
