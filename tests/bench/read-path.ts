/**
 * Page reads: `bun run bench read-path [--seconds N]`.
 *
 * A timeline in a temporary directory, every page with the same history: an image, then one record in each of many layers.
 * Reads of random pages, one key each, over (1) a long chain in the open layer, most of it spilled to its file, (2) a stack
 * of 20 L0 delta layers, (3) images in a delta layer, (4) an image layer. Beside each stands what applying the same records to a page
 * costs without any storage, measured in the same run: the share of the read that is storage's.
 */
import { parseArgs } from "node:util";
import { slruBlockKey } from "../../src/keyspace/mapping.ts";
import type { KeyValue } from "../../src/interpret/value.ts";
import { encodeValue } from "../../src/interpret/value-codec.ts";
import { Pacer } from "../../src/pageserver/layers/pacer.ts";
import { Reconstructor } from "../../src/pageserver/timeline/reconstruct.ts";
import type { Timeline } from "../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../src/pageserver/timelines/timeline-manager.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { SeededRandom } from "../../src/platform/virtual/seeded-random.ts";
import { storageFixture } from "../pageserver/timeline/storage-fixture.ts";

const PAGES = 512;
const DELTA_LAYERS = 20;
const RECORDS_PER_LAYER = 3;
const CHAIN = 130;
const XIDS_PER_BLOCK = 8192 * 4;
const START_LSN = 0x1000;
const CONTEXT = { task: "bench" };

const keyOf = (index: number) => slruBlockKey("clog", Math.floor(index / 32), index % 32);
const random = new SeededRandom(7);

function image(index: number, lsn: number): KeyValue {
  return { key: keyOf(index), lsn, value: { kind: "image", bytes: random.bytes(8192) } };
}

/** @param padding xids beside the first, to give records the size of ordinary ones */
function record(index: number, lsn: number, padding = 24): KeyValue {
  const xids = Array.from({ length: 1 + padding }, () => index * XIDS_PER_BLOCK + random.below(XIDS_PER_BLOCK));
  return { key: keyOf(index), lsn, value: { kind: "neon", record: { type: "clog-set-committed", xids, timestamp: 1n } } };
}

/** Of every page `count` records, each page's own LSN after the other's. */
async function putRecords(timeline: Timeline, count: number): Promise<void> {
  for (let round = 0; round < count; round++) {
    const values: KeyValue[] = [];
    let lsn = timeline.lastRecordLsn;
    for (let index = 0; index < PAGES; index++) values.push(record(index, (lsn += 8)));
    await timeline.put(values);
    timeline.advance(lsn, lsn - 8);
  }
}

/** Pages a second of single-key reads, by one reader. */
async function readPages(timeline: Timeline, durationMs: number): Promise<number> {
  const lsn = timeline.lastRecordLsn;
  const startMs = performance.now();
  let pages = 0;
  while (performance.now() - startMs < durationMs) {
    await timeline.get(keyOf(random.below(PAGES)), lsn, CONTEXT);
    pages++;
  }
  return pages / ((performance.now() - startMs) / 1000);
}

/** The same number of records on a page, from memory. */
async function rawRedo(records: number, durationMs: number): Promise<number> {
  const reconstructor = new Reconstructor(17);
  const { clock } = realPlatform();
  const values = Array.from({ length: records }, (_, i) => ({ lsn: START_LSN + (records - i) * 8, willInit: false, bytes: encodeValue(record(0, 0).value) }));
  const base = new Uint8Array(8192);
  const startMs = performance.now();
  let pages = 0;
  while (performance.now() - startMs < durationMs) {
    await reconstructor.reconstruct({ key: keyOf(0), values, base }, new Pacer(clock));
    pages++;
  }
  return pages / ((performance.now() - startMs) / 1000);
}

async function freshTimeline(manager: TimelineManager, id: number): Promise<Timeline> {
  const timeline = await manager.createTimeline({ timelineId: id.toString(16).padStart(32, "0"), initdbLsn: START_LSN, pgVersion: 17 });
  await timeline.put(Array.from({ length: PAGES }, (_, index) => image(index, START_LSN)));
  timeline.advance(START_LSN, START_LSN - 8);
  return timeline;
}

async function report(name: string, timeline: Timeline, measured: { records: number; durationMs: number }): Promise<void> {
  await readPages(timeline, measured.durationMs / 4);
  const perSecond = await readPages(timeline, measured.durationMs);
  const raw = await rawRedo(measured.records, measured.durationMs / 2);
  console.log(`${name.padEnd(44)} ${String(Math.round(perSecond)).padStart(8)} pages/s ${(1e6 / perSecond).toFixed(1).padStart(8)} µs   redo alone ${(1e6 / raw).toFixed(1).padStart(8)} µs`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "2" } } });
  const durationMs = Number(values.seconds) * 1000;
  const fixture = await storageFixture({ cacheBytes: 128 * 1024 * 1024 });
  fixture.liveKeys = () => Array.from({ length: PAGES }, (_, i) => keyOf(i));
  const manager = await fixture.attach(1);
  try {
    const chain = await freshTimeline(manager, 1);
    await putRecords(chain, CHAIN);
    await report(`open layer, ${CHAIN} records a page`, chain, { records: CHAIN, durationMs });
    const stack = await freshTimeline(manager, 2);
    for (let layer = 0; layer < DELTA_LAYERS; layer++) {
      await putRecords(stack, RECORDS_PER_LAYER);
      await stack.freezeAndFlush();
    }
    await report(`${DELTA_LAYERS} delta layers, ${RECORDS_PER_LAYER} records a page in each`, stack, { records: DELTA_LAYERS * RECORDS_PER_LAYER, durationMs });
    const images = await freshTimeline(manager, 3);
    await images.freezeAndFlush();
    await report("image in one delta layer", images, { records: 0, durationMs });
    await manager.maintenanceOf(images.timelineId).compact({ forceImages: true });
    await report("image layer", images, { records: 0, durationMs });
  } finally {
    await manager.shutdown({ flush: false });
    await fixture.close();
  }
}

await main();
