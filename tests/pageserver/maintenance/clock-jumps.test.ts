/** A wall clock that jumps takes no history and no lease from anybody; leases of the process before are waited for. */
import { expect, test } from "bun:test";
import { LeaseTable } from "../../../src/pageserver/maintenance/lease-table.ts";
import { PrudentClock } from "../../../src/pageserver/maintenance/prudent-clock.ts";
import type { Clock } from "../../../src/platform/clock.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { storageFixture } from "../timeline/storage-fixture.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const TIMELINE = "11111111111111111111111111111111";
const KEY = slruBlockKey("clog", 0, 0);

class JumpyClock implements Clock {
  passedMs = 0;
  aheadMs = 0;

  monotonicMs(): number {
    return 5_000 + this.passedMs;
  }
  wallMs(): number {
    return 1_700_000_000_000 + this.passedMs + this.aheadMs;
  }
  sleep(): Promise<void> {
    throw new Error("nobody sleeps");
  }
  after(): never {
    throw new Error("nobody waits");
  }
}

test("prudent time follows the wall clock, not its jumps ahead", () => {
  const clock = new JumpyClock();
  const prudent = new PrudentClock(clock);
  clock.passedMs = DAY_MS;
  expect(prudent.wallMs()).toBe(clock.wallMs());
  clock.aheadMs = 3650 * DAY_MS;
  expect(prudent.wallMs()).toBeLessThan(1_700_000_000_000 + DAY_MS + HOUR_MS);
  // Put right, and then behind.
  clock.aheadMs = 0;
  expect(prudent.wallMs()).toBe(clock.wallMs());
  clock.aheadMs = -DAY_MS;
  expect(prudent.wallMs()).toBe(clock.wallMs());
  // A correction ahead is followed in the end.
  clock.aheadMs = 60_000;
  clock.passedMs += DAY_MS;
  expect(prudent.wallMs()).toBe(clock.wallMs());
});

test("a lease lasts by the wall clock and by the time that passed", () => {
  const clock = new JumpyClock();
  const leases = new LeaseTable(clock);
  expect(leases.grant(0x10, 600_000)).toBe(clock.wallMs() + 600_000);
  clock.aheadMs = DAY_MS;
  expect(leases.valid()).toEqual([0x10]);
  clock.passedMs = 599_999;
  expect(leases.has(0x10)).toBe(true);
  clock.passedMs = 600_000;
  expect(leases.has(0x10)).toBe(false);
  expect(leases.valid()).toEqual([]);
  // Backwards: its holder goes by the time it was told.
  leases.grant(0x20, 600_000);
  clock.aheadMs = 0;
  clock.passedMs += HOUR_MS;
  expect(leases.has(0x20)).toBe(true);
  clock.aheadMs = DAY_MS;
  expect(leases.has(0x20)).toBe(false);
});

test("history within the PITR interval stays when the clock jumps; after a load nothing goes for the length of a lease", () => {
  const world = new VirtualWorld({ seed: 1 });
  const machine = world.machine("pageserver");
  world.clock.run(async () => {
    const fixture = await storageFixture({ machine });
    fixture.config = { ...fixture.config, pitrIntervalMs: 2 * HOUR_MS, gcHorizonBytes: 0, lsnLeaseLengthMs: 600_000 };
    fixture.liveKeys = () => [KEY];
    const startWallMs = machine.platform.clock.wallMs();
    // One LSN a second.
    fixture.lsnForTimestamp = async (_timeline, wallMs) => Math.max(0x1000, 0x1000 + 8 * Math.floor((wallMs - startWallMs) / 1000));
    const manager = await fixture.attach(1);
    const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: 0x1000, pgVersion: 17 });
    await timeline.put([{ key: KEY, lsn: 0x1000, value: { kind: "image", bytes: new Uint8Array(8192) } }]);
    timeline.advance(0x1000 + 8 * 86_400, 0x1000);
    await timeline.freezeAndFlush();
    await world.clock.sleep(HOUR_MS);
    machine.clockSkewMs = 365 * DAY_MS;
    expect(await manager.maintenanceOf(TIMELINE).collectGarbage()).toMatchObject({ cutoff: 0x1000, removed: 0 });
    machine.clockSkewMs = 0;
    await world.clock.sleep(2 * HOUR_MS);
    expect((await manager.maintenanceOf(TIMELINE).collectGarbage())?.cutoff).toBe(0x1000 + 8 * 3600);
    await manager.shutdown({ flush: true });
    const next = await fixture.attach(2);
    await next.loadTimelines();
    expect(await next.maintenanceOf(TIMELINE).collectGarbage()).toBeNull();
    await world.clock.sleep(600_000);
    expect(await next.maintenanceOf(TIMELINE).collectGarbage()).not.toBeNull();
    await next.shutdown({ flush: false });
    await fixture.close();
  }, { maxMs: 1e12, maxSteps: 1e9 });
}, 30_000);
