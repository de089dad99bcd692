/**
 * A disk without room, in whatever it happens: whoever needs room gets a typed error or waits, reads of what is here go on, nothing is
 * removed, and when there is room again all that was put is there.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { StrataError } from "../../../src/kit/errors.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { FaultFiles } from "../../safekeeper/support/fault-files.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const FULL = "11111111111111111111111111111111";
const OTHER = "22222222222222222222222222222222";
const CONTEXT = { task: "test" };
const KEYS = 40;
const key = (number: number) => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
const page = (number: number, lsn: number): Uint8Array => Uint8Array.from({ length: 8192 }, (_, i) => Math.imul(i + lsn + number * 77, 0x9e3779b1) >>> 24);

let fixture: StorageFixture;
let files: FaultFiles;
let manager: TimelineManager;
let timeline: Timeline;
let other: Timeline;
let lsn: number;

beforeEach(async () => {
  fixture = await storageFixture({
    files: (real) => {
      files = new FaultFiles(real);
      return files;
    },
  });
  fixture.layerMemory = new LayerMemory(200 * 1024);
  fixture.liveKeys = () => Array.from({ length: KEYS }, (_, number) => key(number));
  manager = await fixture.attach(1);
  timeline = await manager.createTimeline({ timelineId: FULL, initdbLsn: 0x1000, pgVersion: 17 });
  other = await manager.createTimeline({ timelineId: OTHER, initdbLsn: 0x1000, pgVersion: 17 });
  lsn = 0x1000;
  await write();
  await other.put([{ key: key(0), lsn, value: { kind: "image", bytes: page(0, lsn) } }]);
  other.advance(lsn, lsn - 8);
  for (const one of [timeline, other]) {
    await one.freezeAndFlush();
    await one.waitUploaded();
  }
});
afterEach(async () => {
  files.check = () => undefined;
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

/** All keys at a new LSN. */
async function write(): Promise<void> {
  lsn += 0x10;
  const now = lsn;
  await timeline.put(Array.from({ length: KEYS }, (_, number) => ({ key: key(number), lsn: now, value: { kind: "image" as const, bytes: page(number, now) } })));
  timeline.advance(now, now - 8);
}

/** No room for this disk's files below the given names; the bucket is elsewhere. */
function fill(): void {
  files.check = (point, path) => {
    if (path.includes("/local/") && (point === "write" || point === "open")) throw new StrataError("unavailable", "disk-full", `no space left for ${path}`);
  };
}

function empty(): void {
  files.check = () => undefined;
}

async function expectPages(at: number): Promise<void> {
  const pages = await timeline.getVectored(Array.from({ length: KEYS }, (_, number) => key(number)), at, CONTEXT);
  for (let number = 0; number < KEYS; number++) expect(Buffer.compare(pages[number] as Uint8Array, page(number, at))).toBe(0);
}

async function expectOtherServed(): Promise<void> {
  expect(Buffer.compare(await other.get(key(0), other.lastRecordLsn, CONTEXT), page(0, other.lastRecordLsn))).toBe(0);
}

const layerFiles = async (of: Timeline): Promise<string[]> => (await readdir(of.directory)).filter((name) => name.includes("__") && !name.includes("temp")).toSorted();

test("while WAL is taken in: the writer is told, readers go on, and the WAL that comes again is taken", async () => {
  const before = await layerFiles(timeline);
  fill();
  const durable = lsn;
  await expect((async () => {
    for (let i = 0; i < 20; i++) await write();
  })()).rejects.toMatchObject({ kind: "unavailable", code: "disk-full" });
  const failedAt = lsn;
  await expectPages(durable);
  await expectOtherServed();
  expect(await layerFiles(timeline)).toEqual(before);
  empty();
  lsn = timeline.lastRecordLsn;
  while (lsn < failedAt + 0x40) await write();
  for (let at = durable; at <= lsn; at += 0x10) await expectPages(at);
});

test("while a layer is flushed: who waits is told, it is tried again, and nothing is lost", async () => {
  await write();
  fill();
  fixture.log.expectWarn(/flush of a layer failed/);
  await expect(timeline.freezeAndFlush()).rejects.toMatchObject({ kind: "unavailable", code: "disk-full" });
  await expectPages(lsn);
  await expectPages(lsn - 0x10);
  await expectOtherServed();
  expect((await readdir(timeline.directory)).filter((name) => name.includes("temp"))).toEqual([]);
  empty();
  await timeline.freezeAndFlush();
  expect(timeline.diskConsistentLsn).toBe(lsn);
  await expectPages(lsn);
});

test("while layers are merged and images made: the old ones stay, and the next round does it", async () => {
  for (let i = 0; i < 3; i++) {
    await write();
    await timeline.freezeAndFlush();
  }
  const before = await layerFiles(timeline);
  const maintenance = manager.maintenanceOf(FULL);
  fill();
  await expect(maintenance.compact({ forceL0: true })).rejects.toMatchObject({ kind: "unavailable", code: "disk-full" });
  expect(await layerFiles(timeline)).toEqual(before);
  for (let at = lsn - 0x30; at <= lsn; at += 0x10) await expectPages(at);
  await expectOtherServed();
  empty();
  await maintenance.compact({ forceL0: true });
  await timeline.waitUploaded();
  const merged = await layerFiles(timeline);
  fill();
  await expect(maintenance.compact({ forceImages: true })).rejects.toMatchObject({ kind: "unavailable", code: "disk-full" });
  expect(await layerFiles(timeline)).toEqual(merged);
  empty();
  await maintenance.compact({ forceImages: true });
  expect((await layerFiles(timeline)).length).toBe(merged.length + 1);
  for (let at = lsn - 0x30; at <= lsn; at += 0x10) await expectPages(at);
});

test("while a layer is fetched: its reader is told, others read, and it comes when there is room; eviction makes some", async () => {
  const [layer] = timeline.stack.map.layers();
  expect(await layer.evict()).toBe(true);
  fill();
  await expect(timeline.get(key(3), lsn, CONTEXT)).rejects.toMatchObject({ kind: "unavailable", code: "disk-full" });
  await expectOtherServed();
  const [others] = other.stack.map.layers();
  expect(await others.evict()).toBe(true);
  expect(await layerFiles(timeline)).toEqual([]);
  empty();
  await expectPages(lsn);
  await expectOtherServed();
});

test("collecting garbage and deleting a timeline need no room", async () => {
  for (let i = 0; i < 3; i++) {
    await write();
    await timeline.freezeAndFlush();
  }
  await manager.maintenanceOf(FULL).compact({ forceL0: true, forceImages: true });
  await write();
  await timeline.freezeAndFlush();
  const before = (await layerFiles(timeline)).length;
  files.check = (point, path) => {
    // The deletion list is what has to be kept, and is a few bytes.
    if (path.includes("/timelines/") && path.includes("/local/") && (point === "write" || point === "open")) throw new StrataError("unavailable", "disk-full", `no space left for ${path}`);
  };
  expect((await manager.maintenanceOf(FULL).collectGarbage())?.removed).toBeGreaterThan(0);
  await timeline.waitUploaded();
  expect((await layerFiles(timeline)).length).toBeLessThan(before);
  await expectPages(lsn);
  await manager.deleteTimeline(OTHER);
  expect(manager.timelineIds).toEqual([FULL]);
});
