/** Those who wait for an LSN to arrive, each with a deadline and a name. */
import { Cancelled, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";

interface Waiter {
  readonly lsn: Lsn;
  readonly who: string;
  readonly sinceMs: number;
  readonly wake: (error?: unknown) => void;
}

export interface WaitOptions {
  readonly timeoutMs: number;
  readonly who: string;
  readonly signal?: AbortSignal;
}

export class LsnWaiters {
  readonly #clock: Clock;
  #current: Lsn;
  /** By rising LSN. */
  readonly #waiters: Waiter[] = [];
  /** Told when somebody begins to wait. */
  onWait: (() => void) | null = null;

  constructor(clock: Clock, current: Lsn) {
    this.#clock = clock;
    this.#current = current;
  }

  get current(): Lsn {
    return this.#current;
  }

  /** Who waits for what, and for how long already: for status pages and for discovery on demand. */
  waiting(): { lsn: Lsn; who: string; waitedMs: number }[] {
    return this.#waiters.map(({ lsn, who, sinceMs }) => ({ lsn, who, waitedMs: this.#clock.monotonicMs() - sinceMs }));
  }

  get count(): number {
    return this.#waiters.length;
  }

  advance(lsn: Lsn): void {
    this.#current = lsn;
    let reached = 0;
    while (reached < this.#waiters.length && this.#waiters[reached].lsn <= lsn) reached++;
    for (const waiter of this.#waiters.splice(0, reached)) waiter.wake();
  }

  /** @throws StrataError retry `wait-lsn-timeout`; Cancelled */
  wait(lsn: Lsn, options: WaitOptions): Promise<void> {
    if (lsn <= this.#current) return Promise.resolve();
    if (options.signal?.aborted) return Promise.reject(new Cancelled());
    return new Promise<void>((resolve, reject) => {
      const timer = this.#clock.after(options.timeoutMs, () => end(this.#timeout(lsn, options)));
      const onAbort = () => end(new Cancelled());
      const end = (error?: unknown) => {
        timer.cancel();
        options.signal?.removeEventListener("abort", onAbort);
        const at = this.#waiters.indexOf(waiter);
        if (at >= 0) this.#waiters.splice(at, 1);
        if (error === undefined) resolve();
        else reject(error);
      };
      const waiter: Waiter = { lsn, who: options.who, sinceMs: this.#clock.monotonicMs(), wake: end };
      options.signal?.addEventListener("abort", onAbort, { once: true });
      let at = this.#waiters.length;
      while (at > 0 && this.#waiters[at - 1].lsn > lsn) at--;
      this.#waiters.splice(at, 0, waiter);
      this.onWait?.();
    });
  }

  #timeout(lsn: Lsn, options: WaitOptions): StrataError {
    return new StrataError("retry", "wait-lsn-timeout", `${options.who} waited ${options.timeoutMs} ms for LSN ${lsnToString(lsn)}, last record LSN is ${lsnToString(this.#current)}`, {
      details: { lsn: lsnToString(lsn), lastRecordLsn: lsnToString(this.#current), who: options.who },
    });
  }

  /** Ends all waits with `error`. */
  failAll(error: unknown): void {
    for (const waiter of this.#waiters.splice(0)) waiter.wake(error);
  }
}
