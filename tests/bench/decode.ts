/**
 * `bun run bench decode [--mb N] [--rounds N] [--waldump PATH]`: records/s and MB/s of the WAL decoder, checksums verified, beside
 * `pg_waldump --stats` on the same WAL of a real PostgreSQL 15 in the same run, both from the page cache, interleaved: best and
 * median round of each, and the median of its processor time, which other load on the machine disturbs less (ours with the
 * compiler's and collector's threads, theirs with the start of the process). Last line, of the best rounds:
 * `decode: N records/s, M MB/s, R x pg_waldump`; the line before it has the ratio of the medians of processor time.
 */
import { existsSync, openSync, readSync, closeSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Lsn, lsnToString } from "../../src/kit/lsn.ts";
import { decodeControlFile } from "../../src/postgres/control-file/control-file.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";
import { walSegmentName } from "../../src/postgres/wal/segment-name.ts";
import { WalStreamDecoder } from "../../src/postgres/wal/stream-decoder.ts";
import { StockPostgres } from "../support/stock-postgres.ts";

const SEGMENT = 16 * 1024 * 1024;
/** As large as the pieces a WAL sender sends. */
const PIECE = 128 * 1024;
const WALDUMP_PLACES = ["/usr/lib/postgresql/15/bin/pg_waldump", "/usr/pgsql-15/bin/pg_waldump"];

interface WalOnDisk {
  readonly server: StockPostgres;
  readonly from: Lsn;
  readonly to: Lsn;
}

interface Run {
  readonly records: number;
  readonly seconds: number;
  /** Of all threads. */
  readonly cpuSeconds: number;
}

/** A mix of what a small write load leaves: inserts, updates, deletes, index entries, commits, some page images. */
async function makeWal(sizeBytes: number): Promise<WalOnDisk> {
  const conf = ["autovacuum = off", "wal_keep_size = '8GB'", "max_wal_size = '8GB'", "synchronous_commit = off", "checkpoint_timeout = '1h'"];
  const server = await StockPostgres.create({ major: 15, conf });
  await server.start();
  const sql = server.sql();
  await sql.unsafe("create table t (id int primary key, a text, b int)");
  await sql.unsafe("create index on t (b)");
  await sql.unsafe("checkpoint");
  const from = decodeControlFile(server.readDataFile("global/pg_control")).checkpointLsn;
  const written = async (): Promise<number> => {
    const [row] = await sql.unsafe("select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), $1)::float8 as size", [lsnToString(from)]);
    return row?.["size"];
  };
  for (let round = 0; round < 1000 && (await written()) < sizeBytes; round++) {
    const first = round * 20_000;
    await sql.unsafe(`insert into t select i, md5(i::text), i % 1000 from generate_series(${first + 1}, ${first + 20_000}) i`);
    await sql.unsafe(`update t set b = b + 1 where id > ${first} and id % 3 = 0`);
    await sql.unsafe(`delete from t where id > ${first} and id % 11 = 0`);
    await sql.unsafe(`do $$ begin for i in 1..2000 loop update t set a = a || 'x' where id = ${first} + i; commit; end loop; end $$`);
  }
  await server.stop();
  return { server, from, to: decodeControlFile(server.readDataFile("global/pg_control")).checkpointLsn };
}

/** Reads the files piece by piece into one buffer, as a reader would, and decodes everything. */
function decodeAll(wal: WalOnDisk): Run {
  const buffer = new Uint8Array(PIECE);
  const record = new WalRecord();
  const start = performance.now();
  const startCpu = process.cpuUsage();
  const decoder = new WalStreamDecoder(wal.from, 15, SEGMENT);
  let records = 0;
  for (let segment = wal.from - (wal.from % SEGMENT); segment < wal.to; segment += SEGMENT) {
    const file = openSync(join(wal.server.dataDirectory, "pg_wal", walSegmentName({ timelineId: 1, lsn: segment, segmentSize: SEGMENT })), "r");
    for (let at = Math.max(0, wal.from - segment); at < SEGMENT && segment + at < wal.to; ) {
      const wanted = Math.min(PIECE, SEGMENT - at, wal.to - segment - at);
      const length = readSync(file, buffer, 0, wanted, at);
      if (length !== wanted) throw new Error(`short read of ${length} bytes at ${lsnToString(segment + at)}`);
      decoder.feed(length === PIECE ? buffer : buffer.subarray(0, length), segment + at);
      while (decoder.next(record)) records++;
      at += length;
    }
    closeSync(file);
  }
  if (decoder.recordEnd !== wal.to) throw new Error(`decoding ended at ${lsnToString(decoder.recordEnd)}, not ${lsnToString(wal.to)}`);
  const { user, system } = process.cpuUsage(startCpu);
  return { records, seconds: (performance.now() - start) / 1000, cpuSeconds: (user + system) / 1e6 };
}

async function waldump(binary: string, wal: WalOnDisk): Promise<Run> {
  const args = ["--stats", "-p", join(wal.server.dataDirectory, "pg_wal"), "-s", lsnToString(wal.from), "-e", lsnToString(wal.to)];
  const start = performance.now();
  const child = Bun.spawn([binary, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  const seconds = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`pg_waldump ended with ${code}: ${errors}`);
  return { records: Number(/^Total\s+(\d+)/m.exec(output)?.[1] ?? 0), seconds, cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1e6 };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Prints what the rounds say, and returns the best. */
function report(name: string, runs: readonly Run[], sizeBytes: number): Run {
  const best = runs.reduce((a, b) => (b.seconds < a.seconds ? b : a));
  const perSecond = Math.round(best.records / best.seconds).toLocaleString("en");
  const ms = (seconds: number): string => `${(seconds * 1000).toFixed(0)} ms`;
  const medians = `median ${ms(median(runs.map((run) => run.seconds)))}, of processor time ${ms(median(runs.map((run) => run.cpuSeconds)))}`;
  console.log(`${name.padEnd(20)} ${best.records} records in ${ms(best.seconds)}: ${perSecond} records/s, ${(sizeBytes / best.seconds / 1e6).toFixed(0)} MB/s; ${medians}`);
  return best;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ args: process.argv.slice(2), options: { mb: { type: "string", default: "100" }, rounds: { type: "string", default: "15" }, waldump: { type: "string" } } });
  const binary = values.waldump ?? WALDUMP_PLACES.find((place) => existsSync(place));
  const wal = await makeWal(Number(values.mb) * 1e6);
  try {
    const sizeBytes = wal.to - wal.from;
    const ours: Run[] = [];
    const theirs: Run[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      ours.push(decodeAll(wal));
      if (binary !== undefined) theirs.push(await waldump(binary, wal));
    }
    const decoded = report("decoder", ours, sizeBytes);
    let ratio = "? (pg_waldump 15 is not installed)";
    if (theirs.length > 0) {
      const dumped = report("pg_waldump --stats", theirs, sizeBytes);
      if (dumped.records !== decoded.records) throw new Error(`pg_waldump counts ${dumped.records} records`);
      ratio = (dumped.seconds / decoded.seconds).toFixed(2);
      const cpuRatio = median(theirs.map((run) => run.cpuSeconds)) / median(ours.map((run) => run.cpuSeconds));
      console.log(`of processor time, medians: ${cpuRatio.toFixed(2)} x pg_waldump`);
    }
    const perSecond = Math.round(decoded.records / decoded.seconds);
    console.log(`decode: ${perSecond} records/s, ${(sizeBytes / decoded.seconds / 1e6).toFixed(0)} MB/s, ${ratio} x pg_waldump`);
  } finally {
    await wal.server.remove();
  }
}

await main();
