/** Records that were handed over in part come again from the beginning: after a failed disk, or when the WAL's sender left. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import type { KeyValue } from "../../../src/interpret/value.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { NaiveTimeline } from "./naive-timeline.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const KEYS = Array.from({ length: 8 }, (_, block) => slruBlockKey("clog", 0, block));

let fixture: StorageFixture;
let manager: TimelineManager;
let timeline: Timeline;
let naive: NaiveTimeline;
beforeEach(async () => {
  fixture = await storageFixture();
  manager = await fixture.attach(1);
  timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  naive = new NaiveTimeline(0);
  const images = KEYS.map((key): KeyValue => ({ key, lsn: 0x1000, value: { kind: "image", bytes: new Uint8Array(8192) } }));
  for (const image of images) naive.put(image);
  await timeline.put(images);
  timeline.advance(0x1000, 0xff8);
});
afterEach(async () => {
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

/** The records of an LSN: each key gets a bit of its own. */
function recordsAt(lsn: number, keys = KEYS): KeyValue[] {
  return keys.map((key) => ({ key, lsn, value: { kind: "neon", record: { type: "clog-set-committed", xids: [key.field6 * 32_768 + (lsn % 32_768)], timestamp: BigInt(lsn) } } }));
}

async function compare(): Promise<void> {
  for (let lsn = 0x1000; lsn <= timeline.lastRecordLsn; lsn += 8) {
    const pages = await timeline.getVectored(KEYS, lsn, { task: "test" });
    KEYS.forEach((key, i) => {
      if (pages[i] instanceof Error) throw pages[i];
      expect(Buffer.compare(pages[i] as Uint8Array, naive.get(key, lsn) ?? new Uint8Array(0))).toBe(0);
    });
  }
}

test("several records at once, of which none was made readable", async () => {
  const lsns = [0x1010, 0x1020, 0x1030];
  // What was handed over when it ended: some keys at all three LSNs, some at the last alone.
  await timeline.put([...recordsAt(0x1010, KEYS.slice(0, 3)), ...recordsAt(0x1020, KEYS.slice(2, 5)), ...recordsAt(0x1030, KEYS.slice(0, 7))]);
  for (const lsn of lsns) {
    for (const record of recordsAt(lsn)) naive.put(record);
    await timeline.put(recordsAt(lsn));
    timeline.advance(lsn, timeline.lastRecordLsn);
  }
  await compare();
  await timeline.freezeAndFlush();
  await compare();
});

test("nothing of what did not come again is left when the timeline is flushed", async () => {
  await timeline.put([...recordsAt(0x1010), ...recordsAt(0x1020)]);
  for (const record of recordsAt(0x1010)) naive.put(record);
  await timeline.put(recordsAt(0x1010));
  timeline.advance(0x1010, 0x1000);
  await manager.shutdown({ flush: true });
  manager = await fixture.attach(2);
  await manager.loadTimelines();
  timeline = manager.get(ROOT);
  expect(timeline.lastRecordLsn).toBe(0x1010);
  for (const record of recordsAt(0x1020)) naive.put(record);
  await timeline.put(recordsAt(0x1020));
  timeline.advance(0x1020, 0x1010);
  await compare();
});
