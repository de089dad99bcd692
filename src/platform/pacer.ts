/** Keeps long work from holding the event loop: ask `pause()` often, wait when it says so. */
import type { Clock } from "./clock.ts";

const SLICE_MS = 4;

export class Pacer {
  readonly #clock: Clock;
  #sliceStartMs: number;

  readonly #sliceMs: number;

  /** @param sliceMs infinite on a thread that has nothing else to do */
  constructor(clock: Clock, sliceMs = SLICE_MS) {
    this.#clock = clock;
    this.#sliceMs = sliceMs;
    this.#sliceStartMs = clock.monotonicMs();
  }

  /** Undefined while the slice lasts; else a promise to wait for, after which the next slice begins. */
  pause(): Promise<void> | undefined {
    if (this.#clock.monotonicMs() - this.#sliceStartMs < this.#sliceMs) return undefined;
    return this.#clock.sleep(0).then(() => {
      this.#sliceStartMs = this.#clock.monotonicMs();
    });
  }

  /** Takes a planner's steps, which are short, until it is done. @throws the signal's reason, between two slices */
  async run<T>(steps: Generator<void, T>, signal?: AbortSignal): Promise<T> {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      const pause = this.pause();
      if (pause === undefined) continue;
      await pause;
      signal?.throwIfAborted();
    }
  }
}
