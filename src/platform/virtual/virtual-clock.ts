/**
 * Virtual time: it stands still while anything can run, and jumps to the next timer when nothing can. Everything that happens
 * in a simulation happens in a timer's callback or in what follows from it, one at a time, so the same seed gives the same
 * run. `run` is synchronous: it empties the microtask queue itself between timers, half a microsecond each time.
 *
 * Code under it must wait for nothing but this clock's timers (and what they bring about): a promise of the real
 * world would never be fulfilled while `run` holds the thread, and is reported as a deadlock.
 */
import { drainMicrotasks } from "bun:jsc";
import { Cancelled, InvariantError } from "../../kit/errors.ts";
import type { Clock, Timer } from "../clock.ts";
import type { SeededRandom } from "./seeded-random.ts";

interface Entry {
  readonly timeMs: number;
  /** Breaks ties: the order of asking, or a random number when interleavings are explored. */
  readonly order: number;
  readonly sequence: number;
  callback: (() => void) | null;
}

export interface VirtualClockOptions {
  /** Wall-clock time at the start; 2030-01-01 unless given. */
  readonly epochMs?: number;
  /** Timers due at the same time fire in random order instead of the order of asking. */
  readonly shuffle?: SeededRandom;
}

export interface RunLimits {
  /** A simulation that goes on beyond this virtual time is stuck; one virtual hour unless given. */
  readonly maxMs?: number;
  /** Timers fired; 10 million unless given. */
  readonly maxSteps?: number;
  /** Called after every timer and all that followed from it: where a simulator looks at its invariants. What it throws ends the run. */
  readonly afterStep?: () => void;
}

const DEFAULT_EPOCH_MS = Date.UTC(2030, 0, 1);
const DEFAULT_LIMITS = { maxMs: 3_600_000, maxSteps: 10_000_000 };

export class VirtualClock implements Clock {
  readonly #epochMs: number;
  readonly #shuffle: SeededRandom | undefined;
  readonly #heap: Entry[] = [];
  #nowMs = 0;
  #sequence = 0;
  #steps = 0;

  constructor(options: VirtualClockOptions = {}) {
    this.#epochMs = options.epochMs ?? DEFAULT_EPOCH_MS;
    this.#shuffle = options.shuffle;
  }

  /** Timers fired so far. */
  get steps(): number {
    return this.#steps;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#epochMs + this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const sequence = this.#sequence++;
    const order = this.#shuffle === undefined ? sequence : this.#shuffle.u32();
    const entry: Entry = { timeMs: this.#nowMs + Math.max(0, delayMs), order, sequence, callback };
    this.#push(entry);
    return {
      cancel: () => {
        entry.callback = null;
      },
    };
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, durationMs, signal);
  }

  /**
   * Runs `body` and virtual time until it is settled; gives its result or throws its error.
   * @throws InvariantError when nothing is left that could bring it on, or a limit is passed
   */
  run<T>(body: () => Promise<T>, limits: RunLimits = {}): T {
    const outcome: { state: "pending" | "fulfilled" | "rejected"; value?: T; error?: unknown } = { state: "pending" };
    body().then(
      (value) => Object.assign(outcome, { state: "fulfilled", value }),
      (error: unknown) => Object.assign(outcome, { state: "rejected", error }),
    );
    const endMs = this.#nowMs + (limits.maxMs ?? DEFAULT_LIMITS.maxMs);
    const endSteps = this.#steps + (limits.maxSteps ?? DEFAULT_LIMITS.maxSteps);
    drainMicrotasks();
    while (outcome.state === "pending") {
      if (this.#steps >= endSteps || this.#nowMs > endMs) throw new InvariantError(`the simulation is not done at ${this.#nowMs} ms after ${this.#steps} steps`);
      if (!this.#step(endMs + 1)) throw new InvariantError(`the simulation is stuck at ${this.#nowMs} ms: nothing is left to wait for`);
      limits.afterStep?.();
    }
    if (outcome.state === "rejected") throw outcome.error;
    return outcome.value as T;
  }

  /** Lets `durationMs` of virtual time pass. */
  advance(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    drainMicrotasks();
    while (this.#step(untilMs)) {
      // Everything happens in the step.
    }
    this.#nowMs = untilMs;
  }

  /** Fires the next timer that is due by `untilMs`; false when there is none. */
  #step(untilMs: number): boolean {
    for (let top = this.#heap[0]; top !== undefined && top.timeMs <= untilMs; top = this.#heap[0]) {
      this.#pop();
      const callback = top.callback;
      if (callback === null) continue;
      this.#nowMs = top.timeMs;
      this.#steps++;
      callback();
      drainMicrotasks();
      return true;
    }
    return false;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(entry, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  if (a.timeMs !== b.timeMs) return a.timeMs < b.timeMs;
  return a.order !== b.order ? a.order < b.order : a.sequence < b.sequence;
}

/** `sleep` made of `after`. */
export function sleepOn(clock: Pick<Clock, "after">, durationMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return Promise.reject(new Cancelled());
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      timer.cancel();
      reject(new Cancelled());
    };
    const timer = clock.after(durationMs, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
