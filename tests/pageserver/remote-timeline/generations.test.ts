/** Whose generation an index or a file is of decides whether it is taken. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { rename } from "node:fs/promises";
import { decodeIndexPart, encodeIndexPart } from "../../../src/pageserver/remote-timeline/index-part.ts";
import { indexPartKey } from "../../../src/pageserver/remote-timeline/remote-paths.ts";
import { downloadBytes } from "../../../src/remote-storage/remote-storage.ts";
import { type StorageFixture, storageFixture, TENANT } from "../timeline/storage-fixture.ts";
import { putTextLayer, textAt } from "../timeline/text-values.ts";

const TIMELINE = "11".repeat(16);

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => {
  await fixture.close();
  fixture.log.assertQuiet();
});

test("an index of somebody who attached later is not read, and stays", async () => {
  const first = await fixture.attach(1);
  await putTextLayer(await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 }), 0x1000, "of all");
  await first.shutdown({ flush: true });
  const third = await fixture.attach(3, { directory: `${fixture.directory}-3` });
  await third.loadTimelines();
  await putTextLayer(third.get(TIMELINE), 0x1010, "of the third");
  await third.shutdown({ flush: true });

  const second = await fixture.attach(2, { directory: `${fixture.directory}-2` });
  await second.loadTimelines();
  expect(second.get(TIMELINE).lastRecordLsn).toBe(0x1000);
  expect([...second.get(TIMELINE).stack.map.layers()].map(({ metadata }) => metadata.generation)).toEqual([1]);
  await putTextLayer(second.get(TIMELINE), 0x1010, "of the second");
  await second.shutdown({ flush: true });

  const fourth = await fixture.attach(4, { directory: `${fixture.directory}-4` });
  await fourth.loadTimelines();
  expect(await textAt(fourth.get(TIMELINE), 0x1010)).toBe("of the third");
  await fourth.shutdown({ flush: false });
});

test("a local file of another generation than the index names is not taken for it", async () => {
  const first = await fixture.attach(1);
  const timeline = await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await putTextLayer(timeline, 0x1000, "a");
  await first.shutdown({ flush: true });
  const [layer] = timeline.stack.map.layers();
  await rename(layer.path, layer.path.replace("-00000001", "-00000002"));
  const second = await fixture.attach(3);
  await second.loadTimelines();
  const [loaded] = second.get(TIMELINE).stack.map.layers();
  expect(loaded.isResident).toBe(false);
  expect(await textAt(second.get(TIMELINE), 0x1000)).toBe("a");
  expect(loaded.isResident).toBe(true);
  expect(await fixture.platform.files.list(timeline.directory)).toEqual([layer.path.slice(layer.path.lastIndexOf("/") + 1)]);
  await second.shutdown({ flush: false });
});

test("a layer of an index beyond what the index calls durable is dropped, and its WAL comes again", async () => {
  const first = await fixture.attach(1);
  const timeline = await first.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
  await putTextLayer(timeline, 0x1000, "a");
  await putTextLayer(timeline, 0x1010, "of a future that was lost");
  await first.shutdown({ flush: true });
  const key = indexPartKey(TENANT, TIMELINE, 1);
  const index = decodeIndexPart(await downloadBytes(fixture.bucket, key, { maxBytes: 1e6 }));
  await fixture.bucket.upload(key, { bytes: encodeIndexPart({ ...index, metadata: { ...index.metadata, diskConsistentLsn: 0x1000 } }) });
  const second = await fixture.attach(2);
  await second.loadTimelines();
  const loaded = second.get(TIMELINE);
  expect([loaded.lastRecordLsn, loaded.stack.map.size]).toEqual([0x1000, 1]);
  await putTextLayer(loaded, 0x1010, "of what came");
  await loaded.waitUploaded();
  await fixture.deletionQueue.flush();
  expect(await textAt(loaded, 0x1010)).toBe("of what came");
  await second.shutdown({ flush: true });
  const third = await fixture.attach(3, { directory: `${fixture.directory}-3` });
  await third.loadTimelines();
  expect([await textAt(third.get(TIMELINE), 0x1000), await textAt(third.get(TIMELINE), 0x1010)]).toEqual(["a", "of what came"]);
  expect((await fixture.bucket.list({ prefix: "" })).objects.filter(({ key: name }) => name.includes("__")).length).toBe(2);
  await third.shutdown({ flush: false });
});
