/** What the pageserver does from time to time for all its tenants, each task in its own loop; a failure is logged and the loop goes on. */
import { Cancelled } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { CounterChild, Family, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";

export interface BackgroundTask {
  readonly name: string;
  /** Asked before each wait; 0 turns the task off until it is more. */
  readonly periodMs: () => number;
  run(signal: AbortSignal): Promise<void>;
  /** To be counted when a run takes longer than it may: the peer's name of the loop, and how long that is. */
  readonly overrun?: { readonly loop: string; readonly periodMs: () => number };
}

/** How soon a task that is off looks again. */
const OFF_CHECK_MS = 10_000;

export class BackgroundTasks {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];
  readonly #overruns: Family<CounterChild>;

  constructor(options: { readonly clock: Clock; readonly log: Logger; readonly metrics: Metrics }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#overruns = options.metrics.counter({ name: "pageserver_background_loop_period_overrun_count", help: "Runs of background tasks that took longer than their period, in seconds", labels: ["task", "period"] });
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
      const startMs = this.#clock.monotonicMs();
      try {
        await task.run(signal);
        this.#countOverrun(task, this.#clock.monotonicMs() - startMs);
      } catch (error) {
        // A cancellation that is not ours is that of a tenant or timeline which went away meanwhile.
        if (signal.aborted) return;
        if (error instanceof Cancelled) continue;
        this.#log.warn("a background task failed, it will be tried again", { task: task.name, error });
      }
    }
  }

  #countOverrun({ name, overrun }: BackgroundTask, tookMs: number): void {
    const periodMs = overrun?.periodMs() ?? 0;
    if (overrun === undefined || periodMs <= 0 || tookMs < periodMs) return;
    this.#log.info("a background task took longer than its period", { task: name, tookMs: Math.round(tookMs), periodMs });
    this.#overruns.with(overrun.loop, String(Math.floor(periodMs / 1000))).inc();
  }
}
