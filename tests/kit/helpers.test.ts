import { expect, test } from "bun:test";
import fc from "fast-check";
import { Cancelled, isStrataError, StrataError } from "../../src/kit/errors.ts";
import { formatDuration, parseDuration } from "../../src/kit/humantime.ts";
import { KeyedLock } from "../../src/kit/keyed-lock.ts";
import { backoffMs, retry } from "../../src/kit/retry.ts";

const noDelay = { sleep: async () => {} };

test("durations: known texts", () => {
  const known: Record<string, number> = { "10s": 10_000, "1h 30m": 5_400_000, "250ms": 250, "7 days": 604_800_000, "1d12h": 129_600_000, "2weeks": 1_209_600_000, "500us": 0.5, "0": 0, "0s": 0, "1month": 2_630_016_000, "1year": 31_557_600_000, "1 min": 60_000 };
  for (const [text, durationMs] of Object.entries(known)) expect([text, parseDuration(text)]).toEqual([text, durationMs]);
  for (const bad of ["", "  ", "10", "s", "10 parsecs", "-1s", "1.5s", "10s x", "1s,2s", "constructor", "1 constructor", "999999999999999999y"]) {
    expect(() => parseDuration(bad)).toThrow("is not a duration");
  }
  expect(formatDuration(0)).toBe("0s");
  expect(formatDuration(93_784_005.5)).toBe("1day 2h 3m 4s 5ms 500us");
  expect(formatDuration(2 * 31_557_600_000)).toBe("2years");
});

test("durations: what is formatted parses to itself", () => {
  fc.assert(fc.property(fc.nat(2 ** 31), fc.nat(999_999), (ms, nanos) => {
    const durationMs = ms + nanos / 1e6;
    expect(parseDuration(formatDuration(durationMs))).toBeCloseTo(durationMs, 5);
  }));
});

test("keyed lock: exclusive operations take turns, shared ones go together, order is kept", async () => {
  const locks = new KeyedLock();
  const trace: string[] = [];
  const run = (operation: string, shared: boolean) =>
    locks.run({ key: "k", operation, shared }, async () => {
      trace.push(`+${operation}`);
      await Bun.sleep(1);
      trace.push(`-${operation}`);
    });
  const all = [run("a", false), run("b", true), run("c", true), run("d", false), run("e", true)];
  expect(locks.holders("k")).toEqual(["a"]);
  expect(locks.tryAcquire({ key: "k", operation: "x", shared: true })).toBeNull();
  expect(locks.tryAcquire({ key: "other", operation: "x" })).not.toBeNull();
  await Promise.all(all);
  expect(trace).toEqual(["+a", "-a", "+b", "+c", "-b", "-c", "+d", "-d", "+e", "-e"]);
  expect(locks.holders("k")).toEqual([]);
});

test("keyed lock: a waiter that gives up lets others pass, too many are refused, release twice is once", async () => {
  const locks = new KeyedLock({ maxWaiters: 2 });
  const held = await locks.acquire({ key: "k", operation: "split", shared: true });
  const controller = new AbortController();
  const waiting = locks.acquire({ key: "k", operation: "delete", signal: controller.signal });
  const behind = locks.acquire({ key: "k", operation: "read", shared: true });
  const refused = await locks.acquire({ key: "k", operation: "late" }).catch((error: unknown) => error);
  expect(isStrataError(refused, "too-many-waiters") && refused.message).toContain("held by split");
  controller.abort();
  await expect(waiting).rejects.toBeInstanceOf(Cancelled);
  const second = await behind;
  held.release();
  held.release();
  expect(locks.tryAcquire({ key: "k", operation: "exclusive" })).toBeNull();
  second.release();
  expect(locks.tryAcquire({ key: "k", operation: "exclusive" })).not.toBeNull();
});

test("retry: transient errors only, as often as told, with growing pauses", async () => {
  const pauses: number[] = [];
  const options = { maxAttempts: 4, baseMs: 10, maxMs: 35, jitter: 0, clock: noDelay, random: { float: () => 0 }, onRetry: ({ pauseMs }: { pauseMs: number }) => pauses.push(pauseMs) };
  let calls = 0;
  const failing = (kind: "retry" | "conflict") => retry(async () => Promise.reject(new StrataError(kind, "x", `call ${++calls}`)), options);
  await expect(failing("retry")).rejects.toThrow("call 4");
  expect(pauses).toEqual([10, 20, 35]);
  calls = 0;
  await expect(failing("conflict")).rejects.toThrow("call 1");
  expect(await retry(async (attempt) => (attempt < 2 ? Promise.reject(new StrataError("unavailable", "x", "no")) : attempt), options)).toBe(2);
  await expect(retry(async () => 1, { ...options, signal: AbortSignal.abort() })).rejects.toBeInstanceOf(Cancelled);
  expect(backoffMs({ baseMs: 100, maxMs: 1000 }, 0, 0.5)).toBe(75);
  expect(backoffMs({ baseMs: 100, maxMs: 1000 }, 1000, 0.999)).toBeLessThanOrEqual(1000);
});
