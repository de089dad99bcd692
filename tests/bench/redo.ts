/**
 * `bun run bench redo [--rounds N] [--quick]`: redo on records of a real PostgreSQL 17.
 *
 * `short`: a page from one image and a few inserts (~1.1 kB); `medium`: one page filled by hundreds of single-row
 * inserts (~15 kB); decoding included, as when a page is read. Per manager: the mean over its record kinds, decoding and
 * the copy of the page taken off. Allocations: growth of the process per record with the garbage collector off, in a
 * second process. Last line: `redo: short S µs, medium M µs, P pages/s, B bytes allocated a record`.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { deserialize, serialize } from "node:v8";
import { dataViewOf } from "../../src/kit/bytes.ts";
import { type Lsn, parseLsn } from "../../src/kit/lsn.ts";
import { PAGE_SIZE } from "../../src/postgres/page/page-layout.ts";
import { redoManagerName, redoRecord } from "../../src/postgres/redo/redo.ts";
import { decodeInPlace } from "../../src/postgres/wal/decode-record.ts";
import { RMGR } from "../../src/postgres/wal/constants.ts";
import { WalRecord, copyRecord } from "../../src/postgres/wal/record.ts";
import { walSegmentName } from "../../src/postgres/wal/segment-name.ts";
import { WalStreamDecoder } from "../../src/postgres/wal/stream-decoder.ts";
import { StockPostgres } from "../support/stock-postgres.ts";
import { type Sample, collectMaterial } from "../verify/hostile/collect.ts";
import { readScripts } from "../verify/redo/corpus.ts";
import { onInterrupt } from "./support/interrupt.ts";

const MAJOR = 17;
const SEGMENT_SIZE = 16 * 1024 * 1024;
/** Short, so that on a busy machine some stretches are not interrupted: the best counts. */
const STRETCH_MS = 5;
const STRETCHES_A_ROUND = 60;
const ALLOCATION_ROUNDS = 5_000;
const ALLOCATION_STRETCHES = 6;
const ALLOCATION_WARM_UP_MS = 400;

/** What reconstructs one page: records one after the other in one buffer. */
interface PageWork {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Where each record starts, and last the end. */
  readonly starts: number[];
}

interface Inputs {
  readonly pages: PageWork[];
  readonly samples: Sample[];
}

function pageWork(name: string, records: readonly Uint8Array[]): PageWork {
  const starts = [0];
  for (const record of records) starts.push((starts.at(-1) ?? 0) + record.length);
  return { name, bytes: Buffer.concat(records), starts };
}

/** The first records on block 0 of a relation that `wanted` takes. */
function recordsOf(bytes: Uint8Array, range: { from: Lsn; to: Lsn; relation: number }, wanted: (record: WalRecord, taken: number) => boolean): Uint8Array[] {
  const decoder = new WalStreamDecoder(range.from, MAJOR, SEGMENT_SIZE);
  const record = new WalRecord();
  const records: Uint8Array[] = [];
  decoder.feed(bytes.subarray(range.from % SEGMENT_SIZE, range.to % SEGMENT_SIZE), range.from);
  while (records.length < 1000 && decoder.next(record)) {
    const ref = record.blocks[0];
    if (record.rmid !== RMGR.HEAP || record.blockCount === 0 || ref.relNumber !== range.relation || ref.blockNumber !== 0) continue;
    if (wanted(record, records.length)) records.push(copyRecord(record));
  }
  return records;
}

