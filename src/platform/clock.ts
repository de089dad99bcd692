/** Time, passed in. Durations and instants are milliseconds (fractions allowed). */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds since an arbitrary start: for durations and deadlines. */
  monotonicMs(): number;
  /** Wall-clock milliseconds since the Unix epoch: for timestamps that people or PostgreSQL see. */
  wallMs(): number;
  /** Resolves after `durationMs`. @throws Cancelled as soon as `signal` aborts */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls `callback` once after `delayMs`. */
  after(delayMs: number, callback: () => void): Timer;
}
