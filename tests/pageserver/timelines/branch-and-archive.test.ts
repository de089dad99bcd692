/** Archiving a timeline while a branch of it is made, unarchiving one that is being offloaded: one of the two is refused. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { utf8 } from "../../../src/kit/bytes.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { JobsHere } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { FaultFiles } from "../../safekeeper/support/fault-files.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "11".repeat(16);
const CHILD = "22".repeat(16);
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

async function put(timeline: Timeline, lsn: number): Promise<void> {
  await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: utf8(`at ${lsn}`) } }]);
  timeline.advance(lsn, lsn - 8);
}

async function withRoot(fixture: StorageFixture): Promise<{ manager: Awaited<ReturnType<StorageFixture["attach"]>>; root: Timeline }> {
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await put(root, 0x1000);
  await root.freezeAndFlush();
  await root.waitUploaded();
  return { manager, root };
}

test("a branch that waited for WAL while its ancestor was archived is refused", async () => {
  const fixture = await storageFixture();
  const { manager, root } = await withRoot(fixture);
  const creation = manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 }).catch((error: unknown) => error);
  while (root.waitingForLsn().length === 0) await Bun.sleep(1);
  await manager.archival.configure(ROOT, "Archived");
  await put(root, 0x1010);
  expect(await creation).toMatchObject({ code: "ancestor-archived" });
  expect([...root.branchPoints]).toEqual([]);
  await manager.archival.offload(ROOT);
  expect(manager.timelineIds).toEqual([]);
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

test("an ancestor is neither archived nor offloaded while a branch of it is made", async () => {
  const held = Promise.withResolvers<void>();
  let isHeld = false;
  const fixture = await storageFixture({
    files: (real) => {
      const files = new FaultFiles(real);
      const { makeDirectory } = files;
      files.makeDirectory = async (path) => {
        if (path.endsWith(CHILD)) {
          isHeld = true;
          await held.promise;
        }
        await makeDirectory(path);
      };
      return files;
    },
  });
  const { manager, root } = await withRoot(fixture);
  const creation = manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
  while (!isHeld) await Bun.sleep(1);
  await expect(manager.archival.configure(ROOT, "Archived")).rejects.toMatchObject({ code: "precondition-failed" });
  // Archived by hand, it does not go either.
  root.remoteClient.setArchived(1e12);
  await expect(manager.archival.offload(ROOT)).rejects.toMatchObject({ code: "timeline-not-archived" });
  held.resolve();
  const child = await creation;
  expect(Buffer.from(await child.get(KEY, 0x1000, { task: "test" })).toString()).toBe("at 4096");
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});

test("a timeline that is on its way out is not unarchived", async () => {
  const held = Promise.withResolvers<void>();
  const fixture = await storageFixture();
  const here = new JobsHere(fixture.platform);
  fixture.jobRunner = {
    run: async (job, signal) => {
      if (job.kind === "compact-l0") await held.promise;
      return await here.run(job, signal);
    },
  };
  const { manager, root } = await withRoot(fixture);
  await put(root, 0x1010);
  await root.freezeAndFlush();
  const merge = manager.maintenanceOf(ROOT).compact({ forceL0: true });
  await manager.archival.configure(ROOT, "Archived");
  // It waits for the merge, its uploads done.
  const offload = manager.archival.offload(ROOT);
  await root.waitUploaded();
  await Bun.sleep(20);
  await expect(manager.archival.configure(ROOT, "Unarchived")).rejects.toMatchObject({ code: "timeline-busy" });
  held.resolve();
  await merge.catch(() => {});
  await offload;
  expect(manager.offloaded.map(({ timelineId }) => timelineId)).toEqual([ROOT]);
  await manager.archival.configure(ROOT, "Unarchived");
  expect(manager.get(ROOT).remoteClient.archivedAt).toBeNull();
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});
