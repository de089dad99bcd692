/** One taking in of a WAL by a timeline of its own, for `bench ingest`: by stages, with what each costs and writes. */
import { existsSync, readFileSync } from "node:fs";
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import { type Key, nextKey } from "../../../src/keyspace/key.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { keySpaceAt } from "../../../src/pageserver/datadir/keyspace-at.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir } from "../../../src/pageserver/import/import-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { JobsOnThreads } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import { isL0 } from "../../../src/pageserver/layers/layer-name.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import type { RealJobThreads } from "../../../src/platform/real/job-threads.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { storageFixture } from "../../pageserver/timeline/storage-fixture.ts";

const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
/** As much as a safekeeper sends at once. */
const CHUNK_BYTES = 128 * 1024;

export interface Wal {
  readonly major: 15;
  /** Of the data directory as it was before the run. */
  readonly baseDirectory: string;
  readonly segments: readonly { readonly name: string; readonly content: Uint8Array }[];
}

export interface RunOptions {
  readonly threads: RealJobThreads;
  readonly checkpointDistanceBytes: number;
  /** As the receiver takes raw WAL, or as it takes what a safekeeper has interpreted. */
  readonly path: "raw" | "interpreted";
}

/** Seconds: by the clock, of processor time of all threads (the compiler's and the collector's too), and of this thread alone. */
export interface Times {
  readonly elapsed: number;
  readonly processor: number;
  readonly thisThread: number;
}

export interface Measured {
  readonly queryable: Times;
  readonly durable: Times;
  readonly walBytes: number;
  readonly records: number;
}

/** Bytes written, by what for. */
export interface Split {
  readonly walBytes: number;
  readonly l0: number;
  readonly l1: number;
  readonly images: number;
  /** Values that memory had no room for, temporary. */
  readonly spilled: number;
  /** What went to the bucket of the above: a copy here, an upload elsewhere. */
  readonly bucket: number;
}

/** Bytes this process has handed to write(2), on any thread. */
function bytesWritten(): number {
  const path = "/proc/self/io";
  return existsSync(path) ? Number(/wchar: (\d+)/.exec(readFileSync(path, "utf8"))?.[1]) : Number.NaN;
}

/** Nanoseconds that the calling thread has run. */
function thisThreadNs(): number {
  const path = "/proc/thread-self/schedstat";
  return existsSync(path) ? Number(readFileSync(path, "utf8").split(" ")[0]) : Number.NaN;
}

function timer(): () => Times {
  const [startMs, start, startNs] = [performance.now(), process.cpuUsage(), thisThreadNs()];
  return () => {
    const { user, system } = process.cpuUsage(start);
    return { elapsed: (performance.now() - startMs) / 1000, processor: (user + system) / 1e6, thisThread: (thisThreadNs() - startNs) / 1e9 };
  };
}

interface Target {
  readonly manager: TimelineManager;
  readonly timeline: Timeline;
  readonly datadir: TimelineDatadir;
  /** Where the base ends. */
  readonly from: Lsn;
  setLiveKeys(keys: readonly Key[]): void;
}

/** Runs `work` on a new timeline that holds the base. */
async function withTarget<T>(wal: Wal, options: RunOptions, work: (target: Target) => Promise<T>): Promise<T> {
  const fixture = await storageFixture({ cacheBytes: 64 * MIB });
  fixture.config = { ...fixture.config, checkpointDistanceBytes: options.checkpointDistanceBytes };
  fixture.layerMemory = new LayerMemory(256 * MIB);
  fixture.jobRunner = new JobsOnThreads(options.threads);
  try {
    const files = new RealFiles();
    const manager = await fixture.attach(1);
    const { endLsn: from } = await inspectDatadir(files, wal.baseDirectory);
    const timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: from, pgVersion: wal.major });
    const datadir = new TimelineDatadir(timeline, { version: wal.major, shard: UNSHARDED_IDENTITY });
    await importDatadir(new DatadirModification(datadir), files, wal.baseDirectory);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const setLiveKeys = (keys: readonly Key[]): void => {
      fixture.liveKeys = () => [...keys];
    };
    const result = await work({ manager, timeline, datadir, from, setLiveKeys });
    await manager.shutdown({ flush: false });
    return result;
  } finally {
    await fixture.close();
  }
}

/** Feeds the decoder with the log, a message at a time. */
function* messages(decoder: WalStreamDecoder, wal: Wal): Generator<void> {
  for (const { name, content } of wal.segments) {
    const segmentLsn = Number.parseInt(name.slice(16), 16) * SEGMENT + Number.parseInt(name.slice(8, 16), 16) * 2 ** 32;
    if (segmentLsn + SEGMENT <= decoder.position) continue;
    for (let at = Math.max(0, decoder.position - segmentLsn); at < SEGMENT; at += CHUNK_BYTES) {
      decoder.feed(content.subarray(at, Math.min(SEGMENT, at + CHUNK_BYTES)), segmentLsn + at);
      yield;
    }
  }
}

