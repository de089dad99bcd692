import { expect, test } from "bun:test";
import { Failpoints } from "../../src/kit/failpoints.ts";
import { VirtualWorld } from "../../src/platform/virtual/virtual-world.ts";

function make() {
  const world = new VirtualWorld({ seed: 1 });
  const said: string[] = [];
  const state = { exits: 0 };
  const points = new Failpoints({ clock: world.clock, random: world.random, say: (message, { failpoint }) => void said.push(`${failpoint}: ${message}`), exit: () => void state.exits++ });
  return { world, points, said, state };
}

test("nothing happens where nothing is configured, nor after off", () => {
  const { world, points } = make();
  world.clock.run(async () => {
    await points.hit("a");
    points.configure("a", "return");
    await expect(points.hit("a")).rejects.toMatchObject({ kind: "unavailable", code: "failpoint" });
    await points.hit("b");
    points.configure("a", "off");
    await points.hit("a");
  });
});

test("errors, panics, waits, lines and the end", () => {
  const { world, points, said, state } = make();
  world.clock.run(async () => {
    points.configure("a", "return(because)");
    await expect(points.hit("a")).rejects.toThrow("failpoint a: because");
    points.configure("a", "panic");
    await expect(points.hit("a")).rejects.toMatchObject({ name: "InvariantError" });
    points.configure("a", "sleep(1500)");
    const before = world.clock.monotonicMs();
    await points.hit("a");
    expect(world.clock.monotonicMs() - before).toBe(1500);
    points.configure("a", "print(here)");
    await points.hit("a");
    expect(said.at(-1)).toBe("a: here");
    points.configure("a", "exit");
    await points.hit("a");
    expect(state.exits).toBe(1);
  });
});

test("counted and chained actions, and chances", () => {
  const { world, points } = make();
  world.clock.run(async () => {
    points.configure("a", "2*off->1*return->off");
    const outcomes: boolean[] = [];
    for (let i = 0; i < 5; i++) outcomes.push(await points.hit("a").then(() => true, () => false));
    expect(outcomes).toEqual([true, true, false, true, true]);
    points.configure("b", "30%return");
    let failed = 0;
    for (let i = 0; i < 1000; i++) failed += await points.hit("b").then(() => 0, () => 1);
    expect(failed).toBeGreaterThan(230);
    expect(failed).toBeLessThan(370);
  });
});

test("a pause lasts until the place is configured anew, or who waits is told to stop; names that end in -pausable are the same place", () => {
  const { world, points } = make();
  world.clock.run(async () => {
    points.configure("a-pausable", "pause");
    let passed = false;
    const waiting = points.hit("a").then(() => (passed = true));
    await world.clock.sleep(1000);
    expect(passed).toBe(false);
    points.configure("a-pausable", "off");
    await waiting;
    points.configure("a", "pause");
    const stop = new AbortController();
    const stopped = points.hit("a-pausable", stop.signal);
    stopped.catch(() => {});
    stop.abort();
    await expect(stopped).rejects.toMatchObject({ name: "Cancelled" });
  });
});

test.each(["", "explode", "return(", "sleep", "sleep(x)", "sleep(99999999)", "-1*off", "return->", "%return"])("refused: %p", (actions) => {
  expect(() => make().points.configure("a", actions)).toThrow(expect.objectContaining({ code: "bad-failpoint" }));
});

test("the peer's names for places that may pause or sleep are those of the place itself", () => {
  const { world, points } = make();
  world.clock.run(async () => {
    for (const suffix of ["-pausable", "-pause", "-sleep"]) {
      points.configure(`a${suffix}`, "1*sleep(700)");
      const before = world.clock.monotonicMs();
      await points.hit("a");
      expect(world.clock.monotonicMs() - before).toBe(700);
    }
    points.configure("b-sleep", "return(300)");
    const before = world.clock.monotonicMs();
    await points.hit("b");
    expect(world.clock.monotonicMs() - before).toBe(300);
    points.configure("b", "return(300)");
    await expect(points.hit("b-sleep")).rejects.toMatchObject({ code: "failpoint" });
  });
});
