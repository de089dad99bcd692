/**
 * Wall-clock time for decisions that delete: history is kept for so long by the wall clock, and a clock that jumps ahead must not make
 * it old all at once. It never runs ahead of the wall clock, and from when it was made it gains on time that really passed by a
 * hundredth at most; so a clock that was put right is followed in the end, and one that went wrong leaves time to notice.
 */
import type { Clock } from "../../platform/clock.ts";

const FASTEST = 1.01;

export class PrudentClock {
  readonly #clock: Clock;
  readonly #startWallMs: number;
  readonly #startMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startWallMs = clock.wallMs();
    this.#startMs = clock.monotonicMs();
  }

  /** Milliseconds since the Unix epoch, not later than the wall clock says. */
  wallMs(): number {
    return Math.min(this.#clock.wallMs(), this.#startWallMs + (this.#clock.monotonicMs() - this.#startMs) * FASTEST);
  }
}
