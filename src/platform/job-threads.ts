/**
 * Jobs for worker threads: plain data goes in (SharedArrayBuffers are shared, all else is copied), plain data comes out. What a
 * thread does with a job is up to its entry point (src/workers/), which calls `serveJobs`.
 */

/** Told to a job that nobody wants any more; it ends when it notices. */
export interface JobCancel {
  throwIfAborted(): void;
}

export interface JobThreads {
  /**
   * Waits its turn when all threads are busy.
   * @throws what the job threw (StrataErrors with their kind and code); the signal's reason when it aborts, after the job has
   * ended; StrataError unavailable `worker-ended` when its thread died
   */
  run(input: unknown, signal?: AbortSignal): Promise<unknown>;
  /** Ends the threads; jobs under way fail. */
  close(): Promise<void>;
}
