/**
 * Ingest of a pgbench run's WAL: decoded, interpreted and put into a timeline, beside PostgreSQL 15's own replay of the same
 * WAL from the same base, on the same machine, in turns.
 *
 *   bun run bench ingest [--rounds 3] [--transactions 8000] [--scale 5] [--fpw on|off] [--checkpoint-distance 32] [--path raw|interpreted]
 *
 * Timed for ours: until the last record is readable ("queryable", as in PostgreSQL's replay), with layers flushed on a thread
 * meanwhile as they fill; and until all is in layers, synced, and in the bucket ("durable"), which PostgreSQL's replay does not do.
 * PostgreSQL's times are those it logs itself ("redo done at …"); it keeps pages in 512 MB of shared buffers and syncs nothing.
 * On a shared machine the clock tells less than processor time, so both are printed; ours counts all threads, the compiler's and
 * the collector's too. Before the rounds ours takes the WAL once, so that it is compiled, as in a server that runs.
 *
 * Last line: `ingest: N records/s, M MB/s (R× PostgreSQL; C× by processor time), W bytes written per WAL byte`.
 */
import { existsSync, readFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { interpretRecord } from "../../src/interpret/interpret-record.ts";
import { UNSHARDED_IDENTITY } from "../../src/keyspace/shard.ts";
import { isStrataError } from "../../src/kit/errors.ts";
import type { Lsn } from "../../src/kit/lsn.ts";
import { DatadirModification } from "../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir } from "../../src/pageserver/import/import-datadir.ts";
import { JobsOnThreads } from "../../src/pageserver/layer-jobs/layer-jobs.ts";
import { LayerMemory } from "../../src/pageserver/layers/layer-memory.ts";
import { WalIngest } from "../../src/pageserver/ingest/wal-ingest.ts";
import type { Timeline } from "../../src/pageserver/timeline/timeline.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { RealJobThreads } from "../../src/platform/real/job-threads.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../src/postgres/wal/stream-decoder.ts";
import { storageFixture } from "../pageserver/timeline/storage-fixture.ts";
import { WORKER_URLS } from "../../src/worker-urls.ts";
import { StockPostgres } from "../support/stock-postgres.ts";

const MAJOR = 15;
const SEGMENT = 16 * 1024 * 1024;
/** As much as a safekeeper sends at once. */
const CHUNK_BYTES = 128 * 1024;
const PGBENCH = "/usr/lib/postgresql/15/bin/pgbench";
const CLIENTS = 4;
const CONF = ["autovacuum = off", "checkpoint_timeout = 1h", "max_wal_size = 8GB", "wal_keep_size = 8GB", "shared_buffers = 512MB"];

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    transactions: { type: "string", default: "8000" },
    scale: { type: "string", default: "5" },
    fpw: { type: "string", default: "on" },
    "checkpoint-distance": { type: "string", default: "32" },
    path: { type: "string", default: "raw" },
  },
});
const MIB = 1024 * 1024;

interface Material {
  /** The stopped server before the run. */
  readonly base: StockPostgres;
  readonly segments: readonly { readonly name: string; readonly content: Uint8Array }[];
}

/** Seconds by the clock and of processor time. */
interface Times {
  readonly elapsed: number;
  readonly processor: number;
}

interface Measured {
  readonly queryable: Times;
  readonly durable: Times;
  readonly walBytes: number;
  readonly records: number;
  readonly layerBytes: number;
  readonly writtenBytes: number;
}

async function pgbench(server: StockPostgres, ...options: string[]): Promise<void> {
  const child = Bun.spawn([PGBENCH, "-h", server.directory, "-U", "postgres", ...options, "postgres"], { stdout: "ignore", stderr: "pipe" });
  const [errors, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`pgbench ended with ${code}: ${errors}`);
}

