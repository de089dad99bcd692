/** A read that waits for a layer while garbage collection passes its LSN: it is told so. What else is found by then is the page of another LSN. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { utf8ToString } from "../../../src/kit/bytes.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import { objectNotFound } from "../../../src/remote-storage/remote-storage.ts";
import { storageFixture } from "./storage-fixture.ts";
import { putTextLayer, TEXT_KEY } from "./text-values.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11".repeat(16);
const CHILD = "22".repeat(16);
const CONTEXT = { task: "test" };

test.each([false, true])("the page of an older image that a branch retains is not taken for it (under a lease: %p)", async (isLeased) => {
  const fixture = await storageFixture();
  fixture.liveKeys = () => [TEXT_KEY];
  const bucket = new FaultInjectingStorage(fixture.bucket, fixture.platform);
  const manager = await fixture.attach(1, { bucket });
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  const maintenance = manager.maintenanceOf(ROOT);
  for (const lsn of [0x1000, 0x1008]) await putTextLayer(root, lsn, "a");
  await maintenance.compact({ forceL0: true, forceImages: true });
  await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1008 });
  for (const [lsn, text] of [[0x1010, "b"], [0x1020, "c"]] as const) await putTextLayer(root, lsn, text);
  await maintenance.compact({ forceL0: true, forceImages: true });
  await root.waitUploaded();
  if (isLeased) root.leases.grant(0x1010, 60_000);
  for (const layer of root.stack.map.layers()) await layer.evict();

  const held = Promise.withResolvers<void>();
  let isHeld = false;
  const { download } = FaultInjectingStorage.prototype;
  bucket.download = async (key, options) => {
    isHeld = true;
    await held.promise;
    // Its deletion has been carried out by then, unless it is kept.
    if (!isLeased) throw objectNotFound(key);
    return await download.call(bucket, key, options);
  };
  const reading = root.get(TEXT_KEY, 0x1010, CONTEXT).then(utf8ToString, (error: unknown) => error);
  while (!isHeld) await Bun.sleep(1);
  await putTextLayer(root, 0x1030, "d");
  const collected = await maintenance.collectGarbage();
  expect([collected?.cutoff, (collected?.removed ?? 0) > 0]).toEqual([0x1030, !isLeased]);
  bucket.download = (key, options) => download.call(bucket, key, options);
  held.resolve();
  if (isLeased) expect(await reading).toBe("b");
  else expect(await reading).toMatchObject({ code: "lsn-garbage-collected" });
  expect([utf8ToString(await root.get(TEXT_KEY, 0x1030, CONTEXT)), utf8ToString(await manager.get(CHILD).get(TEXT_KEY, 0x1008, CONTEXT))]).toEqual(["d", "a"]);
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});
