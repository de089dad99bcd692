import { expect, test } from "bun:test";
import { gunzipSync } from "node:zlib";
import { perftools } from "pprof/proto/profile";
import { createHttpApp, type HttpApp } from "../../src/http/app.ts";
import { encodePprof, renderFlameGraph } from "../../src/observability/cpu-profile.ts";
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
  const profile = Profile.decode(gunzipSync(encodePprof(samples)));
  const functionOf = (location: unknown) => profile.function.find((entry) => Number(entry.id) === Number(profile.location.find((l) => Number(l.id) === Number(location))?.line?.[0]?.functionId));
  const stacks = profile.sample.map((sample) => (sample.locationId ?? []).map((location) => profile.stringTable[Number(functionOf(location)?.name)]));
  expect(stacks).toEqual([["hot", "main"], ["hot", "main"], []]);
  expect([profile.function.length, profile.location.length]).toEqual([2, 3]);
  expect(Number(profile.timeNanos)).toBe(1_700_000_000_000e6);
  expect(Number(profile.durationNanos)).toBe(30e6);
  const svg = renderFlameGraph({ ...samples, stacks: [...samples.stacks, [{ name: "<T>&", file: "", line: 0 }]] });
  expect(svg).toContain("hot /a/hot.ts:7: 1 (25.0 %)");
  expect(svg).toContain("&lt;T&gt;&amp;: 1");
});
