/** What a flush, a merge and an image leave on the local disk is there after a loss of power, names and all, before object storage has any of it. */
import { expect, test } from "bun:test";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { FaultInjectingStorage, NO_FAULTS } from "../../../src/remote-storage/fault-injecting.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

const TIMELINE = "11".repeat(16);
const KEY = slruBlockKey("clog", 0, 0);

type Timeline = Awaited<ReturnType<Awaited<ReturnType<StorageFixture["attach"]>>["createTimeline"]>>;
type Maintenance = ReturnType<Awaited<ReturnType<StorageFixture["attach"]>>["maintenanceOf"]>;

/** Names of layers that lie in the timeline's directory after the power went, right after `work`, and those it named before. */
function afterPowerLoss(work: (timeline: Timeline, maintenance: Maintenance) => Promise<void>): { found: string[]; named: string[] } {
  const world = new VirtualWorld({ seed: 1 });
  const machine = world.machine("pageserver");
  return world.clock.run(async () => {
    const fixture = await storageFixture({ machine });
    fixture.liveKeys = () => [KEY];
    const bucket = new FaultInjectingStorage(fixture.bucket, { ...fixture.platform, plan: { ...NO_FAULTS, failBefore: 1 } });
    const manager = await fixture.attach(1, { bucket });
    const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
    for (const lsn of [0x1000, 0x1010]) {
      await timeline.put([{ key: KEY, lsn, value: { kind: "image", bytes: new Uint8Array(8192).fill(lsn) } }]);
      timeline.advance(lsn, lsn - 8);
      await timeline.freezeAndFlush();
    }
    // The directories above are made again by a start if need be; here it is what lies in the timeline's that matters.
    for (let above = timeline.directory; above !== "/storage"; ) {
      above = above.slice(0, above.lastIndexOf("/"));
      await fixture.platform.files.syncDirectory(above);
    }
    await work(timeline, manager.maintenanceOf(TIMELINE));
    const named = [...timeline.stack.map.layers()].map(({ path }) => path.slice(path.lastIndexOf("/") + 1));
    machine.crash();
    machine.boot();
    const found = (await fixture.platform.files.list(timeline.directory)).filter((name) => name.includes("__"));
    return { found, named };
  }, { maxMs: 1e7, maxSteps: 1e7 });
}

const WORKS: [string, (timeline: Timeline, maintenance: Maintenance) => Promise<void>][] = [
  ["a flush", async () => {}],
  ["a merge", (_, maintenance) => maintenance.compact({ forceL0: true })],
  ["an image", (_, maintenance) => maintenance.compact({ forceImages: true })],
];

test.each(WORKS)("%s", (_what, work) => {
  const { found, named } = afterPowerLoss(work);
  expect(named.length).toBeGreaterThan(0);
  expect(found).toEqual(expect.arrayContaining(named));
});
