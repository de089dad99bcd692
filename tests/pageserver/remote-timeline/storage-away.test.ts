/** Object storage that is away or refuses for a while, as with rotated credentials or a clock that is wrong; and a layer that is gone. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import { Cancelled, StrataError } from "../../../src/kit/errors.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import type { RemoteStorage } from "../../../src/remote-storage/remote-storage.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

const TIMELINE = "11".repeat(16);
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => await fixture.close());

/** `bucket`, whose operations fail with what `failure` returns for them, if anything. */
function failing(bucket: RemoteStorage, failure: (operation: string) => StrataError | null): RemoteStorage {
  return new Proxy(bucket, {
    get(target, property) {
      const member: unknown = Reflect.get(target, property, target);
      if (typeof member !== "function") return member;
      return async (...args: unknown[]) => {
        const error = failure(String(property));
        if (error !== null) throw error;
        return (await Reflect.apply(member, target, args)) as unknown;
      };
    },
  });
}

async function flushOne(timeline: Timeline): Promise<void> {
  await timeline.put([{ key: KEY, lsn: 0x1000, value: { kind: "image", bytes: utf8("a") } }]);
  timeline.advance(0x1000, 0xff8);
  await timeline.freezeAndFlush();
}

test("uploads that are refused go on when they no longer are", async () => {
  let refusals = 0;
  const bucket = failing(fixture.bucket, (operation) => (operation === "upload" && refusals++ < 3 ? new StrataError("forbidden", "storage-forbidden", "403") : null));
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  await timeline.waitUploaded();
  expect(refusals).toBeGreaterThan(3);
  expect(timeline.remoteClient.cleanIndex?.layers.size).toBe(1);
  await manager.shutdown({ flush: false });
  fixture.log.assertQuiet();
});

test("an upload that cannot succeed is told to everybody who waits, now and later", async () => {
  const bucket = failing(fixture.bucket, (operation) => (operation !== "upload" ? null : new StrataError("not-found", "file-not-found", "the layer is gone")));
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  for (let i = 0; i < 2; i++) expect(await timeline.waitUploaded().catch((error: unknown) => error)).toMatchObject({ code: "file-not-found" });
  expect(timeline.remoteClient.cleanIndex).toBeNull();
  await manager.shutdown({ flush: false });
  fixture.log.expectWarn("upload cannot succeed; the timeline's uploads stand still");
  fixture.log.assertQuiet();
});

test("a start while object storage is away or refuses goes on when it is back", async () => {
  const first = await fixture.attach(1);
  await flushOne(await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 }));
  await first.shutdown({ flush: true });
  const failures = new Map([["list", 2], ["download", 2]]);
  const bucket = failing(fixture.bucket, (operation) => {
    const left = failures.get(operation) ?? 0;
    failures.set(operation, left - 1);
    if (left <= 0) return null;
    return left === 2 ? new StrataError("unavailable", "storage-unavailable", "503") : new StrataError("forbidden", "storage-forbidden", "403");
  });
  const second = await fixture.attach(2, { bucket });
  await second.loadTimelines();
  expect([...failures.values()].every((left) => left < 0)).toBe(true);
  const page = await second.get(TIMELINE).get(KEY, 0x1000, { task: "test" });
  expect(utf8ToString(page)).toBe("a");
  await second.shutdown({ flush: false });
  fixture.log.assertQuiet();
});

test("who reads a layer waits out a hiccup of its download", async () => {
  let failures = 0;
  const bucket = failing(fixture.bucket, (operation) => (operation === "download" && failures++ < 2 ? new StrataError("unavailable", "storage-unavailable", "503") : null));
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  await timeline.waitUploaded();
  for (const layer of timeline.stack.map.layers()) await layer.evict();
  expect(utf8ToString(await timeline.get(KEY, 0x1000, { task: "test" }))).toBe("a");
  expect(failures).toBe(3);
  await manager.shutdown({ flush: false });
  fixture.log.assertQuiet();
});

test("who stops while object storage is away does not wait for it", async () => {
  const bucket = failing(fixture.bucket, () => new StrataError("unavailable", "storage-unavailable", "503"));
  const manager = await fixture.attach(1, { bucket });
  const stop = new AbortController();
  const loading = manager.loadTimelines(stop.signal).catch((error: unknown) => error);
  stop.abort();
  expect(await loading).toBeInstanceOf(Cancelled);
  await manager.shutdown({ flush: false });
});

test("a listing from before the last upload does not take it away", async () => {
  const first = await fixture.attach(1);
  const timeline = await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  await first.shutdown({ flush: true });
  const stale = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  for (const generation of [2, 3]) {
    const manager = await fixture.attach(generation, { bucket: stale });
    await manager.loadTimelines();
    const loaded = manager.get(TIMELINE);
    // What the generation before wrote.
    expect(loaded.lastRecordLsn).toBe(0x1000 + (generation - 2) * 16);
    const lsn = loaded.lastRecordLsn + 16;
    await loaded.put([{ key: KEY, lsn, value: { kind: "image", bytes: utf8(`of ${generation}`) } }]);
    loaded.advance(lsn, lsn - 8);
    await manager.shutdown({ flush: true });
    stale.plan = { ...stale.plan, staleList: 1 };
  }
  stale.plan = { ...stale.plan, staleList: 0 };
  const last = await fixture.attach(4);
  await last.loadTimelines();
  expect(utf8ToString(await last.get(TIMELINE).get(KEY, 0x1020, { task: "test" }))).toBe("of 3");
  await last.shutdown({ flush: false });
  expect(stale.faults).toBeGreaterThan(0);
  fixture.log.assertQuiet();
});

test("a listing from before does not take away what this generation wrote, when it loads a timeline again", async () => {
  const first = await fixture.attach(1);
  await flushOne(await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 }));
  await first.shutdown({ flush: true });
  const stale = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const manager = await fixture.attach(2, { bucket: stale });
  await manager.loadTimelines();
  const timeline = manager.get(TIMELINE);
  const lsn = timeline.lastRecordLsn + 16;
  await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: utf8("of this generation") } }]);
  timeline.advance(lsn, lsn - 8);
  await manager.archival.configure(TIMELINE, "Archived");
  await manager.archival.offload(TIMELINE);
  stale.plan = { ...stale.plan, staleList: 1 };
  await manager.archival.configure(TIMELINE, "Unarchived");
  expect(utf8ToString(await manager.get(TIMELINE).get(KEY, lsn, { task: "test" }))).toBe("of this generation");
  expect(stale.faults).toBeGreaterThan(0);
  await manager.shutdown({ flush: false });
});
