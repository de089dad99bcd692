/** Branches made while other things happen: deletion of the parent, a lost answer, a lease on collected history. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { utf8ToString } from "../../../src/kit/bytes.ts";
import { JobsHere } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";
import { putText, TEXT_KEY } from "../timeline/text-values.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const CHILD = "22222222222222222222222222222222";
const CONTEXT = { task: "test" };

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => {
  await fixture.close();
  fixture.log.assertQuiet();
});

/** A root with three values, each in a layer of its own. */
async function makeRoot(manager: TimelineManager): Promise<Timeline> {
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  for (const [lsn, text] of [[0x1000, "a"], [0x1010, "b"], [0x1020, "c"]] as const) {
    await putText(root, lsn, text);
    await root.freezeAndFlush();
  }
  await root.waitUploaded();
  return root;
}

test("a timeline that is being deleted takes no more branches", async () => {
  const manager = await fixture.attach(1);
  await makeRoot(manager);
  const deletion = manager.deleteTimeline(ROOT);
  expect(await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT }).catch((error: unknown) => error)).toMatchObject({ kind: "conflict", code: "timeline-busy" });
  await deletion;
  expect(manager.timelineIds).toEqual([]);
  await manager.shutdown({ flush: false });
});

test("a branch that is still being made takes no branches, and is not deleted", async () => {
  const storage = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const manager = await fixture.attach(1, { bucket: storage });
  await makeRoot(manager);
  // It is not made before its index arrives.
  storage.plan = { ...storage.plan, failBefore: 1 };
  const creation = manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
  // Its directory and entry come first.
  while (!manager.timelineIds.includes(CHILD)) await Bun.sleep(0);
  const grandchild = manager.createBranch({ timelineId: "33".repeat(16), ancestorTimelineId: CHILD }).catch((error: unknown) => error);
  const deletion = manager.deleteTimeline(CHILD).catch((error: unknown) => error);
  expect(await grandchild).toMatchObject({ code: "timeline-busy" });
  expect(await deletion).toMatchObject({ code: "timeline-busy" });
  storage.plan = { ...storage.plan, failBefore: 0 };
  await creation;
  await manager.shutdown({ flush: false });
});

test("a branch whose creator gave up, its index uploaded already, does not come back", async () => {
  const storage = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const manager = await fixture.attach(1, { bucket: storage });
  const root = await makeRoot(manager);
  // The index arrives each time, and nobody hears of it.
  storage.plan = { ...storage.plan, failAfter: 1 };
  const giveUp = new AbortController();
  const creation = manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010, signal: giveUp.signal }).catch((error: unknown) => error);
  while ((await fixture.bucket.list({ prefix: "" })).objects.every(({ key }) => !key.includes(CHILD))) await Bun.sleep(1);
  giveUp.abort(new Error("gave up"));
  storage.plan = { ...storage.plan, failAfter: 0 };
  expect(String(await creation)).toContain("gave up");
  expect([...root.branchPoints.keys()]).toEqual([]);
  await manager.shutdown({ flush: false });
  const next = await fixture.attach(2);
  await next.loadTimelines();
  expect(next.timelineIds).toEqual([ROOT]);
  await next.shutdown({ flush: false });
});

test("while a half-made branch may come back, what it sees is kept", async () => {
  const storage = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  fixture.liveKeys = () => [TEXT_KEY];
  const manager = await fixture.attach(1, { bucket: storage });
  const root = await makeRoot(manager);
  storage.plan = { ...storage.plan, failAfter: 1 };
  const creation = manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 }).catch((error: unknown) => error);
  while ((await fixture.bucket.list({ prefix: "" })).objects.every(({ key }) => !key.includes(CHILD))) await Bun.sleep(1);
  const shutdown = manager.shutdown({ flush: false });
  await creation;
  await shutdown;
  expect(root.branchPoints.get(CHILD)).toBe(0x1010);
  const next = await fixture.attach(2);
  await next.loadTimelines();
  await next.maintenanceOf(ROOT).compact({ forceL0: true, forceImages: true });
  await next.maintenanceOf(ROOT).collectGarbage();
  expect(utf8ToString(await next.get(CHILD).get(TEXT_KEY, 0x1010, CONTEXT))).toBe("b");
  await next.shutdown({ flush: false });
});

