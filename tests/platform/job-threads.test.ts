import { afterEach, expect, test } from "bun:test";
import { StrataError } from "../../src/kit/errors.ts";
import { allocateSharedBytes } from "../../src/kit/buffers.ts";
import { RealJobThreads } from "../../src/platform/real/job-threads.ts";

const ENTRY = new URL("./job-thread-entry.ts", import.meta.url).href;
let threads: RealJobThreads;
afterEach(() => threads.close());

test("more jobs than threads are all done", async () => {
  threads = new RealJobThreads(ENTRY, 2);
  const results = await Promise.all(Array.from({ length: 50 }, (_, value) => threads.run({ action: "double", value })));
  expect(results).toEqual(Array.from({ length: 50 }, (_, value) => value * 2));
});

test("errors come back with kind, code, details and their cause's words; bugs as such", async () => {
  threads = new RealJobThreads(ENTRY, 1);
  const refused = await threads.run({ action: "refuse", value: 7 }).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(StrataError);
  expect(refused).toMatchObject({ kind: "corrupt", code: "bad-layer-index", message: "damaged: inside", details: { value: 7 } });
  const bug = await threads.run({ action: "stumble", value: 0 }).catch((error: unknown) => error);
  expect(bug).not.toBeInstanceOf(StrataError);
  expect(String(bug)).toContain("a bug");
  expect(await threads.run({ action: "double", value: 4 })).toBe(8);
});

test("a thread that dies fails its job, and another takes its place", async () => {
  threads = new RealJobThreads(ENTRY, 1);
  const died = threads.run({ action: "die", value: 0 });
  const next = threads.run({ action: "double", value: 5 });
  expect(await died.catch((error: unknown) => error)).toMatchObject({ code: "worker-ended" });
  expect(await next).toBe(10);
});

test("a job nobody wants any more ends, with the reason of who gave it up", async () => {
  threads = new RealJobThreads(ENTRY, 1);
  const abort = new AbortController();
  const endless = threads.run({ action: "until", value: 0 }, abort.signal);
  const waiting = threads.run({ action: "double", value: 1 }, abort.signal);
  const next = threads.run({ action: "double", value: 6 });
  await Bun.sleep(20);
  abort.abort(new Error("no longer"));
  expect(String(await endless.catch((error: unknown) => error))).toContain("no longer");
  expect(String(await waiting.catch((error: unknown) => error))).toContain("no longer");
  expect(await next).toBe(12);
});

test("shared memory is one and the same on both sides", async () => {
  threads = new RealJobThreads(ENTRY, 1);
  const shared = allocateSharedBytes(1);
  await threads.run({ action: "write", value: 77, shared });
  expect(shared[0]).toBe(77);
});

test("closing fails what is under way", async () => {
  threads = new RealJobThreads(ENTRY, 1);
  const endless = threads.run({ action: "until", value: 0 }).catch((error: unknown) => error);
  await Bun.sleep(20);
  await threads.close();
  expect(await endless).toMatchObject({ code: "worker-ended" });
});
