/**
 * Trying again, with growing pauses. Time and randomness are passed in. The log level is the caller's affair: `onRetry` is
 * told the attempt and the pause, so that a first failure can be logged low and a long one loud.
 */
import { Cancelled, isStrataError } from "./errors.ts";

export interface BackoffOptions {
  /** First pause. */
  readonly baseMs: number;
  readonly maxMs: number;
  /** Multiplies each pause; 2 unless given. */
  readonly factor?: number;
  /** Share of a pause that is random, 0 to 1; 0.5 unless given, so that many clients do not return as one. */
  readonly jitter?: number;
}

/** The pause before attempt `attempt` + 1 (0 is the first), in milliseconds. @param random uniform in [0, 1) */
export function backoffMs(options: BackoffOptions, attempt: number, random: number): number {
  const full = Math.min(options.maxMs, options.baseMs * (options.factor ?? 2) ** Math.min(attempt, 64));
  const jitter = options.jitter ?? 0.5;
  return full * (1 - jitter) + full * jitter * random;
}

export interface RetryOptions extends BackoffOptions {
  /** All attempts, the first included. */
  readonly maxAttempts: number;
  readonly clock: { sleep(durationMs: number, signal?: AbortSignal): Promise<void> };
  readonly random: { float(): number };
  readonly signal?: AbortSignal;
  /** Errors of kind `retry` and `unavailable` unless given. */
  readonly isRetryable?: (error: unknown) => boolean;
  readonly onRetry?: (event: { readonly error: unknown; readonly attempt: number; readonly pauseMs: number }) => void;
}

export function isTransient(error: unknown): boolean {
  return isStrataError(error) && (error.kind === "retry" || error.kind === "unavailable");
}

/** @throws the last error when attempts are used up or it is not retryable; Cancelled when the signal aborts */
export async function retry<T>(action: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const isRetryable = options.isRetryable ?? isTransient;
  for (let attempt = 0; ; attempt++) {
    if (options.signal?.aborted === true) throw new Cancelled();
    try {
      return await action(attempt);
    } catch (error) {
      if (attempt + 1 >= options.maxAttempts || !isRetryable(error)) throw error;
      const pauseMs = backoffMs(options, attempt, options.random.float());
      options.onRetry?.({ error, attempt, pauseMs });
      await options.clock.sleep(pauseMs, options.signal);
    }
  }
}
