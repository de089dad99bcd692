/**
 * Retrying of storage operations: exponential delays with jitter, cut at a bound, on the injected clock. Only errors
 * that may pass by themselves (kinds `unavailable` and `retry`) are tried again, unless the caller knows better.
 */
import { StrataError } from "../kit/errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";

export interface RetryOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Attempts in all; Infinity to go on until the signal aborts. */
  readonly maxAttempts: number;
  readonly firstDelayMs?: number;
  readonly maxDelayMs?: number;
  readonly signal?: AbortSignal;
  /** Which errors are tried again; `isTransient` unless given. */
  readonly isWorthRetrying?: (error: unknown) => boolean;
  /** Told of every failure that will be tried again. */
  readonly onRetry?: (error: unknown, attempt: number, delayMs: number) => void;
}

export function isTransient(error: unknown): boolean {
  return error instanceof StrataError && (error.kind === "unavailable" || error.kind === "retry");
}

/** Runs `operation` until it succeeds, fails for good, or attempts run out (then the last error). @throws Cancelled */
export async function withRetries<T>(operation: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const { clock, random, maxAttempts, firstDelayMs = 100, maxDelayMs = 10_000, signal, isWorthRetrying = isTransient, onRetry } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return await operation(attempt);
    } catch (error) {
      if (!isWorthRetrying(error) || attempt >= maxAttempts || signal?.aborted) throw error;
      const delayMs = Math.min(maxDelayMs, firstDelayMs * 2 ** Math.min(attempt - 1, 20)) * (0.5 + random.float() / 2);
      onRetry?.(error, attempt, delayMs);
      await clock.sleep(delayMs, signal);
    }
  }
}
