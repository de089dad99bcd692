/** What the pageserver does from time to time for all its tenants, each task in its own loop; a failure is logged and the loop goes on. */
import { Cancelled } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Clock } from "../platform/clock.ts";

export interface BackgroundTask {
  readonly name: string;
  /** Asked before each wait; 0 turns the task off until it is more. */
  readonly periodMs: () => number;
  run(signal: AbortSignal): Promise<void>;
}

/** How soon a task that is off looks again. */
const OFF_CHECK_MS = 10_000;

export class BackgroundTasks {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];

  constructor(options: { readonly clock: Clock; readonly log: Logger }) {
    this.#clock = options.clock;
    this.#log = options.log;
  }

  start(tasks: readonly BackgroundTask[]): void {
    for (const task of tasks) this.#loops.push(this.#loop(task));
  }

  /** Returns when what was running has ended. */
  async stop(): Promise<void> {
    this.#stop.abort(new Cancelled("the pageserver is stopping"));
    await Promise.all(this.#loops);
  }

  async #loop(task: BackgroundTask): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      const periodMs = task.periodMs();
      await this.#clock.sleep(periodMs > 0 ? periodMs : OFF_CHECK_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      if (periodMs <= 0) continue;
      try {
        await task.run(signal);
      } catch (error) {
        // A cancellation that is not ours is that of a tenant or timeline which went away meanwhile.
        if (signal.aborted) return;
        if (error instanceof Cancelled) continue;
        this.#log.warn("a background task failed, it will be tried again", { task: task.name, error });
      }
    }
  }
}
