/**
 * The pageserver ends at every single request that deleting, offloading or unarchiving a timeline makes of object storage, before the
 * request has its effect and after it; the next start must find a timeline whole, or finish what was begun.
 */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { isStrataError, StrataError } from "../../../src/kit/errors.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { FaultInjectingStorage } from "../../../src/remote-storage/fault-injecting.ts";
import { listAll } from "../../../src/remote-storage/remote-storage.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";
import { putTextLayer, textAt } from "../timeline/text-values.ts";

// A busy machine may need a while.
setDefaultTimeout(120_000);

const ROOT = "11111111111111111111111111111111";
const CHILD = "22222222222222222222222222222222";
const REQUESTS_MAX = 100;

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(() => fixture.close());

/** A root with three layers and a branch of it with two. */
async function family(manager: TimelineManager): Promise<void> {
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  for (const [at, text] of ["a", "b", "c"].entries()) await putTextLayer(root, 0x1000 + at * 16, text);
  await root.waitUploaded();
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: 0x1010 });
  for (const [at, text] of ["B", "C"].entries()) await putTextLayer(child, 0x1020 + at * 16, text);
  await child.waitUploaded();
}

async function objectsOf(timelineId: string): Promise<string[]> {
  return (await listAll(fixture.bucket, { prefix: `tenants/0123456789abcdef0123456789abcdef/timelines/${timelineId}/`, maxTotal: 1000 })).objects.map(({ key }) => key);
}

type Life = (manager: TimelineManager) => Promise<void>;

interface Lives {
  /** Before the part that is killed. */
  readonly before: Life;
  readonly killed: Life;
  /** In the life after the killed one, with all timelines loaded. */
  readonly after: Life;
}

/** One family for each request of `killed`, which ends there. @returns how many requests there were */
async function killAtEveryRequest(lives: Lives, lastHasEffect: boolean): Promise<number> {
  for (let requests = 0; requests < REQUESTS_MAX; requests++) {
    await fixture.close();
    fixture = await storageFixture();
    const first = await fixture.attach(1);
    await family(first);
    await lives.before(first);
    await first.shutdown({ flush: true });

    const dying = new FaultInjectingStorage(fixture.bucket, fixture.platform);
    const second = await fixture.attach(2, { bucket: dying });
    await second.loadTimelines();
    dying.plan = { ...dying.plan, diesAfter: { requests: dying.requests + requests, lastHasEffect } };
    const work = lives.killed(second);
    const ended = await Promise.race([work.then(() => "done" as const), dying.died.then(() => "died" as const)]);
    work.catch(() => {});
    await second.shutdown({ flush: false });
    await work.catch(() => {});

    const third = await fixture.attach(3);
    await third.loadTimelines();
    await lives.after(third);
    await third.shutdown({ flush: false });
    if (ended === "done") return requests;
  }
  throw new Error(`more than ${REQUESTS_MAX} requests`);
}

async function untilGone(manager: TimelineManager, timelineId: string): Promise<void> {
  // A deletion found under way goes on in the background; whoever asks again is told of it, or that there is nothing.
  await manager.deleteTimeline(timelineId).catch((error: unknown) => {
    if (!isStrataError(error, "timeline-not-found")) throw error;
  });
  for (let i = 0; i < 500 && (await objectsOf(timelineId)).length > 0; i++) await Bun.sleep(10);
  expect(await objectsOf(timelineId)).toEqual([]);
}