async function makePages(): Promise<PageWork[]> {
  const server = await StockPostgres.create({ major: MAJOR, conf: ["autovacuum = off", "checkpoint_timeout = 1h"] });
  try {
    await server.start();
    const sql = server.sql();
    const one = async (text: string): Promise<string> => String((await sql.unsafe(text))[0]?.["v"]);
    await sql.unsafe("CREATE TABLE small (i int); CREATE TABLE wide (a name, b int, c text)");
    await sql.unsafe("INSERT INTO wide SELECT 'row ' || i, i, 'c' FROM generate_series(1, 3) i");
    await sql.unsafe("SELECT pg_switch_wal()");
    await sql.unsafe("CHECKPOINT");
    const from = parseLsn(await one("SELECT redo_lsn::text AS v FROM pg_control_checkpoint()"));
    for (let i = 0; i < 5; i++) await sql.unsafe("INSERT INTO wide VALUES ('another', 1, repeat('x', 40))");
    for (let i = 0; i < 230; i++) await sql.unsafe(`INSERT INTO small VALUES (${i})`);
    const small = Number(await one("SELECT relfilenode::int AS v FROM pg_class WHERE relname = 'small'"));
    const wide = Number(await one("SELECT relfilenode::int AS v FROM pg_class WHERE relname = 'wide'"));
    const to = parseLsn(await one("SELECT pg_current_wal_flush_lsn()::text AS v"));
    await server.stop();
    const bytes = server.readDataFile(join("pg_wal", walSegmentName({ timelineId: 1, lsn: from, segmentSize: SEGMENT_SIZE })));
    return [
      pageWork("short", recordsOf(bytes, { from, to, relation: wide }, (_, taken) => taken < 5)),
      pageWork("medium", recordsOf(bytes, { from, to, relation: small }, () => true)),
    ];
  } finally {
    await server.remove();
  }
}

const record = new WalRecord();
const page = new Uint8Array(PAGE_SIZE);

function load(bytes: Uint8Array, view: DataView): void {
  record.bytes = bytes;
  record.view = view;
  record.version = MAJOR;
}

/** Decodes the record at `start` and applies its block 0. */
function step(start: number, end: number): void {
  record.start = start;
  record.totalLength = end - start;
  record.lsn = start;
  record.endLsn = end;
  decodeInPlace(record, false);
  redoRecord(page, record, 0, end);
}

function reconstruct({ starts }: PageWork): void {
  for (let i = 0; i + 1 < starts.length; i++) step(starts[i], starts[i + 1]);
}

/** Mean of a call in ns over the best of many stretches. */
function nsPerCall(rounds: number, body: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let stretch = 0; stretch < rounds * STRETCHES_A_ROUND; stretch++) {
    const startMs = performance.now();
    let calls = 0;
    let tookMs = 0;
    while (tookMs < STRETCH_MS) {
      for (let i = 0; i < 20; i++) body();
      calls += 20;
      tookMs = performance.now() - startMs;
    }
    best = Math.min(best, (tookMs * 1e6) / calls);
  }
  return best;
}

/** Loads a sample and the page it was applied to. */
function loadSample(sample: Sample, view: DataView): void {
  load(sample.record, view);
  record.start = 0;
  record.totalLength = sample.record.length;
  record.lsn = sample.endLsn;
  record.endLsn = sample.endLsn;
  decodeInPlace(record, false);
  page.set(sample.page);
}

function measureManager(samples: readonly Sample[], rounds: number): number {
  const loaded = samples.map((sample) => ({ sample, view: dataViewOf(sample.record) }));
  const base = nsPerCall(rounds, () => {
    for (const { sample, view } of loaded) loadSample(sample, view);
  });
  const whole = nsPerCall(rounds, () => {
    for (const { sample, view } of loaded) {
      loadSample(sample, view);
      redoRecord(page, record, sample.blockId, sample.endLsn);
    }
  });
  return (whole - base) / samples.length;
}

/** Samples of records that redo, not images, apply, by manager. */
function byManager(samples: readonly Sample[]): Map<number, Sample[]> {
  const managers = new Map<number, Sample[]>();
  for (const sample of samples) {
    const rmid = sample.record[17];
    if (sample.blockId < 0 || !sample.kind.endsWith("no image")) continue;
    managers.set(rmid, [...(managers.get(rmid) ?? []), sample]);
  }
  return new Map([...managers].sort((a, b) => a[0] - b[0]));
}

