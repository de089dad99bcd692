import { expect, test } from "bun:test";
import fc from "fast-check";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import { Cancelled, isStrataError } from "../../src/kit/errors.ts";
import { makeDurableDirectory } from "../../src/platform/durable-directory.ts";
import type { Connection } from "../../src/platform/network.ts";
import { Lifeline } from "../../src/platform/virtual/lifeline.ts";
import { SeededRandom } from "../../src/platform/virtual/seeded-random.ts";
import { VirtualClock } from "../../src/platform/virtual/virtual-clock.ts";
import { VirtualDisk } from "../../src/platform/virtual/virtual-disk.ts";
import { VirtualWorld } from "../../src/platform/virtual/virtual-world.ts";
import { filesSuite } from "./files-suite.ts";
import { networkSuite, readAll } from "./network-suite.ts";

filesSuite("virtual files", async () => {
  const disk = new VirtualDisk({ clock: new VirtualClock(), random: new SeededRandom(1) });
  const files = disk.files(new Lifeline());
  await files.makeDirectory("/data");
  return { files, root: "/data", cleanUp: async () => {} };
});

networkSuite("virtual network", () => {
  const world = new VirtualWorld({ seed: 7 });
  return { network: world.machine("a").platform.network, run: async (body) => world.clock.run(body, { maxMs: 60_000 }), sleep: (durationMs) => world.clock.sleep(durationMs) };
});

test("seeded random: same seed same numbers, other seed others, forks independent of use", () => {
  const draw = (random: SeededRandom) => Array.from({ length: 20 }, () => random.below(1000));
  expect(draw(new SeededRandom(42))).toEqual(draw(new SeededRandom(42)));
  expect(draw(new SeededRandom(42))).not.toEqual(draw(new SeededRandom(43)));
  expect(draw(new SeededRandom(42))).not.toEqual(draw(new SeededRandom(42 + 2 ** 32)));
  const used = new SeededRandom(5);
  draw(used);
  expect(draw(used.fork("x"))).toEqual(draw(new SeededRandom(5).fork("x")));
  expect(draw(used.fork("x"))).not.toEqual(draw(used.fork("y")));
  const counts = new Array<number>(10).fill(0);
  const random = new SeededRandom(9);
  for (let i = 0; i < 100_000; i++) counts[random.below(10)]++;
  for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
});

test("virtual clock: order, cancelling, limits, deadlock", () => {
  const clock = new VirtualClock();
  const trace: string[] = [];
  const result = clock.run(async () => {
    clock.after(5, () => trace.push("b"));
    clock.after(5, () => trace.push("c"));
    clock.after(1, () => trace.push("a"));
    clock.after(2, () => trace.push("never")).cancel();
    await clock.sleep(10_000);
    trace.push(`woke at ${clock.monotonicMs()}`);
    return 7;
  }, { maxMs: 20_000 });
  expect([result, ...trace]).toEqual([7, "a", "b", "c", "woke at 10000"]);
  expect(() => clock.run(() => new Promise(() => {}))).toThrow("nothing is left");
  const forever = async (): Promise<void> => {
    for (;;) await clock.sleep(1);
  };
  expect(() => clock.run(forever, { maxMs: 100 })).toThrow("not done");
  expect(() => clock.run(forever, { maxSteps: 100 })).toThrow("not done");
  const controller = new AbortController();
  clock.after(3, () => controller.abort());
  expect(() => clock.run(() => clock.sleep(1000, controller.signal))).toThrow(Cancelled);
});

function disk(seed: number) {
  const lifeline = new Lifeline();
  const virtual = new VirtualDisk({ clock: new VirtualClock(), random: new SeededRandom(seed) });
  return {
    virtual,
    files: virtual.files(lifeline),
    crash: () => {
      lifeline.cut();
      virtual.crash();
      return virtual.files(new Lifeline());
    },
  };
}

