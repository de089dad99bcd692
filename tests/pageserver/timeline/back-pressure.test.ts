/** Whoever writes waits when files are not made, or not merged, as fast as values come; whoever reads does not. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { JobsHere } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11".repeat(16);
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);
const NEVER_MS = 1e9;
const STALL_AT = 4;

let fixture: StorageFixture;
let manager: TimelineManager;
let timeline: Timeline;
let held: PromiseWithResolvers<void> | null = null;
beforeEach(async () => {
  fixture = await storageFixture();
  fixture.config = { ...fixture.config, compactionPeriodMs: NEVER_MS, compactionThreshold: 1000, l0FlushStallThreshold: STALL_AT };
  const here = new JobsHere(fixture.platform);
  fixture.jobRunner = {
    run: async (job, signal) => {
      if (job.kind === "write-frozen") await held?.promise;
      return await here.run(job, signal);
    },
  };
  manager = await fixture.attach(1);
  timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
});
afterEach(async () => {
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

async function put(number: number): Promise<void> {
  const lsn = 0x1000 + number * 8;
  await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: utf8(`value ${number}`) } }]);
  timeline.advance(lsn, lsn - 8);
}

const read = async (number: number): Promise<string> => utf8ToString(await timeline.get(KEY, 0x1000 + number * 8, { task: "test" }));

/** Whether it still waits after a while. */
async function waits(work: Promise<void>): Promise<boolean> {
  return await Promise.race([work.then(() => false), Bun.sleep(50).then(() => true)]);
}

test("with too many L0 layers, until they are merged", async () => {
  for (let number = 0; number < STALL_AT; number++) {
    expect(await waits(put(number))).toBe(false);
    await timeline.freezeAndFlush();
  }
  const writing = put(STALL_AT);
  expect(await waits(writing)).toBe(true);
  expect([await read(0), await read(STALL_AT - 1)]).toEqual(["value 0", `value ${STALL_AT - 1}`]);
  await manager.maintenanceOf(ROOT).compact({ forceL0: true });
  await writing;
  expect([await read(0), await read(STALL_AT)]).toEqual(["value 0", `value ${STALL_AT}`]);
});

test("not with compaction turned off: nobody would ever let it go on", async () => {
  fixture.config = { ...fixture.config, compactionPeriodMs: 0 };
  for (let number = 0; number < STALL_AT + 2; number++) {
    expect(await waits(put(number))).toBe(false);
    await timeline.freezeAndFlush();
  }
});

test("with three frozen layers, until the disk has one of them", async () => {
  held = Promise.withResolvers();
  const flushes: Promise<void>[] = [];
  for (let number = 0; number < 3; number++) {
    expect(await waits(put(number))).toBe(false);
    flushes.push(timeline.freezeAndFlush());
  }
  const writing = put(3);
  expect(await waits(writing)).toBe(true);
  expect([await read(0), await read(2)]).toEqual(["value 0", "value 2"]);
  held.resolve();
  held = null;
  await writing;
  await Promise.all(flushes);
  expect([await read(0), await read(3)]).toEqual(["value 0", "value 3"]);
});

test("who waits is told when the timeline stops", async () => {
  for (let number = 0; number < STALL_AT; number++) {
    await put(number);
    await timeline.freezeAndFlush();
  }
  const writing = put(STALL_AT);
  const failed = writing.catch((error: unknown) => String(error));
  expect(await waits(writing)).toBe(true);
  await manager.shutdown({ flush: false });
  expect(await failed).toContain("is stopping");
});
