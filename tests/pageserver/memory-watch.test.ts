import { describe, expect, test } from "bun:test";
import { LayerMemory, type Spillable } from "../../src/pageserver/layers/layer-memory.ts";
import { MEMORY_LIMIT_MIN_BYTES, planMemory } from "../../src/pageserver/memory-plan.ts";
import { MemoryWatch } from "../../src/pageserver/memory-watch.ts";
import { VirtualWorld } from "../../src/platform/virtual/virtual-world.ts";

const MIB = 1024 * 1024;

class Holder implements Spillable {
  spillableBytes: number;
  pinned = false;
  spills = 0;

  constructor(spillableBytes: number) {
    this.spillableBytes = spillableBytes;
  }

  spill(): Promise<void> {
    this.spills++;
    return Promise.resolve();
  }
}

describe("the plan", () => {
  test("parts of the limit leave room for what is not counted, and a limit too low is refused", () => {
    for (const limitBytes of [MEMORY_LIMIT_MIN_BYTES, 512 * MIB, 4096 * MIB]) {
      const plan = planMemory(limitBytes, { pageCacheBytes: 64 * MIB });
      expect(plan.layerMemoryBytes + plan.pageCacheBytes).toBeLessThan((limitBytes - 200 * MIB) * 0.7);
      expect(plan.layerMemoryBytes).toBeGreaterThan(16 * MIB);
      expect(plan.pageCacheBytes).toBeLessThanOrEqual(64 * MIB);
    }
    expect(planMemory(null, { pageCacheBytes: 123 }).pageCacheBytes).toBe(123);
    expect(() => planMemory(MEMORY_LIMIT_MIN_BYTES - 1, { pageCacheBytes: 1 })).toThrow("needs 320 MB");
  });
});

describe("memory of layers", () => {
  test("above the limit whoever can spill most does; an eighth above it appenders wait", () => {
    const memory = new LayerMemory(800);
    const [small, large] = [new Holder(100), new Holder(200)];
    memory.add(small);
    memory.add(large);
    memory.take(800);
    expect([small.spills, large.spills]).toEqual([0, 0]);
    memory.take(1);
    expect([small.spills, large.spills]).toEqual([0, 1]);
    expect(memory.relief()).toBeUndefined();
    memory.take(200);
    expect(memory.relief()).toBeInstanceOf(Promise);
    memory.give(201);
    expect(memory.isOver).toBe(false);
    expect(memory.relief()).toBeUndefined();
  });

  test("with nothing to spill appenders wait for a flush under way, and for nothing else", async () => {
    const memory = new LayerMemory(0);
    const holder = new Holder(0);
    memory.add(holder);
    memory.take(10);
    expect(memory.relief()).toBeUndefined();
    holder.pinned = true;
    const waited = memory.relief();
    memory.give(5);
    await waited;
  });

  test("squeezed, it asks for less, at once", () => {
    const memory = new LayerMemory(800);
    const holder = new Holder(500);
    memory.add(holder);
    memory.take(500);
    memory.squeeze(true);
    expect([memory.limitBytes, holder.spills, memory.mustWait]).toEqual([200, 1, true]);
    memory.squeeze(false);
    expect([memory.limitBytes, memory.mustWait]).toEqual([800, false]);
  });
});

test("near the limit garbage is collected, not again and again; nearer, each time that is time for it, and layers are squeezed until that is over", () => {
  const world = new VirtualWorld({ seed: 1 });
  world.clock.run(async () => {
    let resident = 60;
    let collections = 0;
    let tookMs = 0;
    const layers = new LayerMemory(800);
    const clock = { monotonicMs: () => world.clock.monotonicMs() + tookMs };
    const collect = (): void => {
      collections++;
      tookMs += 300;
    };
    const watch = new MemoryWatch({ limitBytes: 100, memory: { residentBytes: () => resident, collect }, layers, clock: { ...world.clock, ...clock } as typeof world.clock });
    watch.look();
    expect(collections).toBe(0);
    resident = 75;
    for (let i = 0; i < 5; i++) watch.look();
    expect([collections, layers.limitBytes]).toEqual([1, 800]);
    await world.clock.sleep(5900);
    watch.look();
    expect(collections).toBe(1);
    await world.clock.sleep(200);
    watch.look();
    expect(collections).toBe(2);
    resident = 85;
    watch.look();
    expect([collections, layers.limitBytes]).toEqual([2, 200]);
    await world.clock.sleep(301);
    watch.look();
    expect(collections).toBe(3);
    resident = 60;
    watch.look();
    expect([collections, layers.limitBytes]).toEqual([3, 800]);
  });
});
