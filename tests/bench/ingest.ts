/**
 * Ingest of a pgbench run's WAL: decoded, interpreted and put into a timeline on disk (layers flushed and in the bucket at
 * the end), beside PostgreSQL 15's own replay of the same WAL from the same base, on the same machine.
 *
 *   bun run bench ingest [--rounds 2] [--transactions 8000] [--scale 5]
 *
 * PostgreSQL's time is the one it logs itself ("redo done at …, elapsed"); it keeps pages in 512 MB of shared buffers and
 * syncs nothing. Ours syncs what it flushes. Last line: `ingest: N records/s, M MB/s (R× PostgreSQL), W bytes written per
 * WAL byte`.
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
import { WalIngest } from "../../src/pageserver/ingest/wal-ingest.ts";
import type { Timeline } from "../../src/pageserver/timeline/timeline.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../src/postgres/wal/stream-decoder.ts";
import { storageFixture } from "../pageserver/timeline/storage-fixture.ts";
import { StockPostgres } from "../support/stock-postgres.ts";

const MAJOR = 15;
const SEGMENT = 16 * 1024 * 1024;
/** As much as a safekeeper sends at once. */
const CHUNK_BYTES = 128 * 1024;
const PGBENCH = "/usr/lib/postgresql/15/bin/pgbench";
const CLIENTS = 4;
const CONF = ["autovacuum = off", "checkpoint_timeout = 1h", "max_wal_size = 8GB", "wal_keep_size = 8GB", "shared_buffers = 512MB"];

const { values: args } = parseArgs({ options: { rounds: { type: "string", default: "2" }, transactions: { type: "string", default: "8000" }, scale: { type: "string", default: "5" } } });

interface Material {
  /** The stopped server before the run. */
  readonly base: StockPostgres;
  readonly segments: readonly { readonly name: string; readonly content: Uint8Array }[];
}

interface Measured {
  readonly seconds: number;
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
  const base = await StockPostgres.create({ major: MAJOR, conf: CONF });
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

/** PostgreSQL's replay; its seconds, by its own log. */
async function replay({ base, segments }: Material): Promise<number> {
  const server = base.copy();
  try {
    for (const { name, content } of segments) server.writeDataFile(`pg_wal/${name}`, content);
    server.writeDataFile("recovery.signal", new Uint8Array(0));
    // Everything is in pg_wal already: nothing is to be fetched.
    server.configure(["restore_command = 'false'", "hot_standby = off"]);
    await server.start();
    for (let tries = 0; tries < 1200; tries++) {
      const elapsed = /redo done at .*elapsed: ([\d.]+) s/.exec(server.log)?.[1];
      if (elapsed !== undefined) return Number(elapsed);
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
          await ingest.ingest(interpretRecord(record, datadir.shard));
        }
        await ingest.commit();
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

async function ours({ base, segments }: Material): Promise<Measured> {
  const fixture = await storageFixture({ cacheBytes: 64 * 1024 * 1024 });
  try {
    const files = new RealFiles();
    const manager = await fixture.attach(1);
    const { endLsn: from } = await inspectDatadir(files, base.dataDirectory);
    const timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: from, pgVersion: MAJOR });
    const datadir = new TimelineDatadir(timeline, { version: MAJOR, shard: UNSHARDED_IDENTITY });
    await importDatadir(new DatadirModification(datadir), files, base.dataDirectory);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const [layersBefore, writtenBefore, startMs] = [layerBytes(timeline), bytesWritten(), performance.now()];
    const { records, endLsn } = await feed(await WalIngest.start(datadir), datadir, { from, segments });
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const seconds = (performance.now() - startMs) / 1000;
    const result = { seconds, walBytes: endLsn - from, records, layerBytes: layerBytes(timeline) - layersBefore, writtenBytes: bytesWritten() - writtenBefore };
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

async function main(): Promise<void> {
  if (!existsSync(PGBENCH)) return console.log(`SKIPPED: ${PGBENCH} is not installed, no WAL to ingest\ningest: skipped`);
  const material = await generate();
  try {
    const theirSeconds: number[] = [];
    const runs: Measured[] = [];
    for (let round = 0; round < Number(args.rounds); round++) {
      theirSeconds.push(await replay(material));
      runs.push(await ours(material));
    }
    const { walBytes, records, layerBytes: layers, writtenBytes } = runs[0];
    const [mine, theirs] = [median(runs.map((run) => run.seconds)), median(theirSeconds)];
    const megabytes = walBytes / 1e6;
    console.log(`${records} records, ${megabytes.toFixed(1)} MB of WAL (pgbench, scale ${args.scale}), ${cpus().length} cores, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
    const line = (name: string, seconds: number, all: readonly number[]): string => `${name.padEnd(14)} ${(records / seconds).toFixed(0).padStart(8)} records/s ${(megabytes / seconds).toFixed(1).padStart(7)} MB/s   (seconds: ${all.map((one) => one.toFixed(2)).join(" ")})`;
    console.log(line("strata", mine, runs.map((run) => run.seconds)));
    console.log(line("PostgreSQL 15", theirs, theirSeconds));
    console.log(`strata writes ${(layers / walBytes).toFixed(2)} bytes of layers per WAL byte, ${(writtenBytes / walBytes).toFixed(2)} with temporary files and the copy in the bucket`);
    console.log(`ingest: ${(records / mine).toFixed(0)} records/s, ${(megabytes / mine).toFixed(1)} MB/s (${(theirs / mine).toFixed(2)}× PostgreSQL), ${(writtenBytes / walBytes).toFixed(2)} bytes written per WAL byte`);
  } finally {
    await material.base.remove();
  }
}

await main();
process.exit(0);
