/**
 * A pageserver's storage under a memory limit, in a process of its own: takes generated WAL as fast as it can, flushes and merges
 * layers and makes images on a thread, and is read from meanwhile. Prints the most memory the process ever had.
 *
 * Arguments: limit in bytes, WAL in bytes, and of how many pages one is of short rows: those take the most of what indexes hold, and
 * nearly all the processor time, for they are many.
 */
import { readFileSync } from "node:fs";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { JobsOnThreads } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import { MemoryWatch } from "../../../src/pageserver/memory-watch.ts";
import { planMemory } from "../../../src/pageserver/memory-plan.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { processMemory } from "../../../src/platform/real/process-memory.ts";
import { RealJobThreads } from "../../../src/platform/real/job-threads.ts";
import { type CheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import { heapInserts, type RecordGenerator, WalGenerator } from "../../../src/postgres/wal/generator.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { WORKER_URLS } from "../../../src/worker-urls.ts";
import { storageFixture } from "../../pageserver/timeline/storage-fixture.ts";
import { plainControlFile } from "../../support/control-file.ts";

const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
/** As much as a safekeeper sends at once. */
const CHUNK_BYTES = 128 * 1024;
/** As in the role (pageserver.ts). */
const MEMORY_LOOK_MS = 100;
const READ_EVERY_CHUNKS = 64;
const START = SEGMENT + 40;
const ROOT = "11111111111111111111111111111111";
const SHORT_ROWS = { tupleSizeBytes: 150, tuplesPerPage: 40 };
const LONG_ROWS = { tupleSizeBytes: 1500, tuplesPerPage: 5 };
/** Pages that images cover: of several image layers, and yet few enough for the list of them, which is the test's own. */
const IMAGE_PAGES_MAX = 30_000;
const CHECKPOINT: CheckPoint = {
  redo: 0x100, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 1000n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 1,
  oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
};
const CONTEXT = { task: "verify" };

const [limitBytes, walBytes, shortEvery] = process.argv.slice(2).map(Number);
const RECORDS_PER_ROUND = SHORT_ROWS.tuplesPerPage + (shortEvery - 1) * LONG_ROWS.tuplesPerPage;

/** In rounds of `shortEvery` pages, the first of each with short rows. */
function rows(): RecordGenerator {
  const short = heapInserts(17, SHORT_ROWS);
  const long = heapInserts(17, LONG_ROWS);
  return (index) => {
    const firstPage = Math.floor(index / RECORDS_PER_ROUND) * shortEvery;
    const at = index % RECORDS_PER_ROUND;
    return at < SHORT_ROWS.tuplesPerPage ? short(firstPage * SHORT_ROWS.tuplesPerPage + at) : long((firstPage + 1) * LONG_ROWS.tuplesPerPage + at - SHORT_ROWS.tuplesPerPage);
  };
}

const pagesOf = (records: number): number => Math.floor(records / RECORDS_PER_ROUND) * shortEvery;

async function empty(datadir: TimelineDatadir): Promise<WalIngest> {
  const modification = new DatadirModification(datadir);
  modification.beginRecord(START - 8, START);
  modification.initializeEmpty();
  modification.putCheckpoint(encodeCheckPoint(CHECKPOINT, 17));
  modification.putControlFile(plainControlFile(17, CHECKPOINT));
  await modification.commit();
  return await WalIngest.start(datadir);
}

/** The newest pages, and old ones as they were: each must be there. */
async function readSome(timeline: Timeline, blocks: number, round: number): Promise<number> {
  const keys = Array.from({ length: 16 }, (_, i) => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, (Math.imul(round * 16 + i, 0x9e3779b1) >>> 0) % blocks));
  for (const page of await timeline.getVectored(keys, timeline.lastRecordLsn, CONTEXT)) if (page instanceof Error) throw page;
  return keys.length;
}

async function ingestAll(timeline: Timeline, ingest: WalIngest, pagesWritten: (pages: number) => void): Promise<{ records: number; pagesRead: number }> {
  const generator = new WalGenerator(rows(), { version: 17, segmentSize: SEGMENT, startLsn: START, previousLsn: START - 8, systemId: 1n, timelineId: 1 });
  const decoder = new WalStreamDecoder(START, 17, SEGMENT);
  const record = new WalRecord();
  let records = 0;
  let pagesRead = 0;
  for (let chunk = 0; decoder.position - START < walBytes; chunk++) {
    decoder.feed(generator.generate(CHUNK_BYTES));
    while (decoder.next(record)) {
      records++;
      const wait = ingest.ingestRecord(record);
      if (wait !== undefined) await wait;
    }
    await ingest.commit();
    await Bun.sleep(0);
    pagesWritten(pagesOf(records));
    if (chunk % READ_EVERY_CHUNKS === READ_EVERY_CHUNKS - 1) pagesRead += await readSome(timeline, pagesOf(records), chunk);
  }
  return { records, pagesRead };
}

const memory = planMemory(limitBytes, { pageCacheBytes: 64 * MIB });
const fixture = await storageFixture({ cacheBytes: memory.pageCacheBytes / 2 });
fixture.layerMemory = new LayerMemory(memory.layerMemoryBytes);
const watch = new MemoryWatch({ limitBytes, memory: processMemory, layers: fixture.layerMemory, clock: fixture.platform.clock });
const looking = setInterval(() => watch.look(), MEMORY_LOOK_MS);
const threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
fixture.jobRunner = new JobsOnThreads(threads);
let pagesDurable = 0;
fixture.liveKeys = () => Array.from({ length: Math.min(pagesDurable, IMAGE_PAGES_MAX) }, (_, block) => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, block));
// Merging goes on all the time, as often as there is something to merge.
fixture.config = { ...fixture.config, checkpointDistanceBytes: Math.min(256 * MIB, Math.floor(walBytes / 8)), compactionPeriodMs: 200, compactionThreshold: 3 };
try {
  const manager = await fixture.attach(1);
  const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: START, pgVersion: 17 });
  const datadir = new TimelineDatadir(timeline, { version: 17, shard: UNSHARDED_IDENTITY });
  const ingest = await empty(datadir);
  manager.maintenanceOf(ROOT).start();
  // A page is in files when the records that made it are: those before the last flush, at the least.
  const written: { readonly lsn: number; readonly pages: number }[] = [];
  const done = await ingestAll(timeline, ingest, (pages) => {
    written.push({ lsn: timeline.lastRecordLsn, pages });
    while (written.length > 0 && written[0].lsn <= timeline.diskConsistentLsn) pagesDurable = written.shift()?.pages ?? 0;
  });
  await timeline.freezeAndFlush();
  pagesDurable = written.at(-1)?.pages ?? pagesDurable;
  await manager.maintenanceOf(ROOT).compact({ forceL0: true, forceImages: true });
  const images = [...timeline.stack.map.layers()].filter((layer) => layer.name.kind === "image").length;
  await timeline.waitUploaded();
  const layers = [...timeline.stack.map.layers()].length;
  const l0 = timeline.stack.map.l0.length;
  await manager.shutdown({ flush: false });
  clearInterval(looking);
  const peakBytes = Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) * 1024;
  console.log(JSON.stringify({ peakBytes, walBytes: timeline.lastRecordLsn - START, layers, l0, images, layerMemoryBytes: memory.layerMemoryBytes, stillHeldBytes: fixture.layerMemory.usedBytes, ...done }));
} finally {
  await threads.close();
  await fixture.close();
}
process.exit(0);