test("what was synced survives any crash; what was not survives by sectors", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 300; seed++) {
    const { files, crash } = disk(seed);
    await files.makeDirectory("/d");
    await files.syncDirectory("/");
    const file = await files.open("/d/f", "create");
    await file.write(new Uint8Array(2048).fill(1), 0);
    await file.dataSync();
    await files.syncDirectory("/d");
    await file.write(new Uint8Array(1024).fill(2), 512);
    await file.write(new Uint8Array(512).fill(3), 2048);
    const content = await crash().readFile("/d/f");
    const sectors = Array.from({ length: content.length / 512 }, (_, sector) => new Set(content.subarray(sector * 512, sector * 512 + 512)));
    expect(sectors.every((values) => values.size === 1)).toBe(true);
    const text = sectors.map((values) => [...values][0]).join("");
    expect(text).toMatch(/^1[12][12]1[03]?$/);
    outcomes.add(text);
  }
  // Every combination of the four independent choices is met.
  expect([...outcomes].sort()).toEqual(["1111", "11110", "11113", "1121", "11210", "11213", "1211", "12110", "12113", "1221", "12210", "12213"]);
});

test("names are durable after the directory was synced, and renames are all or nothing", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const { files, crash } = disk(seed);
    await files.makeDirectory("/d");
    await files.syncDirectory("/");
    for (const [name, value] of [["old", "1"], ["new.tmp", "2"]] as const) {
      const file = await files.open(`/d/${name}`, "create");
      await file.write(utf8(value), 0);
      await file.sync();
      if (name === "old") await files.syncDirectory("/d");
    }
    await files.rename("/d/new.tmp", "/d/old");
    const after = crash();
    const names = await after.list("/d");
    outcomes.add(`${names.join("+")}=${utf8ToString(await after.readFile("/d/old"))}`);
  }
  expect([...outcomes].sort()).toEqual(["new.tmp+old=1", "old=1", "old=2"]);
});

test("a file whose directory was never synced may be gone, one synced never is", async () => {
  let gone = 0;
  for (let seed = 0; seed < 100; seed++) {
    const { files, crash } = disk(seed);
    await files.makeDirectory("/a/b");
    const file = await files.open("/a/b/f", "create");
    await file.sync();
    await files.syncDirectory("/a/b");
    if (seed % 2 === 0) {
      await files.syncDirectory("/a");
      await files.syncDirectory("/");
    }
    const found = await crash().exists("/a/b/f");
    if (seed % 2 === 0) expect(found).toBe(true);
    else if (!found) gone++;
  }
  expect(gone).toBeGreaterThan(10);
});

test("a durable directory is there after any crash, with the parents that had to be made", async () => {
  for (let seed = 0; seed < 50; seed++) {
    const { files, crash } = disk(seed);
    await makeDurableDirectory(files, "/a/b/c");
    await makeDurableDirectory(files, "/a/b/d");
    await makeDurableDirectory(files, "/a/b/d");
    expect(await crash().list("/a/b")).toEqual(["c", "d"]);
  }
});

test("a durable directory is so too when somebody else has made it and died", async () => {
  for (let seed = 0; seed < 50; seed++) {
    const { files, crash } = disk(seed);
    await files.makeDirectory("/a/b/c");
    await makeDurableDirectory(files, "/a/b/c");
    expect(await crash().exists("/a/b/c")).toBe(true);
  }
});

test("directories after a crash are what some prefix of their changes made", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.array(fc.record({ what: fc.constantFrom("create", "remove", "rename", "sync"), a: fc.constantFrom("x", "y", "z"), b: fc.constantFrom("x", "y", "z") }), { maxLength: 12 }), async (seed, steps) => {
      const { files, crash } = disk(seed);
      await files.makeDirectory("/d");
      await files.syncDirectory("/");
      let states = [""];
      for (const { what, a, b } of steps) {
        if (what === "create") await files.open(`/d/${a}`, "create");
        else if (what === "sync") await files.syncDirectory("/d");
        else await (what === "remove" ? files.remove(`/d/${a}`) : files.rename(`/d/${a}`, `/d/${b}`)).catch(() => {});
        const now = (await files.list("/d")).join("");
        states = what === "sync" ? [now] : [...states, now];
      }
      expect(states).toContain((await crash().list("/d")).join(""));
    }),
    { numRuns: 300 },
  );
});

