/**
 * Ingest of a pgbench run's WAL: decoded, interpreted and put into a timeline, beside PostgreSQL 15's own replay of the same
 * WAL from the same base, on the same machine, in turns.
 *
 *   bun run bench ingest [--rounds 3] [--transactions 8000] [--scale 5] [--fpw on|off] [--checkpoint-distance 32] [--path raw|interpreted] [--bytes on|off]
 *
 * Timed for ours: until the last record is readable ("queryable", as in PostgreSQL's replay), with layers flushed on a thread
 * meanwhile as they fill; and until all is in layers, synced, and in the bucket ("durable"), which PostgreSQL's replay does not do.
 * PostgreSQL's times are those it logs itself ("redo done at …"); it keeps pages in 512 MB of shared buffers and syncs nothing.
 * On a shared machine the clock tells less than processor time, so three ratios are printed: by the clock; by processor time of all
 * threads, the compiler's and the collector's too; and of the thread that takes the records alone, which is what the clock would
 * show where it has a core to itself, as PostgreSQL's one process has. Before the rounds ours takes the WAL once, so that it is
 * compiled, as in a server that runs.
 *
 * Ceilings are that thread's times for less work: decoding alone, and interpreting too, with nothing stored.
 *
 * Bytes are counted apart (`--bytes off` leaves them out), until every L0 layer of this WAL was merged into L1 and the whole database
 * got new images, each once: more than a server does that goes on, where images come after thirty layers. All writes count: L0, L1,
 * images, values that memory had no room for ("rest", with indexes of the bucket), and once more what goes to the bucket, which
 * here is a directory and elsewhere another machine.
 *
 * Last line: `ingest: N records/s, M MB/s (R× PostgreSQL; C× by processor time, T× by this thread's), B bytes to disk and U to the bucket per WAL byte`.
 */
import { existsSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { RealJobThreads } from "../../src/platform/real/job-threads.ts";
import { WORKER_URLS } from "../../src/worker-urls.ts";
import { StockPostgres } from "../support/stock-postgres.ts";
import { ceilings, countBytes, ingestOnce, type Measured, type RunOptions, type Split, type Times, type Wal } from "./support/ingest-run.ts";

const MAJOR = 15;
const PGBENCH = "/usr/lib/postgresql/15/bin/pgbench";
const CLIENTS = 4;
const CONF = ["autovacuum = off", "checkpoint_timeout = 1h", "max_wal_size = 8GB", "wal_keep_size = 8GB", "shared_buffers = 512MB"];
const MIB = 1024 * 1024;

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    transactions: { type: "string", default: "8000" },
    scale: { type: "string", default: "5" },
    fpw: { type: "string", default: "on" },
    "checkpoint-distance": { type: "string", default: "32" },
    path: { type: "string", default: "raw" },
    bytes: { type: "string", default: "on" },
  },
});

interface Material extends Wal {
  /** The stopped server before the run. */
  readonly base: StockPostgres;
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
    const segments = run.walSegments().map((name) => ({ name, content: run.readDataFile(`pg_wal/${name}`) }));
    return { base, major: MAJOR, baseDirectory: base.dataDirectory, segments };
  } finally {
    await run.remove();
  }
}

/** PostgreSQL's replay, by its own log: one process. */
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
      const processor = told === null ? 0 : Number(told[1]) + Number(told[2]);
      if (told !== null) return { processor, thisThread: processor, elapsed: Number(told[3]) };
      await Bun.sleep(50);
    }
    throw new Error(`PostgreSQL did not end its replay: ${server.log.slice(-2000)}`);
  } finally {
    await server.remove();
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function medians(times: readonly Times[]): Times {
  return { elapsed: median(times.map((one) => one.elapsed)), processor: median(times.map((one) => one.processor)), thisThread: median(times.map((one) => one.thisThread)) };
}

function ratios(ours: Times, theirs: Times): string {
  const times = (of: (one: Times) => number): string => `${(of(theirs) / of(ours)).toFixed(2)}×`;
  return `${times((one) => one.elapsed)} PostgreSQL; ${times((one) => one.processor)} by processor time, ${times((one) => one.thisThread)} by this thread's`;
}

function report(runs: readonly Measured[], theirs: readonly Times[]): string {
  const { walBytes, records } = runs[0];
  const megabytes = walBytes / 1e6;
  const micros = (seconds: number): string => ((seconds / records) * 1e6).toFixed(2);
  console.log(`${records} records, ${megabytes.toFixed(1)} MB of WAL (pgbench, scale ${args.scale}, full_page_writes ${args.fpw}), ${cpus().length} cores, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  const line = (name: string, times: readonly Times[]): Times => {
    const middle = medians(times);
    const all = (of: (one: Times) => number): string => times.map((one) => of(one).toFixed(2)).join(" ");
    console.log(
      `${name.padEnd(18)} ${(records / middle.elapsed).toFixed(0).padStart(8)} records/s ${(megabytes / middle.elapsed).toFixed(1).padStart(7)} MB/s, µs of processor a record: ${micros(middle.processor)}, of this thread ${micros(middle.thisThread)}` +
        `   (seconds: ${all((one) => one.elapsed)}; of processor: ${all((one) => one.processor)}; of this thread: ${all((one) => one.thisThread)})`,
    );
    return middle;
  };
  const queryable = line("strata, queryable", runs.map((run) => run.queryable));
  const durable = line("strata, durable", runs.map((run) => run.durable));
  const postgres = line("PostgreSQL 15", theirs);
  console.log(`durable: ${ratios(durable, postgres)}`);
  return `${(records / queryable.elapsed).toFixed(0)} records/s, ${(megabytes / queryable.elapsed).toFixed(1)} MB/s (${ratios(queryable, postgres)})`;
}

function reportBytes({ walBytes, l0, l1, images, spilled, bucket }: Split): string {
  const per = (bytes: number): string => (bytes / walBytes).toFixed(2);
  console.log(`bytes per WAL byte, all merged and imaged once: L0 ${per(l0)}, L1 ${per(l1)}, images ${per(images)}, rest ${per(spilled)}, bucket ${per(bucket)}`);
  return `${per(l0 + l1 + images + spilled)} bytes to disk and ${per(bucket)} to the bucket per WAL byte`;
}

async function measure(material: Material, options: RunOptions): Promise<string> {
  await ingestOnce(material, options);
  const theirs: Times[] = [];
  const runs: Measured[] = [];
  for (let round = 0; round < Number(args.rounds); round++) {
    theirs.push(await replay(material));
    runs.push(await ingestOnce(material, options));
  }
  const rate = report(runs, theirs);
  const { decode, interpret } = await ceilings(material, options);
  console.log(`ceilings, µs of this thread a record: decoding ${decode.toFixed(2)} (${(1e6 / decode).toFixed(0)} records/s), and interpreting ${interpret.toFixed(2)} (${(1e6 / interpret).toFixed(0)} records/s)`);
  return args.bytes === "off" ? rate : `${rate}, ${reportBytes(await countBytes(material, options))}`;
}

async function main(): Promise<void> {
  if (!existsSync(PGBENCH)) return console.log(`SKIPPED: ${PGBENCH} is not installed, no WAL to ingest\ningest: skipped`);
  const material = await generate();
  const threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
  try {
    const path = args.path === "interpreted" ? "interpreted" : "raw";
    console.log(`ingest: ${await measure(material, { threads, checkpointDistanceBytes: Number(args["checkpoint-distance"]) * MIB, path })}`);
  } finally {
    await threads.close();
    await material.base.remove();
  }
}

await main();
process.exit(0);
