import { expect, test } from "bun:test";
import { Throttle, type ThrottleConfig } from "../../../src/pageserver/tenant/throttle.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";

const LIMIT: ThrottleConfig = { enabled: true, requestsPerSecond: 100, max: 50, initial: 50 };

function make(first: ThrottleConfig) {
  const world = new VirtualWorld({ seed: 1 });
  const state = { config: first, started: 0, finished: 0, waitedMs: 0 };
  const throttle = new Throttle({ clock: world.clock, config: () => state.config, metrics: { started: () => void state.started++, finished: (waitedMs) => void (state.finished++, (state.waitedMs += waitedMs)) } });
  return { world, throttle, state };
}

test("a burst fits, and then requests come at the steady rate, in their order", () => {
  const { world, throttle, state } = make(LIMIT);
  world.clock.run(async () => {
    const begin = world.clock.monotonicMs();
    const order: number[] = [];
    const times: number[] = [];
    await Promise.all(
      Array.from({ length: 250 }, async (_, at) => {
        await throttle.take(1);
        order.push(at);
        times.push(world.clock.monotonicMs() - begin);
      }),
    );
    expect(order).toEqual(order.toSorted((a, b) => a - b));
    expect(times.filter((ms) => ms === 0).length).toBe(50);
    expect(times.at(-1)).toBeGreaterThanOrEqual(1990);
    expect(times.at(-1)).toBeLessThanOrEqual(2010);
    expect([state.started, state.finished]).toEqual([250, 250]);
    expect(state.waitedMs).toBeGreaterThan(100_000);
  });
});

test("an idle bucket does not save up more than its room; a batch larger than the bucket still passes", () => {
  const { world, throttle } = make({ ...LIMIT, initial: 0 });
  world.clock.run(async () => {
    const begin = world.clock.monotonicMs();
    await throttle.take(1);
    expect(world.clock.monotonicMs() - begin).toBeCloseTo(10, 0);
    await world.clock.sleep(60_000);
    const after = world.clock.monotonicMs();
    await throttle.take(50);
    expect(world.clock.monotonicMs()).toBe(after);
    await throttle.take(200);
    expect(world.clock.monotonicMs() - after).toBeGreaterThan(400);
  });
});

test("who gives up does not keep the next one waiting, nor lets it go before its turn; a new limit counts at once", () => {
  const { world, throttle, state } = make({ ...LIMIT, max: 1, initial: 1, requestsPerSecond: 1 });
  world.clock.run(async () => {
    const begin = world.clock.monotonicMs();
    await throttle.take(1);
    const stop = new AbortController();
    const first = throttle.take(1);
    const second = throttle.take(1, stop.signal);
    const third = throttle.take(1);
    second.catch(() => {});
    stop.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    await first;
    expect(world.clock.monotonicMs() - begin).toBe(1000);
    await third;
    expect(world.clock.monotonicMs() - begin).toBe(2000);
    state.config = { ...LIMIT, enabled: false };
    expect([throttle.isEnabled, await throttle.take(1000)]).toEqual([false, 0]);
  });
});
