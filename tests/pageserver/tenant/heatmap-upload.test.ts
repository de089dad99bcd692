import { expect, setDefaultTimeout, test } from "bun:test";
import { StorageCounts } from "../../../src/pageserver/counts/storage-counts.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { heatmapKey } from "../../../src/pageserver/remote-timeline/remote-paths.ts";
import { HeatmapUpload } from "../../../src/pageserver/tenant/heatmap-upload.ts";
import { downloadBytes } from "../../../src/remote-storage/remote-storage.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import { storageFixture, TENANT } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const PERIOD_MS = 300_000;

test("a heatmap is due after its period, and soon again when its upload failed", async () => {
  const fixture = await storageFixture();
  const storage = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const manager = await fixture.attach(1);
  const timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: 0x1000, pgVersion: 17 });
  await timeline.put([{ key: relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1), lsn: 0x1000, value: { kind: "image", bytes: new Uint8Array(8192) } }]);
  timeline.advance(0x1000, 0xff8);
  await timeline.freezeAndFlush();
  await timeline.waitUploaded();
  const counts = { ...new StorageCounts().heatmaps };
  const heatmap = new HeatmapUpload({ tenantShardId: TENANT, generation: 1, listTimelines: () => [{ timeline }] }, storage, { clock: fixture.platform.clock, counts });
  expect(heatmap.isDue(PERIOD_MS, 1000)).toBe(true);
  storage.plan = { ...storage.plan, failBefore: 1 };
  await expect(heatmap.upload({ uploadPeriodMs: PERIOD_MS, nowMs: 1000 })).rejects.toMatchObject({ kind: "unavailable" });
  expect([counts.uploaded, counts.errors]).toEqual([0, 1]);
  storage.plan = { ...storage.plan, failBefore: 0 };
  expect([heatmap.isDue(PERIOD_MS, 5000), heatmap.isDue(PERIOD_MS, 11_000), heatmap.isDue(2000, 3000)]).toEqual([false, true, true]);
  expect(await heatmap.upload({ uploadPeriodMs: PERIOD_MS, nowMs: 11_000 })).toBe(true);
  expect([heatmap.isDue(PERIOD_MS, 310_000), heatmap.isDue(PERIOD_MS, 311_000)]).toEqual([false, true]);
  // The same layers: nothing to upload, and that counts as well.
  expect(await heatmap.upload({ uploadPeriodMs: PERIOD_MS, nowMs: 311_000 })).toBe(false);
  expect(heatmap.isDue(PERIOD_MS, 610_999)).toBe(false);
  const text = new TextDecoder().decode(await downloadBytes(fixture.bucket, heatmapKey(TENANT), { maxBytes: 1 << 20 }));
  expect(text).toContain(String([...timeline.stack.map.layers()][0]));
  await manager.shutdown({ flush: false });
  await fixture.close();
});