test("injected errors: EIO, no space, a failed sync promises nothing", async () => {
  const { virtual, files, crash } = disk(3);
  await files.makeDirectory("/d");
  await files.syncDirectory("/");
  const file = await files.open("/d/f", "create");
  await files.syncDirectory("/d");
  virtual.faults = { fail: ({ kind }) => (kind === "write" ? "disk-full" : undefined) };
  const full = await file.write(utf8("abc"), 0).catch((error: unknown) => error);
  expect(isStrataError(full, "disk-full")).toBe(true);
  virtual.faults = {};
  let lost = 0;
  for (let i = 0; i < 64; i++) await file.write(new Uint8Array(512).fill(i + 1), i * 512);
  virtual.faults = { fail: ({ kind }) => (kind === "sync" ? "io-error" : undefined) };
  const broken = await file.sync().catch((error: unknown) => error);
  expect(isStrataError(broken, "io-error")).toBe(true);
  virtual.faults = {};
  // The second sync succeeds, and yet what the first one failed to write stays lost.
  await file.sync();
  const content = await crash().readFile("/d/f");
  for (let i = 0; i < 64; i++) if (content[i * 512] !== i + 1) lost++;
  expect(lost).toBeGreaterThan(10);
});

test("capacity, bit flips", async () => {
  const virtual = new VirtualDisk({ clock: new VirtualClock(), random: new SeededRandom(1), capacityBytes: 1000 });
  const files = virtual.files(new Lifeline());
  const file = await files.open("/f", "create");
  await file.write(new Uint8Array(900), 0);
  expect(isStrataError(await file.write(new Uint8Array(200), 900).catch((error: unknown) => error), "disk-full")).toBe(true);
  await files.remove("/f");
  const other = await files.open("/g", "create");
  await other.write(new Uint8Array(900), 0);
  await other.sync();
  const { position, bit } = virtual.flipBit("/g");
  const content = await files.readFile("/g");
  expect(content.map((value, at) => (at === position ? value ^ (1 << bit) : value))).toEqual(new Uint8Array(900));
});

/** A server that echoes, a client that asks, faults in between: what happened, line by line. */
function storm(seed: number): string[] {
  const world = new VirtualWorld({ seed, shuffleTimers: true, network: { minDelayMs: 0.1, maxDelayMs: 5, slowShare: 0.1, resetShare: 0.01, fragment: true } });
  const trace: string[] = [];
  const note = (text: string): void => void trace.push(`${world.clock.monotonicMs().toFixed(3)} ${text}`);
  const serve = (): void => {
    void world.machine("server").platform.network.listen({ host: "0.0.0.0", port: 5 }, (connection) => {
      void (async () => {
        for (let part = await connection.read(); part !== null; part = await connection.read()) connection.write(part);
        connection.end();
      })().catch((error: Error) => note(`server: ${error.message}`));
    });
  };
  world.clock.run(async () => {
    serve();
    const { network, clock, random } = world.machine("client").platform;
    for (let round = 0; round < 15; round++) {
      if (round === 5) {
        world.machine("server").crash();
        note("crash");
      }
      if (round === 8) {
        world.machine("server").boot();
        serve();
      }
      if (round === 11) world.network.block("client", "server");
      if (round === 13) world.network.heal();
      let connection: Connection | undefined;
      const dog = clock.after(500, () => connection?.destroy());
      try {
        connection = await network.connect({ host: "server", port: 5 }, { timeoutMs: 300 });
        connection.write(random.bytes(1 + random.below(5000)));
        connection.end();
        note(`round ${round}: ${(await readAll(connection)).length} bytes`);
      } catch (error) {
        note(`round ${round}: ${(error as Error).message}`);
      }
      dog.cancel();
    }
  }, { maxMs: 60_000 });
  return trace;
}

test("same seed, same trace; other seeds, others", () => {
  const first = storm(11);
  expect(storm(11)).toEqual(first);
  expect(storm(12)).not.toEqual(first);
  expect(first.filter((line) => line.endsWith("bytes")).length).toBeGreaterThan(5);
  expect(first.filter((line) => line.includes("took too long")).length).toBeGreaterThanOrEqual(4);
});

test("a peer that lost power is silent until it is back, then resets", () => {
  const world = new VirtualWorld({ seed: 1 });
  const [server, client] = [world.machine("server"), world.machine("client")];
  world.clock.run(async () => {
    const accepted = Promise.withResolvers<Connection>();
    await server.platform.network.listen({ host: "0.0.0.0", port: 1 }, accepted.resolve);
    const connection = await client.platform.network.connect({ host: "server", port: 1 });
    await accepted.promise;
    server.crash();
    connection.write(utf8("anybody?"));
    const state = { broken: false };
    const reading = connection.read().catch(() => {
      state.broken = true;
    });
    await world.clock.sleep(60_000);
    expect(state.broken).toBe(false);
    server.boot();
    await reading;
    expect(state.broken).toBe(true);
  });
});