test("a branch at a leased LSN below the cutoff can be read there, after a restart as well", async () => {
  const manager = await fixture.attach(1);
  const root = await makeRoot(manager);
  root.leases.grant(0x1010, 60_000);
  await manager.maintenanceOf(ROOT).collectGarbage();
  expect(root.gcCutoffLsn).toBe(0x1020);
  expect(await manager.createBranch({ timelineId: "33".repeat(16), ancestorTimelineId: ROOT, lsn: 0x1008 }).catch((error: unknown) => error)).toMatchObject({ code: "bad-branch-lsn" });
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 });
  expect(child.gcCutoffLsn).toBe(0x1010);
  await manager.shutdown({ flush: true });
  const next = await fixture.attach(2);
  await next.loadTimelines();
  expect(next.get(CHILD).gcCutoffLsn).toBe(0x1010);
  expect(utf8ToString(await next.get(CHILD).get(TEXT_KEY, 0x1010, CONTEXT))).toBe("b");
  await next.shutdown({ flush: false });
});

test("a branch of a timeline that is only in memory brings it to object storage first", async () => {
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await putText(root, 0x1000, "a");
  await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
  await manager.shutdown({ flush: false });
  const next = await fixture.attach(2);
  await next.loadTimelines();
  expect([...next.brokenTimelines]).toEqual([]);
  expect(utf8ToString(await next.get(CHILD).get(TEXT_KEY, 0x1000, CONTEXT))).toBe("a");
  await next.shutdown({ flush: false });
});

test("a branch is made while a merge of the parent hangs, and a collection behind it", async () => {
  const held = Promise.withResolvers<void>();
  const here = new JobsHere(fixture.platform);
  let heldJobs = 0;
  fixture.jobRunner = {
    run: async (job, signal) => {
      if (job.kind !== "compact-l0") return await here.run(job, signal);
      heldJobs++;
      await held.promise;
      return await here.run(job, signal);
    },
  };
  const manager = await fixture.attach(1);
  const root = await makeRoot(manager);
  const maintenance = manager.maintenanceOf(ROOT);
  const merge = maintenance.compact({ forceL0: true });
  const collection = maintenance.collectGarbage();
  while (heldJobs === 0) await Bun.sleep(1);
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 });
  expect(utf8ToString(await child.get(TEXT_KEY, 0x1010, CONTEXT))).toBe("b");
  held.resolve();
  await merge;
  // It was asked for before the branch, comes after it, and sees it.
  await collection;
  expect(root.stack.map.l0.length).toBe(0);
  expect(utf8ToString(await child.get(TEXT_KEY, 0x1010, CONTEXT))).toBe("b");
  await manager.shutdown({ flush: false });
});

test("a branch has no local directory until it has a file, and none after a start without one", async () => {
  const { files } = fixture.platform;
  const manager = await fixture.attach(1);
  await makeRoot(manager);
  const branch = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
  expect(await files.exists(branch.directory)).toBe(false);
  await manager.shutdown({ flush: false });

  const second = await fixture.attach(2);
  await second.loadTimelines();
  const again = second.get(CHILD);
  expect(utf8ToString(await again.get(TEXT_KEY, 0x1020, CONTEXT))).toBe("c");
  expect(await files.exists(again.directory)).toBe(false);
  await putText(again, 0x1030, "d");
  await again.freezeAndFlush();
  await again.waitUploaded();
  expect((await files.list(again.directory)).length).toBe(1);
  await second.shutdown({ flush: false });

  // Whatever becomes of the directory, what object storage has comes back.
  await files.removeTree(again.directory);
  const third = await fixture.attach(3);
  await third.loadTimelines();
  expect(utf8ToString(await third.get(CHILD).get(TEXT_KEY, 0x1030, CONTEXT))).toBe("d");
  expect((await files.list(again.directory)).length).toBe(1);
  await third.shutdown({ flush: false });
});
