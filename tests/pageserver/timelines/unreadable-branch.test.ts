/**
 * A timeline that cannot be loaded may become readable again: by a newer release, with the disk put right, by hand. Until then what it
 * sees of others is kept, as if it were there.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { utf8 } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { indexPartKey } from "../../../src/pageserver/remote-timeline/remote-paths.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { downloadBytes } from "../../../src/remote-storage/remote-storage.ts";
import { FaultFiles } from "../../safekeeper/support/fault-files.ts";
import { type StorageFixture, storageFixture, TENANT } from "../timeline/storage-fixture.ts";
import { putTextLayer, TEXT_KEY, textAt } from "../timeline/text-values.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11".repeat(16);
const CHILD = "22".repeat(16);
const GRANDCHILD = "33".repeat(16);

let fixture: StorageFixture;
let files: FaultFiles;
beforeEach(async () => {
  fixture = await storageFixture({
    files: (real) => {
      files = new FaultFiles(real);
      return files;
    },
  });
  fixture.liveKeys = () => [TEXT_KEY];
});
afterEach(async () => {
  await fixture.close();
  fixture.log.assertQuiet();
});

/** A root with history, a branch at 0x1010 of it, and one of that. */
async function makeFamily(): Promise<void> {
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  for (const [lsn, text] of [[0x1000, "a"], [0x1010, "b"], [0x1020, "c"]] as const) await putTextLayer(root, lsn, text);
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 });
  await putTextLayer(child, 0x1020, "B");
  await manager.createBranch({ timelineId: GRANDCHILD, ancestorTimelineId: CHILD, lsn: 0x1018 });
  await manager.shutdown({ flush: true });
}

/** All that would become garbage if the root had no branch. */
async function goOn(manager: TimelineManager): Promise<void> {
  const root = manager.get(ROOT);
  for (let lsn = root.lastRecordLsn + 0x10; lsn < 0x1080; lsn += 0x10) await putTextLayer(root, lsn, `later ${lsn}`);
  await manager.maintenanceOf(ROOT).compact({ forceL0: true, forceImages: true });
  await putTextLayer(root, 0x1080, "latest");
  await manager.maintenanceOf(ROOT).collectGarbage();
  await root.waitUploaded();
  await fixture.deletionQueue.flush();
  await manager.shutdown({ flush: true });
}

async function expectAllThere(): Promise<void> {
  const manager = await fixture.attach(3, { directory: `${fixture.directory}-empty` });
  await manager.loadTimelines();
  expect([...manager.brokenTimelines]).toEqual([]);
  expect([await textAt(manager.get(CHILD), 0x1010), await textAt(manager.get(GRANDCHILD), 0x1018), await textAt(manager.get(ROOT), 0x1080)]).toEqual(["b", "b", "latest"]);
  await manager.shutdown({ flush: false });
}

async function damaged(timelineId: string): Promise<() => Promise<void>> {
  const key = indexPartKey(TENANT, timelineId, 1);
  const good = await downloadBytes(fixture.bucket, key, { maxBytes: 1e6 });
  const newer = { ...(JSON.parse(new TextDecoder().decode(good).replaceAll(/"strata_checked":true,|,"strata_crc32c":"\w+"/g, "")) as object), version: 99 };
  await fixture.bucket.upload(key, { bytes: utf8(JSON.stringify(newer)) });
  return () => fixture.bucket.upload(key, { bytes: good });
}

for (const [what, id] of [["branch", CHILD], ["branch of a branch", GRANDCHILD]] as const) {
  test(`an index of a newer version: what the ${what} sees is kept, and nothing it may stand on is deleted`, async () => {
    await makeFamily();
    const mend = await damaged(id);
    fixture.log.expectWarn(/timeline cannot be loaded|index cannot be read/);
    const manager = await fixture.attach(2);
    await manager.loadTimelines();
    expect(manager.brokenTimelines.get(id)).toMatchObject({ code: "index-part-too-new" });
    await expect(manager.deleteTimeline(id === CHILD ? ROOT : CHILD)).rejects.toMatchObject({ kind: "conflict" });
    await goOn(manager);
    await mend();
    await expectAllThere();
  });
}

test("a local disk that fails while a branch is loaded", async () => {
  await makeFamily();
  const { list } = files;
  files.list = async (path) => {
    if (path.endsWith(CHILD) && path.includes("/local/")) throw new StrataError("unavailable", "io-error", "the disk failed");
    return await list(path);
  };
  fixture.log.expectWarn(/timeline cannot be loaded/);
  const manager = await fixture.attach(2);
  await manager.loadTimelines();
  expect([...manager.brokenTimelines.keys()].toSorted()).toEqual([CHILD, GRANDCHILD]);
  await expect(manager.deleteTimeline(ROOT)).rejects.toMatchObject({ code: "timeline-has-children" });
  await goOn(manager);
  files.list = list;
  await expectAllThere();
});
