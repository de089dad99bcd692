/** Pages that branches read through their ancestor share its place in the page cache, and are right on each of them. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const [FIRST, SECOND, EARLY, GRANDCHILD] = ["21", "22", "23", "24"].map((digits) => digits.repeat(16));
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => {
  await fixture.close();
  fixture.log.assertQuiet();
});

async function putPage(timeline: Timeline, lsn: number, content: number): Promise<void> {
  await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: new Uint8Array(8192).fill(content) } }]);
  timeline.advance(lsn, lsn - 8);
}

/** What the page is filled with, read without waiting, once its layers have been opened by a read that leaves the cache alone. */
async function contentNow(timeline: Timeline, lsn = timeline.lastRecordLsn): Promise<number> {
  const target = { bytes: new Uint8Array(8192), at: 0 };
  await timeline.get(KEY, lsn, { task: "test" });
  expect(timeline.readPageNow(KEY, lsn, target)).toBe(true);
  expect(new Set(target.bytes).size).toBe(1);
  return target.bytes[0];
}

/** As `contentNow`, and whether the page cache had it. */
async function lookedUp(timeline: Timeline, lsn = timeline.lastRecordLsn): Promise<{ readonly content: number; readonly fromCache: boolean }> {
  const { pages } = timeline.deps;
  const before = pages.hits;
  const content = await contentNow(timeline, lsn);
  return { content, fromCache: pages.hits > before };
}

test("what one branch has read of its ancestor, the next one finds in the cache; changes on either side stay there", async () => {
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await putPage(root, 0x1000, 1);
  await putPage(root, 0x1010, 2);
  const branch = (timelineId: string, lsn: number, ancestorTimelineId = ROOT) => manager.createBranch({ timelineId, ancestorTimelineId, lsn });
  const [first, second, early] = [await branch(FIRST, 0x1010), await branch(SECOND, 0x1010), await branch(EARLY, 0x1008)];
  await putPage(root, 0x1020, 3);
  expect(await lookedUp(first)).toEqual({ content: 2, fromCache: false });
  expect(await lookedUp(second)).toEqual({ content: 2, fromCache: true });
  expect(await lookedUp(early)).toEqual({ content: 1, fromCache: false });
  expect(await contentNow(root)).toBe(3);
  // The parent's newest page has the slot now, and the branches have their past all the same.
  expect(await contentNow(second)).toBe(2);

  await putPage(second, 0x1030, 9);
  expect(await contentNow(second)).toBe(9);
  expect(await contentNow(second, 0x1028)).toBe(2);
  expect(await lookedUp(first)).toMatchObject({ content: 2 });
  const grandchild = await branch(GRANDCHILD, 0x1028, SECOND);
  expect(await contentNow(grandchild)).toBe(2);
  await Promise.all([root, first, second].map((timeline) => timeline.freezeAndFlush()));
  for (const [timeline, content] of [[root, 3], [first, 2], [second, 9], [early, 1], [grandchild, 2]] as const) expect(await contentNow(timeline)).toBe(content);
  await manager.shutdown({ flush: false });
});

test("a read that is to take nothing from the cache takes nothing from an ancestor's either", async () => {
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await putPage(root, 0x1000, 1);
  const branch = await manager.createBranch({ timelineId: FIRST, ancestorTimelineId: ROOT, lsn: 0x1000 });
  expect(await contentNow(root)).toBe(1);
  const { pages } = branch.deps;
  const before = pages.hits;
  expect((await branch.get(KEY, 0x1000, { task: "test" }))[0]).toBe(1);
  expect(pages.hits).toBe(before);
  expect((await branch.get(KEY, 0x1000, { task: "test", cachePages: true }))[0]).toBe(1);
  expect(pages.hits).toBe(before + 1);
  await manager.shutdown({ flush: false });
});
