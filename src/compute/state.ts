/** What a compute is doing, for its status page and its metrics. */
import { describeError } from "../kit/errors.ts";
import type { DurationChild, Family, GaugeChild, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import type { SizeQuota } from "./postgres-process/size-quota.ts";
import type { ProposerStatus } from "./proposer/proposer.ts";

export type ComputePhase = "init" | "running" | "stopping" | "stopped" | "failed";
const PHASES: readonly ComputePhase[] = ["init", "running", "stopping", "stopped", "failed"];
const STEP_BUCKETS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100];

export class ComputeState {
  #phase: ComputePhase = "init";
  #step: string | null = null;
  #error: string | null = null;
  #proposer: (() => ProposerStatus) | null = null;
  /** Null without a quota. */
  quota: Pick<SizeQuota, "state" | "limitBytes"> | null = null;
  readonly #clock: Clock;
  readonly #stepMs: Record<string, number> = {};
  readonly #steps: Family<DurationChild>;
  readonly #phases: Family<GaugeChild>;

  constructor(metrics: Metrics, clock: Clock) {
    this.#clock = clock;
    this.#steps = metrics.duration({ name: "compute_ctl_start_step_seconds", help: "Time taken by each step of the start", labels: ["step"], buckets: STEP_BUCKETS });
    this.#phases = metrics.gauge({ name: "compute_ctl_up", help: "1 for the phase the compute is in", labels: ["status"] });
    this.#enter("init");
  }

  get phase(): ComputePhase {
    return this.#phase;
  }
  /** The step of the start that is under way. */
  get currentStep(): string | null {
    return this.#step;
  }
  get error(): string | null {
    return this.#error;
  }
  get stepMs(): Readonly<Record<string, number>> {
    return this.#stepMs;
  }
  proposer(): ProposerStatus | null {
    return this.#proposer?.() ?? null;
  }

  async step<Result>(name: string, body: () => Promise<Result>): Promise<Result> {
    const started = this.#clock.monotonicMs();
    this.#step = name;
    try {
      return await body();
    } finally {
      const tookMs = this.#clock.monotonicMs() - started;
      this.#stepMs[name] = tookMs;
      this.#steps.with(name).recordMs(tookMs);
      this.#step = null;
    }
  }

  /** @param proposer null for a replica, which has none */
  running(proposer: (() => ProposerStatus) | null): void {
    this.#proposer = proposer;
    this.#enter("running");
  }
  stopping(): void {
    this.#enter("stopping");
  }
  stopped(reason: unknown): void {
    this.#proposer = null;
    if (reason === null) this.#enter("stopped");
    else this.failed(reason);
  }
  failed(error: unknown): void {
    this.#error = describeError(error);
    this.#enter("failed");
  }

  #enter(phase: ComputePhase): void {
    this.#phase = phase;
    for (const each of PHASES) this.#phases.with(each).set(each === phase ? 1 : 0);
  }
}