for (const lastHasEffect of [false, true]) {
  describe(lastHasEffect ? "killed after the effect of" : "killed before the effect of", () => {
    test("any request of a deletion: the timeline is whole, or goes; its ancestor stays as it was", async () => {
      let whole = 0;
      const requests = await killAtEveryRequest(
        {
          before: async () => {},
          killed: (manager) => manager.deleteTimeline(CHILD),
          after: async (manager) => {
            if (manager.timelineIds.includes(CHILD)) {
              whole++;
              expect([await textAt(manager.get(CHILD), 0x1010), await textAt(manager.get(CHILD), 0x1020), await textAt(manager.get(CHILD), 0x1030)]).toEqual(["b", "B", "C"]);
            }
            await untilGone(manager, CHILD);
            expect([await textAt(manager.get(ROOT), 0x1000), await textAt(manager.get(ROOT), 0x1020)]).toEqual(["a", "c"]);
            await untilGone(manager, ROOT);
          },
        },
        lastHasEffect,
      );
      expect(requests).toBeGreaterThan(3);
      // Only before the mark arrives may it be there again.
      expect(whole).toBe(lastHasEffect ? 0 : 1);
    });

    test("any request of offloading and deleting what is offloaded", async () => {
      const requests = await killAtEveryRequest(
        {
          before: (manager) => manager.archival.configure(CHILD, "Archived"),
          killed: async (manager) => {
            await manager.archival.offload(CHILD);
            await manager.deleteTimeline(CHILD);
          },
          after: async (manager) => {
            if ((await objectsOf(CHILD)).some((key) => key.includes("index_part"))) {
              const isOffloaded = manager.offloaded.some(({ timelineId }) => timelineId === CHILD);
              const isLoaded = manager.timelineIds.includes(CHILD);
              expect(isOffloaded && isLoaded).toBe(false);
              if (isOffloaded) expect(manager.get(ROOT).branchPoints.get(CHILD)).toBe(0x1010);
            }
            await untilGone(manager, CHILD);
            await untilGone(manager, ROOT);
          },
        },
        lastHasEffect,
      );
      expect(requests).toBeGreaterThan(5);
    });

    test("any request of offloading and unarchiving: the timeline is whole", async () => {
      const requests = await killAtEveryRequest(
        {
          before: (manager) => manager.archival.configure(CHILD, "Archived"),
          killed: async (manager) => {
            await manager.archival.offload(CHILD);
            await manager.archival.configure(CHILD, "Unarchived");
          },
          after: async (manager) => {
            await manager.archival.configure(CHILD, "Unarchived");
            expect([await textAt(manager.get(CHILD), 0x1010), await textAt(manager.get(CHILD), 0x1030)]).toEqual(["b", "C"]);
            expect([manager.get(ROOT).branchPoints.get(CHILD), manager.offloaded.length, manager.get(CHILD).remoteClient.archivedAt]).toEqual([0x1010, 0, null]);
          },
        },
        lastHasEffect,
      );
      expect(requests).toBeGreaterThan(3);
    });
  });
}

test("offloaded timelines take part in what matters of them", async () => {
  const manager = await fixture.attach(1);
  await family(manager);
  await expect(manager.archival.offload(CHILD)).rejects.toMatchObject({ code: "timeline-not-archived" });
  await expect(manager.archival.configure(ROOT, "Archived")).rejects.toMatchObject({ code: "precondition-failed" });
  await manager.archival.configure(CHILD, "Archived");
  await manager.archival.configure(ROOT, "Archived");
  await expect(manager.archival.offload(ROOT)).rejects.toMatchObject({ code: "timeline-not-archived" });
  await manager.archival.offload(CHILD);
  await manager.archival.offload(CHILD);
  expect(await Bun.file(`${manager.get(ROOT).directory.replace(ROOT, CHILD)}`).exists()).toBe(false);
  expect(() => manager.get(CHILD)).toThrow("is offloaded");
  await expect(manager.deleteTimeline(ROOT)).rejects.toMatchObject({ code: "timeline-has-children" });
  await expect(manager.createTimeline({ timelineId: CHILD, initdbLsn: 8, pgVersion: 17 })).rejects.toMatchObject({ code: "timeline-exists" });
  await manager.archival.offload(ROOT);
  await expect(manager.archival.configure(CHILD, "Unarchived")).rejects.toMatchObject({ code: "precondition-failed" });
  await expect(manager.deleteTimeline(ROOT)).rejects.toMatchObject({ code: "timeline-has-children" });
  await manager.shutdown({ flush: true });

  const again = await fixture.attach(2);
  await again.loadTimelines();
  expect([again.timelineIds, again.offloaded.map(({ timelineId }) => timelineId).sort()]).toEqual([[], [ROOT, CHILD]]);
  await again.archival.configure(ROOT, "Unarchived");
  expect(again.get(ROOT).branchPoints.get(CHILD)).toBe(0x1010);
  await again.archival.configure(CHILD, "Unarchived");
  expect(await textAt(again.get(CHILD), 0x1030)).toBe("C");
  await again.shutdown({ flush: false });
});

test("an offloaded timeline whose objects went, and not its entry in the manifest, is deleted when that is asked again", async () => {
  let isRefused = false;
  const { bucket } = fixture;
  const refusing = new Proxy(bucket, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      return (...args: unknown[]) => {
        if (isRefused && name === "upload" && String(args[0]).includes("tenant-manifest")) return Promise.reject(new StrataError("fix-input", "refused", "no manifest today"));
        return Reflect.apply(member, target, args) as unknown;
      };
    },
  });
  const manager = await fixture.attach(1, { bucket: refusing });
  await family(manager);
  await manager.archival.configure(CHILD, "Archived");
  await manager.archival.offload(CHILD);
  isRefused = true;
  await expect(manager.deleteTimeline(CHILD)).rejects.toMatchObject({ code: "refused" });
  expect(await objectsOf(CHILD)).toEqual([]);
  isRefused = false;
  await manager.deleteTimeline(CHILD);
  expect([manager.offloaded, manager.get(ROOT).branchPoints.size]).toEqual([[], 0]);
  await manager.shutdown({ flush: false });
});
