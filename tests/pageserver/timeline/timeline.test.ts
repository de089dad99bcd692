import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import type { Key } from "../../../src/keyspace/key.ts";
import { AUX_KEY_PREFIX, relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const CHILD = "22222222222222222222222222222222";
const CONTEXT = { task: "test" };

function block(number: number): Key {
  return relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
}

async function putText(timeline: Timeline, lsn: number, entries: readonly [Key, string][]): Promise<void> {
  await timeline.put(entries.map(([key, text]) => ({ key, lsn, value: { kind: "image" as const, bytes: utf8(text) } })));
  timeline.advance(lsn, lsn - 8);
}

async function text(timeline: Timeline, key: Key, lsn: number): Promise<string> {
  return utf8ToString(await timeline.get(key, lsn, CONTEXT));
}

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => {
  await fixture.close();
  fixture.log.assertQuiet();
});

describe("a timeline", () => {
  test("reads what was put, from memory and from layers, at every LSN", async () => {
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    await putText(timeline, 0x1000, [[block(1), "a"], [block(2), "x"]]);
    await putText(timeline, 0x1010, [[block(1), "b"]]);
    await timeline.freezeAndFlush();
    await putText(timeline, 0x1020, [[block(1), "c"]]);
    expect(timeline.diskConsistentLsn).toBe(0x1010);
    expect(await text(timeline, block(1), 0x1000)).toBe("a");
    expect(await text(timeline, block(1), 0x1010)).toBe("b");
    expect(await text(timeline, block(1), 0x101f)).toBe("b");
    expect(await text(timeline, block(1), 0x1020)).toBe("c");
    expect(await text(timeline, block(2), 0x1020)).toBe("x");
    const [missing] = await timeline.getVectored([block(3)], 0x1020, CONTEXT);
    expect(missing).toMatchObject({ code: "missing-key", kind: "not-found" });
    await manager.shutdown({ flush: false });
  });

  test("takes values again that were put and never became readable", async () => {
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    await putText(timeline, 0x1000, [[block(1), "a"], [block(2), "x"]]);
    const value = (key: Key, lsn: number, content: string) => ({ key, lsn, value: { kind: "image" as const, bytes: utf8(content) } });
    await timeline.put([value(block(1), 0x1010, "b"), value(block(1), 0x1020, "c"), value(block(3), 0x1030, "lost")]);
    await timeline.put([value(block(1), 0x1010, "b"), value(block(2), 0x1018, "y"), value(block(1), 0x1020, "d")]);
    timeline.advance(0x1020, 0x1018);
    for (const flushed of [false, true]) {
      if (flushed) await timeline.freezeAndFlush();
      expect(await text(timeline, block(1), 0x1010)).toBe("b");
      expect(await text(timeline, block(1), 0x1020)).toBe("d");
      expect(await text(timeline, block(2), 0x1017)).toBe("x");
      expect(await text(timeline, block(2), 0x1020)).toBe("y");
      expect((await timeline.getVectored([block(3)], 0x1020, CONTEXT))[0]).toMatchObject({ code: "missing-key" });
    }
    await manager.shutdown({ flush: false });
  });

  test("is there again after a restart, from local files and from the bucket alone", async () => {
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 16 });
    await putText(timeline, 0x1000, [[block(1), "a"]]);
    await putText(timeline, 0x1010, [[block(1), "b"]]);
    await manager.shutdown({ flush: true });
    for (const [generation, directory] of [[2, undefined], [3, `${fixture.directory}-empty`]] as const) {
      const again = await fixture.attach(generation, { directory });
      await again.loadTimelines();
      const loaded = again.get(ROOT);
      expect(loaded.lastRecordLsn).toBe(0x1010);
      expect(loaded.prevRecordLsn).toBe(0x1008);
      expect(loaded.pgVersion).toBe(16);
      expect([...loaded.stack.map.layers()].map((layer) => layer.isResident)).toEqual([generation === 2]);
      expect(await text(loaded, block(1), 0x1000)).toBe("a");
      expect(await text(loaded, block(1), 0x1010)).toBe("b");
      await again.shutdown({ flush: false });
    }
  });

  test("branches see their past, not the parent's future", async () => {
    const manager = await fixture.attach(1);
    const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    await putText(root, 0x1000, [[block(1), "a"], [block(2), "x"]]);
    await putText(root, 0x1010, [[block(1), "b"]]);
    const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1008 });
    await putText(root, 0x1020, [[block(2), "y"]]);
    await putText(child, 0x1010, [[block(1), "child"]]);
    expect(await text(child, block(1), 0x1008)).toBe("a");
    expect(await text(child, block(1), 0x1010)).toBe("child");
    expect(await text(child, block(2), 0x1030)).toBe("x");
    await expect(manager.deleteTimeline(ROOT)).rejects.toMatchObject({ code: "timeline-has-children" });
    await manager.shutdown({ flush: true });
    const again = await fixture.attach(2);
    await again.loadTimelines();
    expect(await text(again.get(CHILD), block(1), 0x1010)).toBe("child");
    expect(await text(again.get(CHILD), block(2), 0x1010)).toBe("x");
    await again.deleteTimeline(CHILD);
    await again.deleteTimeline(ROOT);
    expect((await fixture.bucket.list({ prefix: "" })).objects).toEqual([]);
    await again.shutdown({ flush: false });
  });

  test("compaction, images and GC change nothing that may be asked for", async () => {
    const keys = [block(1), block(2), block(3)];
    fixture.liveKeys = () => keys;
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    for (let i = 0; i < 30; i++) {
      await putText(timeline, 0x1000 + i * 8, i === 0 ? keys.map((key) => [key, "first"] as [Key, string]) : [[keys[i % 3], `v${i}`]]);
      if (i % 3 === 2) await timeline.freezeAndFlush();
    }
    const before = await timeline.getVectored(keys, timeline.lastRecordLsn, CONTEXT);
    const maintenance = manager.maintenanceOf(ROOT);
    await maintenance.compact({ forceL0: true, forceImages: true });
    expect(timeline.stack.map.l0.length).toBe(0);
    expect([...timeline.stack.map.layers()].map((layer) => layer.name.kind).sort()).toEqual(["delta", "image"]);
    expect(await timeline.getVectored(keys, timeline.lastRecordLsn, CONTEXT)).toEqual(before);
    expect(await text(timeline, keys[1], 0x1000 + 4 * 8)).toBe("v4");
    await putText(timeline, 0x2000, [[keys[0], "later"]]);
    await timeline.freezeAndFlush();
    expect(await maintenance.collectGarbage()).toMatchObject({ cutoff: 0x2000, removed: 1 });
    expect(await text(timeline, keys[0], 0x2000)).toBe("later");
    expect(await text(timeline, keys[1], 0x2000)).toBe("v28");
    await timeline.waitUploaded();
    await fixture.deletionQueue.flush();
    const objects = (await fixture.bucket.list({ prefix: "" })).objects.map((object) => object.key.split("/").at(-1));
    expect(objects.length).toBe(3);
    await manager.shutdown({ flush: false });
  });

  test("scans sparse keys over layers, images and removals", async () => {
    const aux = (n: number): Key => ({ field1: AUX_KEY_PREFIX, field2: 0, field3: 0, field4: 0, field5: 0, field6: n });
    const range = { start: aux(0), end: { ...aux(0), field1: AUX_KEY_PREFIX + 1 } };
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    await putText(timeline, 0x1000, [[block(1), "a"], [aux(1), "one"], [aux(2), "two"]]);
    await timeline.freezeAndFlush();
    await putText(timeline, 0x1008, [[aux(2), ""], [aux(3), "three"]]);
    const scan = async (lsn: number) => (await timeline.scan(range, lsn, CONTEXT)).map(({ key, bytes }) => `${key.field6}${utf8ToString(bytes)}`);
    expect(await scan(0x1000)).toEqual(["1one", "2two"]);
    expect(await scan(0x1008)).toEqual(["1one", "3three"]);
    await timeline.freezeAndFlush();
    await manager.maintenanceOf(ROOT).compact({ forceL0: true, forceImages: true });
    expect([...timeline.stack.map.layers()].filter((layer) => layer.name.kind === "image").length).toBe(1);
    expect(await scan(0x1000)).toEqual(["1one", "2two"]);
    expect(await scan(0x1008)).toEqual(["1one", "3three"]);
    const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
    expect(await child.scan(range, 0x1008, CONTEXT)).toEqual([]);
    await manager.shutdown({ flush: false });
  });

  test("a record put in part is flushed when it is whole, and forgotten at shutdown when it never is", async () => {
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    await putText(timeline, 0x1000, [[block(1), "a"]]);
    await timeline.put([{ key: block(1), lsn: 0x1010, value: { kind: "image", bytes: utf8("b") } }]);
    expect(await text(timeline, block(1), 0x1000)).toBe("a");
    const flushed = timeline.freezeAndFlush();
    await timeline.put([{ key: block(2), lsn: 0x1010, value: { kind: "image", bytes: utf8("b2") } }]);
    expect(timeline.diskConsistentLsn).toBe(0);
    timeline.advance(0x1010, 0x1000);
    await flushed;
    expect(timeline.diskConsistentLsn).toBe(0x1010);
    await putText(timeline, 0x1018, [[block(1), "c"]]);
    await timeline.put([{ key: block(1), lsn: 0x1020, value: { kind: "image", bytes: utf8("half") } }]);
    await manager.shutdown({ flush: true });
    const again = await fixture.attach(2);
    await again.loadTimelines();
    expect(again.get(ROOT).lastRecordLsn).toBe(0x1018);
    expect(await text(again.get(ROOT), block(1), 0x2000)).toBe("c");
    expect(await text(again.get(ROOT), block(2), 0x2000)).toBe("b2");
    await again.shutdown({ flush: false });
  });

  test("waiting for an LSN ends with its arrival, a timeout or a cancellation", async () => {
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
    const waiting = timeline.waitLsn(0x1000, { who: "reader" });
    await expect(timeline.waitLsn(0x2000, { who: "reader", timeoutMs: 5 })).rejects.toMatchObject({ code: "wait-lsn-timeout", kind: "retry" });
    const abort = new AbortController();
    const cancelled = timeline.waitLsn(0x2000, { who: "reader", signal: abort.signal });
    expect(timeline.waitingForLsn().map(({ lsn, who }) => ({ lsn, who }))).toEqual([{ lsn: 0x1000, who: "reader" }, { lsn: 0x2000, who: "reader" }]);
    abort.abort();
    await expect(cancelled).rejects.toThrow("cancelled");
    await putText(timeline, 0x1000, [[block(1), "a"]]);
    await waiting;
    await manager.shutdown({ flush: false });
  });
});
