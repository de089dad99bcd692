/** The system's time. */
import { Cancelled } from "../../kit/errors.ts";
import type { Clock, Timer } from "../clock.ts";

/** setTimeout takes a signed 32-bit count; longer waits are made of several. */
const MAX_DELAY_MS = 2 ** 31 - 1;

export class RealClock implements Clock {
  monotonicMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(new Cancelled());
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        timer.cancel();
        reject(new Cancelled());
      };
      const timer = this.after(durationMs, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  after(delayMs: number, callback: () => void): Timer {
    const state: { handle: ReturnType<typeof setTimeout> | undefined } = { handle: undefined };
    const arm = (restMs: number): void => {
      const stepMs = Math.min(restMs, MAX_DELAY_MS);
      state.handle = setTimeout(() => (restMs > stepMs ? arm(restMs - stepMs) : callback()), stepMs);
    };
    arm(Math.max(0, delayMs));
    return { cancel: () => clearTimeout(state.handle) };
  }
}
