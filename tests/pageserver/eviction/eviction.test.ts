import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import type { Key } from "../../../src/keyspace/key.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { Metrics } from "../../../src/observability/metrics.ts";
import { Eviction, type EvictionOptions } from "../../../src/pageserver/eviction/eviction.ts";
import { EvictionMetrics } from "../../../src/pageserver/eviction/eviction-metrics.ts";
import type { Clock } from "../../../src/platform/clock.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { type StorageFixture, storageFixture, TENANT } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const GIB = 1024 ** 3;
const block = (number: number): Key => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
const page = (number: number): Uint8Array => Uint8Array.from({ length: 8192 }, (_, i) => Math.imul(i + number, 0x9e3779b1) >>> 24);

let fixture: StorageFixture;
let timeline: Timeline;
/** Time that passed without anybody waiting for it. */
let passedMs = 0;
let end: () => Promise<void>;
beforeEach(async () => {
  passedMs = 0;
  fixture = await storageFixture();
  const manager = await fixture.attach(1);
  timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  for (let layer = 0; layer < 4; layer++) {
    const lsn = 0x1000 + layer * 0x10;
    await timeline.put([{ key: block(layer), lsn, value: { kind: "image", bytes: page(layer) } }]);
    timeline.advance(lsn, lsn - 8);
    await timeline.freezeAndFlush();
  }
  end = () => manager.shutdown({ flush: false });
});
afterEach(async () => {
  await end();
  await fixture.close();
});

function eviction(settings: { minResidentSizeBytes: number | null; accessEviction: { periodMs: number; thresholdMs: number } | null }, space: { free: number }): { tasks: ReturnType<Eviction["tasks"]>; metrics: Metrics } {
  const metrics = new Metrics();
  const tenants = { list: () => [{ id: TENANT, tenant: { state: "active", settings, listTimelines: () => [{ timeline }] } }] } as unknown as EvictionOptions["tenants"];
  const { clock: real } = fixture.platform;
  const clock: Clock = { wallMs: () => real.wallMs(), monotonicMs: () => real.monotonicMs() + passedMs, sleep: (ms, signal) => real.sleep(ms, signal), after: (ms, work) => real.after(ms, work) };
  const config = { enabled: true, maxUsagePercent: 80, minAvailableBytes: 0, periodMs: 1, order: { highestLayerCountLosesFirst: true } };
  const evictions = new Eviction({ tenants, config, clock, log: fixture.log, diskSpace: () => ({ totalBytes: 10 * GIB, freeBytes: space.free, availableBytes: space.free }), metrics: new EvictionMetrics(metrics) });
  return { tasks: evictions.tasks(), metrics };
}

async function run(tasks: ReturnType<Eviction["tasks"]>, name: string): Promise<void> {
  await tasks.find((task) => task.name === name)?.run(new AbortController().signal);
}

const resident = (): number => [...timeline.stack.map.layers()].filter((layer) => layer.isResident && existsSync(layer.path)).length;

async function expectAllReadable(): Promise<void> {
  for (let layer = 0; layer < 4; layer++) expect(Buffer.compare(await timeline.get(block(layer), timeline.lastRecordLsn, { task: "test" }), page(layer))).toBe(0);
}

describe("eviction", () => {
  test("when the disk fills: as much as is wanted, the longest unread first, only what the bucket has; it comes back on demand", async () => {
    const { tasks, metrics } = eviction({ minResidentSizeBytes: null, accessEviction: null }, { free: 2 * GIB - 20_000 });
    await timeline.waitUploaded();
    const layers = [...timeline.stack.map.layers()].sort((a, b) => (a.toString() < b.toString() ? -1 : 1));
    layers.forEach((layer, at) => (layer.lastAccessMs = 1000 + at));
    await run(tasks, "disk usage eviction");
    expect(resident()).toBe(3);
    expect(layers.map((layer) => layer.isResident)).toEqual([false, true, true, true]);
    const text = await metrics.render();
    expect(text).toMatch(/pageserver_disk_usage_based_eviction_evicted_layers_total 1\n/);
    expect(timeline.counts.evictions).toBe(1);
    expect(timeline.counts.lowResidenceEvictions).toBe(1);
    await expectAllReadable();
    expect(resident()).toBe(4);
  });

  test("not while there is room, and not what has not been uploaded", async () => {
    await run(eviction({ minResidentSizeBytes: null, accessEviction: null }, { free: 2 * GIB }).tasks, "disk usage eviction");
    expect(resident()).toBe(4);
  });

  test("by access: what nobody has read for as long as the tenant says", async () => {
    await timeline.waitUploaded();
    const { tasks } = eviction({ minResidentSizeBytes: null, accessEviction: { periodMs: 600_000, thresholdMs: 60_000 } }, { free: 10 * GIB });
    const layers = [...timeline.stack.map.layers()];
    for (const layer of layers.slice(0, 2)) layer.lastAccessMs -= 61_000;
    await run(tasks, "eviction by access");
    expect(layers.map((layer) => layer.isResident)).toEqual([false, false, true, true]);
    // Not again before its period has passed.
    for (const layer of layers) layer.lastAccessMs -= 61_000;
    passedMs = 599_000;
    await run(tasks, "eviction by access");
    expect(layers.map((layer) => layer.isResident)).toEqual([false, false, true, true]);
    passedMs = 601_000;
    await run(tasks, "eviction by access");
    expect(layers.map((layer) => layer.isResident)).toEqual([false, false, false, false]);
    await expectAllReadable();
  });
});
