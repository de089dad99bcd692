/** Downloads whose readers have gone: they end quietly, and before the timeline's directory may go. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { RemoteStorage } from "../../../src/remote-storage/remote-storage.ts";
import { storageUnavailable } from "../../../src/remote-storage/remote-storage.ts";
import { storageFixture } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const TIMELINE = "11111111111111111111111111111111";
const KEY = slruBlockKey("clog", 0, 0);

test("a download that fails after its reader gave up troubles nobody, and shutdown waits for it", async () => {
  const fixture = await storageFixture();
  const held = Promise.withResolvers<void>();
  let downloads = 0;
  const bucket: RemoteStorage = Object.create(fixture.bucket);
  bucket.upload = (key, source, options) => fixture.bucket.upload(key, source, options);
  bucket.list = (options) => fixture.bucket.list(options);
  bucket.delete = (keys, options) => fixture.bucket.delete(keys, options);
  bucket.download = async (key, options) => {
    if (key.includes("index_part")) return await fixture.bucket.download(key, options);
    downloads++;
    await held.promise;
    throw storageUnavailable("the connection was cut");
  };
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await timeline.put([{ key: KEY, lsn: 0x1000, value: { kind: "image", bytes: new Uint8Array(8192) } }]);
  timeline.advance(0x1000, 0xff8);
  await timeline.freezeAndFlush();
  await timeline.waitUploaded();
  const [layer] = timeline.stack.map.layers();
  expect(await layer?.evict()).toBe(true);
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    // One who has given up before asking starts none, one who gives up meanwhile leaves it alone.
    await expect(layer?.makeResident(AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
    expect(downloads).toBe(0);
    const giveUp = new AbortController();
    const waiting = layer?.makeResident(giveUp.signal);
    giveUp.abort(new Error("gone as well"));
    await expect(waiting).rejects.toThrow("gone as well");
    let down = false;
    const shutdown = manager.shutdown({ flush: false }).then(() => {
      down = true;
    });
    await Bun.sleep(20);
    expect([downloads, down]).toEqual([1, false]);
    held.resolve();
    await shutdown;
    await Bun.sleep(5);
    expect(unhandled).toEqual([]);
  } finally {
    process.off("unhandledRejection", note);
  }
  await fixture.close();
});