interface Fed {
  readonly records: number;
  readonly endLsn: Lsn;
}

/** @param take undefined to decode only */
async function feed(wal: Wal, from: Lsn, take?: { record(record: WalRecord): Promise<void> | undefined; commit(): Promise<void> | undefined }): Promise<Fed> {
  const decoder = new WalStreamDecoder(from, wal.major, SEGMENT);
  const record = new WalRecord();
  let records = 0;
  let endLsn = from;
  try {
    for (const _ of messages(decoder, wal)) {
      while (decoder.next(record)) {
        endLsn = record.endLsn;
        records++;
        const wait = take?.record(record);
        if (wait !== undefined) await wait;
      }
      await take?.commit();
      // As the receiver does: others have their turn, and so do the flushes that threads have done.
      await Bun.sleep(0);
    }
  } catch (error) {
    // The unused rest of the last segment is no WAL.
    if (!isStrataError(error) || !error.code.startsWith("wal-")) throw error;
  }
  await take?.commit();
  return { records, endLsn };
}

async function feedTarget(wal: Wal, options: RunOptions, { datadir, from }: Target): Promise<Fed> {
  const ingest = await WalIngest.start(datadir);
  const record = (one: WalRecord): Promise<void> | undefined => (options.path === "raw" ? ingest.ingestRecord(one) : ingest.ingest(interpretRecord(one, datadir.shard)));
  return await feed(wal, from, { record, commit: () => ingest.commit() });
}

/** Until the last record is readable, and until all is in layers, synced, and in the bucket. */
export function ingestOnce(wal: Wal, options: RunOptions): Promise<Measured> {
  return withTarget(wal, options, async (target) => {
    Bun.gc(true);
    const times = timer();
    const { records, endLsn } = await feedTarget(wal, options, target);
    const queryable = times();
    await target.timeline.freezeAndFlush();
    await target.timeline.waitUploaded();
    return { queryable, durable: times(), walBytes: endLsn - target.from, records };
  });
}

/** This thread's microseconds a record when nothing is done with what was decoded, and when what was interpreted is thrown away. */
export async function ceilings(wal: Wal, options: RunOptions): Promise<{ readonly decode: number; readonly interpret: number }> {
  const perRecord = (times: Times, { records }: Fed): number => (times.thisThread / records) * 1e6;
  return await withTarget(wal, options, async (target) => {
    await feed(wal, target.from);
    const decodeTimes = timer();
    const decoded = await feed(wal, target.from);
    const decode = perRecord(decodeTimes(), decoded);
    target.timeline.putBatch = () => undefined;
    const interpretTimes = timer();
    const interpreted = await feedTarget(wal, options, target);
    return { decode, interpret: perRecord(interpretTimes(), interpreted) };
  });
}

function bytesByKind(timeline: Timeline): { l0: number; l1: number; images: number } {
  const sums = { l0: 0, l1: 0, images: 0 };
  for (const { name, metadata } of timeline.stack.map.layers()) {
    if (name.kind === "image") sums.images += metadata.sizeBytes;
    else if (isL0(name)) sums.l0 += metadata.sizeBytes;
    else sums.l1 += metadata.sizeBytes;
  }
  return sums;
}

/** All keys in use now: what images are to hold. */
async function setLiveKeysOf({ timeline, datadir, setLiveKeys }: Target): Promise<void> {
  const { dense } = await keySpaceAt(datadir.at(timeline.lastRecordLsn, { task: "bench" }), true);
  const keys: Key[] = [];
  for (const { start, end } of dense.ranges) {
    for (let key = start; key.field6 !== end.field6 || key.field5 !== end.field5 || key.field4 !== end.field4; key = nextKey(key)) keys.push(key);
  }
  setLiveKeys(keys);
}

/** What is written until every layer of this WAL was merged once and the whole database has new images: more than a server does that goes on. */
export function countBytes(wal: Wal, options: RunOptions): Promise<Split> {
  return withTarget(wal, options, async (target) => {
    const { timeline, manager } = target;
    const base = bytesByKind(timeline);
    const before = bytesWritten();
    const { endLsn } = await feedTarget(wal, options, target);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    const l0 = bytesByKind(timeline).l0 - base.l0;
    await setLiveKeysOf(target);
    await manager.maintenanceOf(timeline.timelineId).compact({ forceL0: true, forceImages: true });
    await timeline.waitUploaded();
    const after = bytesByKind(timeline);
    // The base's own layers were merged along with the others.
    const written = bytesWritten() - before - 2 * (base.l0 - after.l0);
    const l1 = after.l1 - base.l1 - (base.l0 - after.l0);
    const layers = l0 + l1 + after.images;
    return { walBytes: endLsn - target.from, l0, l1, images: after.images, bucket: layers, spilled: Math.max(0, written - 2 * layers) };
  });
}