/** A base, and the WAL of a pgbench run on a copy of it. */
async function generate(): Promise<Material> {
  const base = await StockPostgres.create({ major: MAJOR, conf: [...CONF, `full_page_writes = ${args.fpw}`] });
  await base.start();
  await pgbench(base, "-i", "-q", "-s", args.scale);
  await base.stop();
  const run = base.copy();
  try {
    await run.start();
    await pgbench(run, "-n", "-M", "prepared", "-c", String(CLIENTS), "-j", "2", "-t", args.transactions);
    await run.stop("immediate");
    return { base, segments: run.walSegments().map((name) => ({ name, content: run.readDataFile(`pg_wal/${name}`) })) };
  } finally {
    await run.remove();
  }
}

/** PostgreSQL's replay, by its own log. */
async function replay({ base, segments }: Material): Promise<Times> {
  const server = base.copy();
  try {
    for (const { name, content } of segments) server.writeDataFile(`pg_wal/${name}`, content);
    server.writeDataFile("recovery.signal", new Uint8Array(0));
    // Everything is in pg_wal already: nothing is to be fetched.
    server.configure(["restore_command = 'false'", "hot_standby = off"]);
    await server.start();
    for (let tries = 0; tries < 1200; tries++) {
      const told = /redo done at .*user: ([\d.]+) s, system: ([\d.]+) s, elapsed: ([\d.]+) s/.exec(server.log);
      if (told !== null) return { processor: Number(told[1]) + Number(told[2]), elapsed: Number(told[3]) };
      await Bun.sleep(50);
    }
    throw new Error(`PostgreSQL did not end its replay: ${server.log.slice(-2000)}`);
  } finally {
    await server.remove();
  }
}

/** Bytes this process has handed to write(2), temporary files and uploads included. */
function bytesWritten(): number {
  const path = "/proc/self/io";
  return existsSync(path) ? Number(/wchar: (\d+)/.exec(readFileSync(path, "utf8"))?.[1]) : Number.NaN;
}

async function feed(ingest: WalIngest, datadir: TimelineDatadir, wal: { from: Lsn; segments: Material["segments"] }): Promise<{ records: number; endLsn: Lsn }> {
  const decoder = new WalStreamDecoder(wal.from, MAJOR, SEGMENT);
  const record = new WalRecord();
  let records = 0;
  let endLsn = wal.from;
  try {
    for (const { name, content } of wal.segments) {
      const segmentLsn = Number.parseInt(name.slice(16), 16) * SEGMENT + Number.parseInt(name.slice(8, 16), 16) * 2 ** 32;
      if (segmentLsn + SEGMENT <= decoder.position) continue;
      for (let at = Math.max(0, decoder.position - segmentLsn); at < SEGMENT; at += CHUNK_BYTES) {
        decoder.feed(content.subarray(at, Math.min(SEGMENT, at + CHUNK_BYTES)), segmentLsn + at);
        while (decoder.next(record)) {
          endLsn = record.endLsn;
          records++;
          const wait = args.path === "raw" ? ingest.ingestRecord(record) : ingest.ingest(interpretRecord(record, datadir.shard));
          if (wait !== undefined) await wait;
        }
        await ingest.commit();
        // As the receiver does: others have their turn, and so do the flushes that threads have done.
        await Bun.sleep(0);
      }
    }
  } catch (error) {
    // The unused rest of the last segment is no WAL.
    if (!isStrataError(error) || !error.code.startsWith("wal-")) throw error;
  }
  await ingest.commit();
  return { records, endLsn };
}

function layerBytes(timeline: Timeline): number {
  return [...timeline.stack.map.layers()].reduce((sum, layer) => sum + layer.metadata.sizeBytes, 0);
}

function timer(): () => Times {
  const [startMs, start] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(start);
    return { elapsed: (performance.now() - startMs) / 1000, processor: (user + system) / 1e6 };
  };
}

