/** What is said when a peer or the acceptor does not keep up, by a clock of the test's own. */
import { expect, test } from "bun:test";
import { isStrataError } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { drained } from "../../src/safekeeper/drained.ts";
import { BlockedWatch } from "../../src/safekeeper/receive-wal/blocked-watch.ts";

class ManualClock implements Clock {
  #nowMs = 0;
  #timers: { readonly atMs: number; readonly callback: () => void }[] = [];

  monotonicMs(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return this.#nowMs;
  }
  sleep(): Promise<void> {
    throw new Error("nobody sleeps here");
  }
  after(delayMs: number, callback: () => void): { cancel(): void } {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.push(timer);
    return { cancel: () => (this.#timers = this.#timers.filter((one) => one !== timer)) };
  }
  get timers(): number {
    return this.#timers.length;
  }
  advance(ms: number): void {
    for (const endMs = this.#nowMs + ms; ; ) {
      const due = this.#timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs).at(0);
      this.#nowMs = due?.atMs ?? endMs;
      if (due === undefined) return;
      this.#timers = this.#timers.filter((one) => one !== due);
      due.callback();
    }
  }
}

const said = (log: RecordingLogger): string[] => log.entries.map(({ level, message, fields }) => `${level} ${message} ${String(fields.waitedMs)}`);

test("an acceptor that blocks its reader for 5 s is said so once, and when it goes on; one that blocks often and shortly is not", () => {
  const clock = new ManualClock();
  const log = new RecordingLogger();
  const watch = new BlockedWatch(clock, log);
  for (let count = 0; count < 20; count++) {
    watch.begin();
    clock.advance(900);
    watch.end();
    clock.advance(10);
  }
  expect(said(log)).toEqual([]);
  watch.begin();
  clock.advance(20_000);
  watch.end();
  expect(log.entries.map(({ level }) => level)).toEqual(["warn", "warn"]);
  expect(log.entries[0].message).toContain("reading from the proposer is blocked");
  expect(log.entries[0].fields.waitedMs).toBeGreaterThanOrEqual(5_000);
  expect(log.entries[0].fields.waitedMs).toBeLessThan(10_000);
  expect(said(log)[1]).toBe("warn reading from the proposer goes on 20000");
  watch.stop();
  expect(clock.timers).toBe(0);
});

/** A stream with bytes that nobody takes. */
function blocked() {
  const over = Promise.withResolvers<void>();
  return { copy: { bufferedBytes: 1 << 20, drained: () => over.promise }, release: over.resolve };
}

test("a peer that takes something now and then is waited for, with a line after 5 s and one at the end", async () => {
  const clock = new ManualClock();
  const log = new RecordingLogger();
  const { copy, release } = blocked();
  const waiting = drained(copy, { clock, log, timeoutMs: 60_000, signals: [] });
  for (let count = 0; count < 10; count++) {
    clock.advance(50_000);
    copy.bufferedBytes--;
  }
  release();
  await waiting;
  expect(said(log)).toEqual(["info sending is blocked: the peer does not keep up 5000", "info sending goes on 500000"]);
  expect(clock.timers).toBe(0);
});

test("one that takes nothing is given up, an abort ends the wait, and little is not waited for", async () => {
  const clock = new ManualClock();
  const log = new RecordingLogger();
  const stuck = drained(blocked().copy, { clock, log, timeoutMs: 60_000, signals: [] }).catch((error: unknown) => error);
  clock.advance(61_000);
  expect(isStrataError(await stuck, "peer-blocked")).toBe(true);
  const abort = new AbortController();
  const ended = drained(blocked().copy, { clock, log, timeoutMs: 0, signals: [abort.signal] });
  clock.advance(600_000);
  abort.abort();
  await ended;
  await drained(blocked().copy, { clock, log, timeoutMs: 0, signals: [AbortSignal.abort()] });
  await drained({ bufferedBytes: 1000, drained: async () => undefined }, { clock, log, timeoutMs: 1, signals: [] });
  expect(clock.timers).toBe(0);
});
