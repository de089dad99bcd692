/**
 * How many page requests a tenant may make: a leaky bucket. Each request pours in one unit, the bucket drains at the steady rate and
 * holds so many; a request that finds no room waits, in the order of coming. What it waited may be given up by its signal.
 *
 * All state is the moment at which the bucket will be empty. Source: the peer's tenant/throttle and leaky_bucket modules (GCRA).
 */
import { Cancelled } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";
import { ThrottleCounts } from "../counts/timeline-counts.ts";
import { abortable } from "../layers/layer.ts";

/** timeline_get_throttle */
export interface ThrottleConfig {
  readonly enabled: boolean;
  readonly requestsPerSecond: number;
  /** Requests that the bucket holds. */
  readonly max: number;
  /** Requests for which it has room at first. */
  readonly initial: number;
}

export const NO_THROTTLE: ThrottleConfig = { enabled: false, requestsPerSecond: 1, max: 1, initial: 1 };

export interface ThrottleMetrics {
  started(): void;
  /** @param waitedMs 0: there was room */
  finished(waitedMs: number): void;
}

export class Throttle {
  /** Of this tenant. */
  readonly counts = new ThrottleCounts();
  readonly #clock: Clock;
  readonly #config: () => ThrottleConfig;
  readonly #metrics: ThrottleMetrics;
  /** What `#emptyAtMs` was reckoned with. */
  #knownConfig: ThrottleConfig | null = null;
  #emptyAtMs = 0;
  /** Ends when the last of those who came before has had its turn. */
  #queue: Promise<void> = Promise.resolve();

  constructor(options: { readonly clock: Clock; readonly config: () => ThrottleConfig; readonly metrics: ThrottleMetrics }) {
    this.#clock = options.clock;
    this.#config = options.config;
    this.#metrics = options.metrics;
  }

  get isEnabled(): boolean {
    return this.#config().enabled;
  }

  /** Waits until there is room for `requests`. @returns how long, in milliseconds @throws the signal's reason */
  async take(requests: number, signal?: AbortSignal): Promise<number> {
    if (!this.isEnabled) return 0;
    this.counts.started++;
    this.#metrics.started();
    const startMs = this.#clock.monotonicMs();
    const before = this.#queue;
    const turn = Promise.withResolvers<void>();
    this.#queue = turn.promise;
    let waited = false;
    try {
      await abortable(before, signal);
      for (let waitMs = this.#pour(requests, startMs); waitMs > 0; waitMs = this.#pour(requests, startMs)) {
        waited = true;
        await this.#clock.sleep(waitMs, signal);
      }
    } catch (error) {
      throw error instanceof Cancelled && signal?.aborted === true ? signal.reason : error;
    } finally {
      // Who gave up lets the next one in, but only once those before have gone.
      void before.then(() => turn.resolve());
      const waitedMs = waited ? this.#clock.monotonicMs() - startMs : 0;
      this.counts.finished++;
      if (waited) this.counts.throttled++;
      this.counts.waitedMs += waitedMs;
      this.#metrics.finished(waitedMs);
    }
    return this.#clock.monotonicMs() - startMs;
  }

  /** Milliseconds until there is room; 0 when it was poured in. */
  #pour(requests: number, startMs: number): number {
    const config = this.#config();
    if (!config.enabled) return 0;
    const nowMs = this.#clock.monotonicMs();
    const costMs = 1000 / config.requestsPerSecond;
    if (config !== this.#knownConfig) {
      this.#knownConfig = config;
      this.#emptyAtMs = nowMs + costMs * Math.max(0, config.max - config.initial);
    }
    // A bucket that ran empty before the request came does not owe it more than its room.
    const emptyAtMs = Math.max(this.#emptyAtMs, startMs) + costMs * requests;
    const allowedAtMs = emptyAtMs - costMs * Math.max(config.max, requests);
    if (allowedAtMs > nowMs) return allowedAtMs - nowMs;
    this.#emptyAtMs = emptyAtMs;
    return 0;
  }
}