async function ours({ base, segments }: Material, threads: RealJobThreads): Promise<Measured> {
  const fixture = await storageFixture({ cacheBytes: 64 * MIB });
  fixture.config = { ...fixture.config, checkpointDistanceBytes: Number(args["checkpoint-distance"]) * MIB };
  fixture.layerMemory = new LayerMemory(256 * MIB);
  fixture.jobRunner = new JobsOnThreads(threads);
  try {
    const files = new RealFiles();
    const manager = await fixture.attach(1);
    const { endLsn: from } = await inspectDatadir(files, base.dataDirectory);
    const timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: from, pgVersion: MAJOR });
    const datadir = new TimelineDatadir(timeline, { version: MAJOR, shard: UNSHARDED_IDENTITY });
    await importDatadir(new DatadirModification(datadir), files, base.dataDirectory);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const ingest = await WalIngest.start(datadir);
    Bun.gc(true);
    const [layersBefore, writtenBefore, times] = [layerBytes(timeline), bytesWritten(), timer()];
    const { records, endLsn } = await feed(ingest, datadir, { from, segments });
    const queryable = times();
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const result = { queryable, durable: times(), walBytes: endLsn - from, records, layerBytes: layerBytes(timeline) - layersBefore, writtenBytes: bytesWritten() - writtenBefore };
    await manager.shutdown({ flush: false });
    return result;
  } finally {
    await fixture.close();
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function report(runs: readonly Measured[], theirs: readonly Times[]): void {
  const { walBytes, records, layerBytes: layers, writtenBytes } = runs[0];
  const megabytes = walBytes / 1e6;
  console.log(`${records} records, ${megabytes.toFixed(1)} MB of WAL (pgbench, scale ${args.scale}, full_page_writes ${args.fpw}), ${cpus().length} cores, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  const line = (name: string, times: readonly Times[]): { elapsed: number; processor: number } => {
    const [elapsed, processor] = [median(times.map((one) => one.elapsed)), median(times.map((one) => one.processor))];
    const all = (of: (one: Times) => number): string => times.map((one) => of(one).toFixed(2)).join(" ");
    console.log(`${name.padEnd(18)} ${(records / elapsed).toFixed(0).padStart(8)} records/s ${(megabytes / elapsed).toFixed(1).padStart(7)} MB/s, ${((processor / records) * 1e6).toFixed(2)} µs of processor a record   (seconds: ${all((one) => one.elapsed)}; of processor: ${all((one) => one.processor)})`);
    return { elapsed, processor };
  };
  const queryable = line("strata, queryable", runs.map((run) => run.queryable));
  const durable = line("strata, durable", runs.map((run) => run.durable));
  const postgres = line("PostgreSQL 15", theirs);
  console.log(`durable: ${(postgres.elapsed / durable.elapsed).toFixed(2)}× PostgreSQL's replay by the clock, ${(postgres.processor / durable.processor).toFixed(2)}× by processor time`);
  console.log(`strata writes ${(layers / walBytes).toFixed(2)} bytes of layers per WAL byte, ${(writtenBytes / walBytes).toFixed(2)} with temporary files and the copy in the bucket`);
  console.log(`ingest: ${(records / queryable.elapsed).toFixed(0)} records/s, ${(megabytes / queryable.elapsed).toFixed(1)} MB/s (${(postgres.elapsed / queryable.elapsed).toFixed(2)}× PostgreSQL; ${(postgres.processor / queryable.processor).toFixed(2)}× by processor time), ${(writtenBytes / walBytes).toFixed(2)} bytes written per WAL byte`);
}

async function main(): Promise<void> {
  if (!existsSync(PGBENCH)) return console.log(`SKIPPED: ${PGBENCH} is not installed, no WAL to ingest\ningest: skipped`);
  const material = await generate();
  const threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
  try {
    await ours(material, threads);
    const theirs: Times[] = [];
    const runs: Measured[] = [];
    for (let round = 0; round < Number(args.rounds); round++) {
      theirs.push(await replay(material));
      runs.push(await ours(material, threads));
    }
    report(runs, theirs);
  } finally {
    await threads.close();
    await material.base.remove();
  }
}

await main();
process.exit(0);
