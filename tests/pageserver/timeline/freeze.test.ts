/** When the open layer becomes a file by itself: by its size, by the WAL since the last one, by its age. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { QUIET_CONFIG, type StorageFixture, storageFixture } from "./storage-fixture.ts";

setDefaultTimeout(60_000);

const LONG_MS = 3_600_000;
const KIB = 1024;
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

let fixture: StorageFixture;
let manager: TimelineManager;
let timeline: Timeline;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => {
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

async function create(config: { readonly checkpointDistanceBytes: number; readonly checkpointTimeoutMs: number }): Promise<void> {
  fixture.config = { ...QUIET_CONFIG, ...config };
  manager = await fixture.attach(1);
  timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: 0x1000, pgVersion: 17 });
}

async function put(lsn: number, sizeBytes: number): Promise<void> {
  await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: new Uint8Array(sizeBytes).fill(lsn & 0xff) } }]);
  timeline.advance(lsn, lsn - 8);
}

async function flushed(): Promise<number> {
  while (timeline.stack.frozen.length > 0) await Bun.sleep(2);
  return timeline.stack.map.l0.length;
}

test("by size, however little WAL that is", async () => {
  await create({ checkpointDistanceBytes: 100 * KIB, checkpointTimeoutMs: LONG_MS });
  for (let i = 0; i < 12; i++) await put(0x1000 + i * 8, 8 * KIB);
  expect([await flushed(), timeline.stack.open === null]).toEqual([0, false]);
  await put(0x1100, 8 * KIB);
  expect([await flushed(), timeline.stack.open === null, timeline.diskConsistentLsn]).toEqual([1, true, 0x1100]);
});

test("by the WAL since the last one, however little of it is ours", async () => {
  await create({ checkpointDistanceBytes: 100 * KIB, checkpointTimeoutMs: LONG_MS });
  await put(0x1000, 10);
  timeline.advance(0x1000 + 90 * KIB, 0x1000);
  expect(await flushed()).toBe(0);
  timeline.advance(0x1000 + 101 * KIB, 0x1000 + 90 * KIB);
  expect([await flushed(), timeline.diskConsistentLsn]).toEqual([1, 0x1000 + 101 * KIB]);
  // Counted from there: the next one has as far to go.
  await put(0x1000 + 110 * KIB, 10);
  timeline.advance(0x1000 + 190 * KIB, 0x1000 + 110 * KIB);
  expect(await flushed()).toBe(1);
});

test("by its age, without any more WAL", async () => {
  await create({ checkpointDistanceBytes: 1 << 30, checkpointTimeoutMs: 60 });
  await put(0x1000, 10);
  expect(timeline.stack.open).not.toBe(null);
  const startMs = performance.now();
  while (timeline.stack.open !== null && performance.now() - startMs < 20_000) await Bun.sleep(5);
  expect(await flushed()).toBe(1);
  expect(performance.now() - startMs).toBeGreaterThan(30);
  await timeline.waitUploaded();
  expect([timeline.diskConsistentLsn, timeline.remoteClient.cleanIndex?.metadata.diskConsistentLsn]).toEqual([0x1000, 0x1000]);
});
