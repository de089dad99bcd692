import { describe, expect, test } from "bun:test";
import { gunzipSync } from "node:zlib";
import { perftools } from "pprof/proto/profile";
import { createHttpApp, type HttpApp } from "../../src/http/app.ts";
import { generateTokenKeys, JwtAuth, signToken } from "../../src/http/auth.ts";
import { allocateBytes } from "../../src/kit/buffers.ts";
import { cpuFlameGraph, cpuPprof } from "../../src/observability/cpu-profile.ts";
import { parseStack } from "../../src/observability/heap-profile.ts";
import { Metrics } from "../../src/observability/metrics.ts";
import { RealClock } from "../../src/platform/real/clock.ts";
import { RealRandom } from "../../src/platform/real/random.ts";
import { testLogger } from "../support/test-logger.ts";

const { Profile } = perftools.profiles;

function makeApp(): HttpApp {
  return createHttpApp({ role: "test", log: testLogger(), auth: null, metrics: new Metrics(), version: "1", clock: new RealClock(), random: new RealRandom() });
}

function get(app: HttpApp, query: string): Promise<Response> {
  return app.fetch(new Request(`http://x/profile/cpu${query}`));
}

/** Bytes of the stacks that each function is in, from a heap profile as pprof's own decoder reads it. */
async function heapBytesByFunction(reply: Response): Promise<Map<string, number>> {
  expect(reply.status).toBe(200);
  const profile = Profile.decode(gunzipSync(await reply.bytes()));
  const strings = profile.stringTable;
  expect(profile.sampleType.map((type) => `${strings[Number(type.type)]}/${strings[Number(type.unit)]}`)).toEqual(["inuse_objects/count", "inuse_space/bytes"]);
  const bytes = new Map<string, number>();
  for (const { locationId, value } of profile.sample) {
    const locations = (locationId ?? []).map((wanted) => profile.location.find(({ id }) => Number(id) === Number(wanted)));
    const names = locations.map((location) => strings[Number(profile.function[Number(location?.line?.[0]?.functionId) - 1]?.name)]);
    for (const name of new Set(names)) bytes.set(name, (bytes.get(name) ?? 0) + Number(value?.[1]));
  }
  return bytes;
}

const hoard: Uint8Array[] = [];

function hoardBuffers(): void {
  for (let i = 0; i < 256; i++) hoard.push(allocateBytes(128 * 1024));
}

function burnProcessor(): number {
  let sum = 0;
  for (let i = 0; i < 2_000_000; i++) sum += Math.sqrt(i);
  return sum;
}

/** Keeps this thread busy in `burnProcessor` until `work` is done. */
async function busyUntil<T>(work: Promise<T>): Promise<T> {
  const state = { done: false };
  void work.finally(() => {
    state.done = true;
  });
  for (let i = 0; i < 10_000 && !state.done; i++) {
    burnProcessor();
    await Bun.sleep(0);
  }
  return work;
}

test("a profile taken over HTTP names the busy function and its file, and pprof's own decoder reads it", async () => {
  const reply = await busyUntil(get(makeApp(), "?seconds=1&frequency=200"));
  expect(reply.status).toBe(200);
  const profile = Profile.decode(gunzipSync(await reply.bytes()));
  const strings = profile.stringTable;
  const names = profile.function.map((entry) => strings[Number(entry.name)]);
  const files = profile.function.map((entry) => strings[Number(entry.filename)]);
  expect(names).toContain("burnProcessor");
  expect(files[names.indexOf("burnProcessor")]).toContain("profile-routes.test.ts");
  expect(profile.sampleType.map((type) => `${strings[Number(type.type)]}/${strings[Number(type.unit)]}`)).toEqual(["samples/count", "cpu/nanoseconds"]);
  expect(profile.sample.length).toBeGreaterThan(10);
  expect(Number(profile.period)).toBe(5_000_000);
});

test("parameters out of range are refused", async () => {
  const app = makeApp();
  for (const query of ["?seconds=0", "?seconds=61", "?frequency=1001", "?frequency=0", "?format=jpeg", "?seconds=x"]) expect([query, (await get(app, query)).status]).toEqual([query, 400]);
});

test("one at a time; force ends the first, whose caller gets what it has", async () => {
  const app = makeApp();
  const startMs = performance.now();
  const first = get(app, "?seconds=30");
  await Bun.sleep(50);
  expect((await get(app, "?seconds=1")).status).toBe(409);
  const second = get(app, "?seconds=1&force=true&format=svg");
  expect((await busyUntil(first)).status).toBe(200);
  expect(await (await busyUntil(second)).text()).toStartWith("<svg");
  expect(performance.now() - startMs).toBeLessThan(20_000);
});