/** In the process without garbage collection: how much it grows a record. */
function measureAllocations({ pages, samples }: Inputs): void {
  const results: [string, number][] = [];
  const measure = (name: string, records: number, body: () => void): void => {
    // Code compiled meanwhile takes memory too: so first without looking, and then the least of several stretches counts.
    for (const until = performance.now() + ALLOCATION_WARM_UP_MS; performance.now() < until; ) body();
    let least = Number.POSITIVE_INFINITY;
    for (let stretch = 0; stretch < ALLOCATION_STRETCHES; stretch++) {
      const before = process.memoryUsage.rss();
      for (let i = 0; i < ALLOCATION_ROUNDS; i++) body();
      least = Math.min(least, process.memoryUsage.rss() - before);
    }
    results.push([name, Math.max(0, least) / (ALLOCATION_ROUNDS * records)]);
  };
  for (const work of pages) {
    load(work.bytes, dataViewOf(work.bytes));
    measure(work.name, work.starts.length - 1, () => reconstruct(work));
  }
  for (const [rmid, own] of byManager(samples)) {
    const loaded = own.map((sample) => ({ sample, view: dataViewOf(sample.record) }));
    measure(redoManagerName(rmid), own.length, () => {
      for (const { sample, view } of loaded) {
        loadSample(sample, view);
        redoRecord(page, record, sample.blockId, sample.endLsn);
      }
    });
  }
  console.log(JSON.stringify(results));
}

async function allocations(inputs: Inputs): Promise<Map<string, number>> {
  const directory = await mkdtemp(join(tmpdir(), "strata-bench-"));
  onInterrupt(() => rm(directory, { recursive: true, force: true }));
  try {
    const file = join(directory, "inputs");
    await writeFile(file, serialize(inputs));
    const command = [process.execPath, import.meta.path, "--allocations-of", file];
    const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit", env: { ...process.env, BUN_JSC_useGC: "0" } });
    return new Map(JSON.parse(await new Response(child.stdout).text()) as [string, number][]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: "string", default: "3" }, quick: { type: "boolean", default: false }, "allocations-of": { type: "string" } } });
  if (values["allocations-of"] !== undefined) return measureAllocations(deserialize(await readFile(values["allocations-of"])) as Inputs);
  const rounds = Number(values.rounds);
  const scripts = values.quick ? [] : await readScripts(join(import.meta.dir, "../verify/redo-corpus"));
  const inputs: Inputs = { pages: await makePages(), samples: (await collectMaterial(MAJOR, scripts)).samples };
  const allocated = await allocations(inputs);
  const bytes = (name: string): string => (allocated.get(name) ?? Number.NaN).toFixed(1);
  const ns = inputs.pages.map((work) => {
    load(work.bytes, dataViewOf(work.bytes));
    const result = nsPerCall(rounds, () => reconstruct(work));
    const records = work.starts.length - 1;
    console.log(`${work.name.padEnd(9)} ${String(records).padStart(4)} records ${String(work.bytes.length).padStart(6)} bytes ${(result / 1000).toFixed(2).padStart(8)} µs a page ${(result / records).toFixed(0).padStart(6)} ns a record, ${bytes(work.name)} bytes allocated a record`);
    return result;
  });
  for (const [rmid, samples] of byManager(inputs.samples)) {
    const name = redoManagerName(rmid);
    console.log(`${name.padEnd(9)} ${String(samples.length).padStart(4)} samples ${measureManager(samples, rounds).toFixed(0).padStart(6)} ns a record, ${bytes(name)} bytes allocated a record`);
  }
  const [short, medium] = ns;
  const worst = Math.max(...allocated.values());
  console.log(`redo: short ${(short / 1000).toFixed(2)} µs, medium ${(medium / 1000).toFixed(2)} µs, ${Math.round(1e9 / short)} pages/s, ${worst.toFixed(1)} bytes allocated a record`);
}

await main();
