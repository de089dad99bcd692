/**
 * A timeline that is deleted and made again under the same name, in the same generation: nothing that was under way for the earlier one
 * touches the later one. And whose generation is not the newest deletes nothing, whoever asked.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import { listAll, storageUnavailable } from "../../../src/remote-storage/remote-storage.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11".repeat(16);
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(() => fixture.close());

async function fill(root: Timeline, words: readonly string[]): Promise<void> {
  for (const [at, text] of words.entries()) {
    const lsn = 0x1000 + at * 16;
    await root.put([{ key: KEY, lsn, value: { kind: "image", bytes: utf8(text) } }]);
    root.advance(lsn, lsn - 8);
    await root.freezeAndFlush();
  }
  await root.waitUploaded();
}

async function expectWords(words: readonly string[]): Promise<void> {
  const manager = await fixture.attach(2, { directory: `${fixture.directory}-empty` });
  await manager.loadTimelines();
  const found = [];
  for (const at of words.keys()) found.push(utf8ToString(await manager.get(ROOT).get(KEY, 0x1000 + at * 16, { task: "test" })));
  expect(found).toEqual([...words]);
  await manager.shutdown({ flush: false });
}

/** Made, with layers that were merged and wait for their deletion, which nobody can validate. */
async function makeMerged(manager: TimelineManager): Promise<Timeline> {
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await fill(root, ["a", "b"]);
  await manager.maintenanceOf(ROOT).compact({ forceL0: true });
  await root.waitUploaded();
  return root;
}

test("deletions that wait when a timeline is deleted are not of the next one by that name", async () => {
  const manager = await fixture.attach(1);
  await makeMerged(manager);
  await manager.deleteTimeline(ROOT);
  await fill(await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 }), ["A", "B"]);
  await fixture.deletionQueue.flush();
  await manager.shutdown({ flush: true });
  await expectWords(["A", "B"]);
});

test("nor when its creation failed in the end", async () => {
  const manager = await fixture.attach(1);
  const creation = manager.whileCreating(ROOT, async (create) => {
    await fill(await create({ initdbLsn: 0x1000, pgVersion: 17 }), ["a", "b"]);
    await manager.maintenanceOf(ROOT).compact({ forceL0: true });
    await manager.get(ROOT).waitUploaded();
    throw new Error("no more of it");
  });
  await expect(creation).rejects.toThrow("no more of it");
  await fill(await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 }), ["A", "B"]);
  await fixture.deletionQueue.flush();
  await manager.shutdown({ flush: true });
  await expectWords(["A", "B"]);
});

const keys = async (): Promise<string[]> => (await listAll(fixture.bucket, { prefix: "", maxTotal: 1000 })).objects.map(({ key }) => key);

test("a timeline is not deleted by who was attached before, whatever it was asked, and goes when it can be told", async () => {
  const old = await fixture.attach(1);
  await makeMerged(old);
  const oldQueue = fixture.deletionQueue;
  const next = await fixture.attach(2, { beside: true, directory: `${fixture.directory}-next` });
  await next.loadTimelines();
  const before = await keys();
  await expect(old.deleteTimeline(ROOT)).rejects.toMatchObject({ kind: "conflict", code: "stale-generation" });
  const after = await keys();
  expect(before.filter((key) => !after.includes(key))).toEqual([]);
  expect(utf8ToString(await next.get(ROOT).get(KEY, 0x1010, { task: "test" }))).toBe("b");
  fixture.generationIsValid = false;
  await expect(next.deleteTimeline(ROOT)).rejects.toMatchObject({ code: "stale-generation" });
  fixture.generationIsValid = true;
  await next.deleteTimeline(ROOT);
  expect((await keys()).filter((key) => key.includes(ROOT))).toEqual([]);
  await old.shutdown({ flush: false });
  await oldQueue.shutdown();
  await next.shutdown({ flush: false });
});

test("a creation that fails takes nothing away from one that succeeded under a later generation", async () => {
  const storage = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const old = await fixture.attach(1, { bucket: storage });
  const oldQueue = fixture.deletionQueue;
  const failing = Promise.withResolvers<never>();
  const creation = old.whileCreating(ROOT, async (create) => {
    await fill(await create({ initdbLsn: 0x1000, pgVersion: 17 }), ["a"]);
    return await failing.promise;
  });
  creation.catch(() => {});
  while (!(await keys()).some((key) => key.includes("index_part"))) await Bun.sleep(1);
  const next = await fixture.attach(2, { beside: true, directory: `${fixture.directory}-next` });
  await fill(await next.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 }), ["A", "B"]);
  await next.shutdown({ flush: true });
  failing.reject(new Error("the disk is full"));
  await expect(creation).rejects.toThrow("the disk is full");
  expect((await keys()).filter((key) => key.endsWith("-00000001"))).toEqual([]);
  await old.shutdown({ flush: false });
  await oldQueue.shutdown();
  const again = await fixture.attach(3, { directory: `${fixture.directory}-empty` });
  await again.loadTimelines();
  expect(utf8ToString(await again.get(ROOT).get(KEY, 0x1010, { task: "test" }))).toBe("B");
  await again.shutdown({ flush: false });
});

test("a deletion that a start found under way is tried until object storage is back", () => {
  const world = new VirtualWorld({ seed: 1 });
  world.clock.run(async () => {
    const virtual = await storageFixture({ machine: world.machine("pageserver") });
    const first = await virtual.attach(1);
    await fill(await first.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 }), ["a"]);
    await first.shutdown({ flush: true });
    const dying = new FaultInjectingStorage(virtual.bucket, virtual.platform);
    const second = await virtual.attach(2, { bucket: dying });
    await second.loadTimelines();
    // The mark arrives, and then nothing.
    dying.plan = { ...dying.plan, diesAfter: { requests: dying.requests, lastHasEffect: true } };
    const deletion = second.deleteTimeline(ROOT).catch(() => {});
    await dying.died;
    await second.shutdown({ flush: false });
    await deletion;
    const { requests } = dying;
    await world.clock.sleep(60_000);
    expect(dying.requests).toBe(requests);
    const away = new FaultInjectingStorage(virtual.bucket, virtual.platform);
    away.delete = () => Promise.reject(storageUnavailable("nothing can be deleted"));
    const third = await virtual.attach(3, { bucket: away });
    virtual.log.expectWarn(/could not be finished/);
    await third.loadTimelines();
    expect(third.timelineIds).toEqual([]);
    // Longer than one attempt lasts.
    await world.clock.sleep(600_000);
    expect((await virtual.bucket.list({ prefix: "" })).objects.length).toBeGreaterThan(1);
    Reflect.deleteProperty(away, "delete");
    await third.deleteTimeline(ROOT);
    expect((await virtual.bucket.list({ prefix: "" })).objects).toEqual([]);
    await third.shutdown({ flush: false });
    await virtual.close();
    virtual.log.assertQuiet();
  }, { maxMs: 1e9, maxSteps: 1e8 });
});