test("stacks are encoded innermost first, with shared functions and lines apart", () => {
  const main = { name: "main", file: "/a/main.ts", line: 1 };
  const hot = (line: number) => ({ name: "hot", file: "/a/hot.ts", line });
  const samples = { stacks: [[hot(7), main], [hot(9), main], []], intervalMs: 10, durationMs: 30, startedMs: 1_700_000_000_000 };
  const profile = Profile.decode(gunzipSync(cpuPprof(samples)));
  const functionOf = (location: unknown) => profile.function.find((entry) => Number(entry.id) === Number(profile.location.find((l) => Number(l.id) === Number(location))?.line?.[0]?.functionId));
  const stacks = profile.sample.map((sample) => (sample.locationId ?? []).map((location) => profile.stringTable[Number(functionOf(location)?.name)]));
  expect(stacks).toEqual([["hot", "main"], ["hot", "main"], []]);
  expect([profile.function.length, profile.location.length]).toEqual([2, 3]);
  expect(Number(profile.timeNanos)).toBe(1_700_000_000_000e6);
  expect(Number(profile.durationNanos)).toBe(30e6);
  const svg = cpuFlameGraph({ ...samples, stacks: [...samples.stacks, [{ name: "<T>&", file: "", line: 0 }]] });
  expect(svg).toContain("hot /a/hot.ts:7: 1 (25.0 %)");
  expect(svg).toContain("&lt;T&gt;&amp;: 1");
});

describe("heap profile", () => {
  const heap = (app: HttpApp, query = "") => app.fetch(new Request(`http://x/profile/heap${query}`));

  test("names who holds buffers, until they are gone; objects are counted by type", async () => {
    hoardBuffers();
    const held = (await heapBytesByFunction(await heap(makeApp()))).get("hoardBuffers") ?? 0;
    expect(held).toBeGreaterThan(28 * 2 ** 20);
    expect(held).toBeLessThan(36 * 2 ** 20);
    hoard.length = 0;
    let left = held;
    for (let i = 0; i < 50 && left > held / 4; i++) {
      Bun.gc(true);
      await Bun.sleep(10);
      left = (await heapBytesByFunction(await heap(makeApp()))).get("hoardBuffers") ?? 0;
    }
    expect(left).toBeLessThan(held / 4);
    const byFunction = await heapBytesByFunction(await heap(makeApp()));
    expect([...byFunction.keys()]).toEqual(expect.arrayContaining(["Function", "string", "(objects)"]));
    expect(byFunction.get("(objects)")).toBeGreaterThan(1e5);
  });

  test("formats", async () => {
    expect(await (await heap(makeApp(), "?format=svg")).text()).toStartWith("<svg");
    for (const format of ["jemalloc", "text"]) expect([format, (await heap(makeApp(), `?format=${format}`)).status]).toEqual([format, 400]);
  });

  test("while a processor profile runs, both are whole", async () => {
    const app = makeApp();
    const cpu = get(app, "?seconds=1&frequency=500");
    for (let i = 0; i < 5; i++) {
      expect((await heap(app)).status).toBe(200);
      burnProcessor();
      await Bun.sleep(10);
    }
    const reply = await busyUntil(cpu);
    // Also a test that the rate of a profile is not that of the idle profiler before it.
    expect(Profile.decode(gunzipSync(await reply.bytes())).sample.length).toBeGreaterThan(40);
  });

  test("stack lines of every form", () => {
    const stack = "Error: allocation\n    at sample (/s/src/kit/buffers.ts:44:11)\n    at allocateBytes (/s/src/kit/buffers.ts:30:5)\n    at async read (/s/a.ts:7:9)\n    at /s/b.ts:8:1\n    at <anonymous> (native)\n    at moreNative (native:1:11)";
    expect(parseStack(stack).map(({ name, file, line }) => `${name} ${file}:${line}`)).toEqual(["read /s/a.ts:7", "(anonymous) /s/b.ts:8", "<anonymous> native:0", "moreNative native:1"]);
  });
});

describe("heap snapshot", () => {
  const keys = generateTokenKeys();
  const jwt = JwtAuth.fromPem(keys.publicKeyPem, { wallMs: () => Date.now() });
  const snapshot = (app: HttpApp) => app.fetch(new Request("http://x/profile/heap/snapshot", { headers: { authorization: `Bearer ${signToken({ scope: "admin" }, keys.privateKeyPem)}` } }));
  const withTokens = () => createHttpApp({ role: "test", log: testLogger(), auth: { jwt }, metrics: new Metrics(), version: "1", clock: new RealClock(), random: new RealRandom() });

  test("is not there without authentication, and refused without a token", async () => {
    const log = testLogger();
    log.expectWarn("request refused");
    expect((await makeApp().fetch(new Request("http://x/profile/heap/snapshot"))).status).toBe(404);
    const app = createHttpApp({ role: "test", log, auth: { jwt }, metrics: new Metrics(), version: "1", clock: new RealClock(), random: new RealRandom() });
    expect((await app.fetch(new Request("http://x/profile/heap/snapshot"))).status).toBe(401);
  });

  test("one at a time, until the first was read or given up", async () => {
    const app = withTokens();
    const first = await snapshot(app);
    expect((await snapshot(app)).status).toBe(409);
    expect(Object.keys((await first.json()) as object)).toContain("snapshot");
    const second = await snapshot(app);
    expect(second.status).toBe(200);
    await second.body?.cancel();
    const third = await snapshot(app);
    expect(third.status).toBe(200);
    await third.body?.cancel();
  });
});
