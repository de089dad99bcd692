/**
 * Says when reading from a proposer has been blocked for long, and when it goes on. A busy connection is blocked for a moment
 * thousands of times a second, so there is one timer for all of them, and it only looks.
 */
import type { Logger } from "../../observability/log.ts";
import type { Clock, Timer } from "../../platform/clock.ts";

const SLOW_MS = 5000;

export class BlockedWatch {
  readonly #clock: Clock;
  readonly #log: Logger;
  #sinceMs: number | null = null;
  #said = false;
  #timer: Timer | null = null;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  begin(): void {
    this.#sinceMs = this.#clock.monotonicMs();
    this.#timer ??= this.#clock.after(SLOW_MS, () => this.#look());
  }

  end(): void {
    if (this.#said && this.#sinceMs !== null) this.#log.warn("reading from the proposer goes on", { waitedMs: this.#clock.monotonicMs() - this.#sinceMs });
    this.#said = false;
    this.#sinceMs = null;
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #look(): void {
    this.#timer = null;
    if (this.#sinceMs === null || this.#said) return;
    const waitedMs = this.#clock.monotonicMs() - this.#sinceMs;
    if (waitedMs >= SLOW_MS) {
      this.#said = true;
      this.#log.warn("the acceptor does not keep up: reading from the proposer is blocked", { waitedMs });
    } else this.#timer = this.#clock.after(SLOW_MS - waitedMs, () => this.#look());
  }
}
