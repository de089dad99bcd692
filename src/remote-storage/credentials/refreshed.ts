/** A secret that somebody hands out for a while: asked for again some time before its end, by one caller for all. */
import type { Clock } from "../../platform/clock.ts";

export interface Expiring {
  /** Wall-clock milliseconds; null: it does not end. */
  readonly expiresMs: number | null;
}

/** Clocks differ, and a request that was signed must still arrive. */
const AHEAD_MS = 5 * 60_000;

export class Refreshed<T extends Expiring> {
  readonly #clock: Clock;
  readonly #fetch: () => Promise<T>;
  #current: T | null = null;
  #fetching: Promise<T> | null = null;

  constructor(clock: Clock, fetch: () => Promise<T>) {
    this.#clock = clock;
    this.#fetch = fetch;
  }

  /** @throws what `fetch` throws, unless the one before is good still */
  async get(): Promise<T> {
    const current = this.#current;
    if (current !== null && this.#isGood(current, AHEAD_MS)) return current;
    this.#fetching ??= this.#fetch().finally(() => (this.#fetching = null));
    try {
      this.#current = await this.#fetching;
      return this.#current;
    } catch (error) {
      if (current !== null && this.#isGood(current, 0)) return current;
      throw error;
    }
  }

  #isGood({ expiresMs }: T, aheadMs: number): boolean {
    return expiresMs === null || expiresMs - aheadMs > this.#clock.wallMs();
  }
}