test("a one-way partition holds bytes back and delivers them when it heals", () => {
  const world = new VirtualWorld({ seed: 1 });
  world.clock.run(async () => {
    const accepted = Promise.withResolvers<Connection>();
    await world.machine("b").platform.network.listen({ host: "0.0.0.0", port: 1 }, accepted.resolve);
    const a = await world.machine("a").platform.network.connect({ host: "b", port: 1 });
    const b = await accepted.promise;
    world.network.block("a", "b");
    a.write(utf8("late"));
    b.write(utf8("in time"));
    expect(utf8ToString((await a.read()) ?? new Uint8Array())).toStartWith("i");
    const atMs = world.clock.monotonicMs();
    world.clock.after(5000, () => world.network.heal());
    expect(utf8ToString((await b.read()) ?? new Uint8Array())).toStartWith("l");
    expect(world.clock.monotonicMs() - atMs).toBeGreaterThanOrEqual(4900);
  });
});

test("after a kill the dead process neither runs on nor touches the world; its unsynced writes are still there", () => {
  const world = new VirtualWorld({ seed: 2 });
  const machine = world.machine("m");
  world.clock.run(async () => {
    const { files, clock } = machine.platform;
    const trace: string[] = [];
    const file = await files.open("/f", "create");
    await file.write(utf8("kept"), 0);
    await files.lock("/lock");
    void (async () => {
      await clock.sleep(10);
      trace.push("ran on");
    })();
    clock.after(10, () => trace.push("fired"));
    machine.kill();
    expect(() => file.writeSync(utf8("x"), 0)).toThrow("crashed");
    void file.write(utf8("late"), 0).then(() => trace.push("wrote"));
    await world.clock.sleep(100);
    expect(trace).toEqual([]);
    const after = machine.boot();
    expect(utf8ToString(await after.files.readFile("/f"))).toBe("kept");
    await after.files.lock("/lock");
  });
});

test("a paused machine does nothing, and catches up in order", () => {
  const world = new VirtualWorld({ seed: 3 });
  const [a, b] = [world.machine("a"), world.machine("b")];
  const events: string[] = [];
  a.clockSkewMs = 5000;
  expect(a.platform.clock.wallMs() - b.platform.clock.wallMs()).toBe(5000);
  world.clock.run(async () => {
    await a.platform.network.listen({ host: "a", port: 1 }, async (connection) => {
      for (let bytes = await connection.read(); bytes !== null; bytes = await connection.read()) events.push(`read ${bytes[0]}`);
    });
    const connection = await b.platform.network.connect({ host: "a", port: 1 });
    a.platform.clock.after(10, () => events.push("first"));
    a.platform.clock.after(20, () => events.push("second"));
    a.platform.clock.after(20, () => events.push("never")).cancel();
    a.pause();
    connection.write(new Uint8Array([7]));
    await b.platform.clock.sleep(100);
    expect(events).toEqual([]);
    a.resume();
    await b.platform.clock.sleep(10);
    expect(events).toEqual(expect.arrayContaining(["first", "second", "read 7"]));
    expect(events.indexOf("first")).toBeLessThan(events.indexOf("second"));
    expect(events).not.toContain("never");
  });
});

test("a connection forgotten by one end: what was on the way still arrives, the other end goes on waiting", () => {
  const world = new VirtualWorld({ seed: 4, network: { minDelayMs: 5, maxDelayMs: 5, slowShare: 0, resetShare: 0, fragment: false } });
  const [a, b] = [world.machine("a"), world.machine("b")];
  world.clock.run(async () => {
    const accepted: Connection[] = [];
    await a.platform.network.listen({ host: "a", port: 1 }, (connection) => void accepted.push(connection));
    const client = await b.platform.network.connect({ host: "a", port: 1 });
    client.write(new Uint8Array([1]));
    world.network.forget("b", "a");
    expect(await client.read().then(() => "bytes", () => "lost")).toBe("lost");
    expect(Array.from((await accepted[0].read()) ?? [])).toEqual([1]);
    const rest = await Promise.race([accepted[0].read().then(() => "ended", () => "reset"), world.clock.sleep(50).then(() => "silent")]);
    expect(rest).toBe("silent");
  });
});
