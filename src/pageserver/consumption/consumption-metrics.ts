/**
 * Consumption metrics: from time to time what each tenant and timeline consumes is read, written down, and sent to a receiver, with a copy for
 * a bucket. README.md says what a receiver can rely on.
 *
 * Source: the peer pageserver/src/consumption_metrics.rs.
 */
import type { Failpoints } from "../../kit/failpoints.ts";
import type { Transport } from "../../http/client.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorageConfig } from "../../remote-storage/open-remote-storage.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { BackgroundTask } from "../background-tasks.ts";
import { Pacer } from "../layers/pacer.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { MetricsBucket } from "./bucket.ts";
import { type DiskCacheOptions, loadOutbox, saveOutbox } from "./disk-cache.ts";
import { type Answer, MetricsEndpoint, POST_ATTEMPTS } from "./endpoint.ts";
import { type EventTime, eventTime, eventTimeMs, laterOf } from "./event-time.ts";
import { type EventGroup, inRequests, type Reading, type ReadingGroup, recordedAt, requestBody } from "./events.ts";
import { IdempotencyKeys } from "./idempotency-keys.ts";
import type { Outbox } from "./outbox.ts";
import { tenantReadings, timelineReadings } from "./readings.ts";
import { type Sample, Sampling } from "./sampler.ts";

/** metric_collection_endpoint, …_interval, …_bucket of pageserver.toml. */
export interface ConsumptionConfig {
  readonly endpoint: string;
  readonly intervalMs: number;
  readonly bucket: RemoteStorageConfig | null;
}

export interface ConsumptionOptions {
  readonly config: Omit<ConsumptionConfig, "bucket">;
  readonly openBucket: (() => Promise<RemoteStorage>) | null;
  readonly nodeId: number;
  readonly workDirectory: string;
  readonly tenants: Pick<Tenants, "list">;
  readonly platform: Pick<Platform, "files" | "clock" | "random">;
  readonly log: Logger;
  readonly transport: Transport;
  readonly caPem?: string | undefined;
  readonly failpoints?: Failpoints | undefined;
}

/** The first round waits that long for tenants that are being loaded. */
const LOADING_WAIT_MS = 60_000;
const LOADING_CHECK_MS = 1_000;
/** A clock that goes back by less is being set right. */
const CLOCK_BEHIND_MS = 1_000;

export class ConsumptionMetrics {
  readonly #options: ConsumptionOptions;
  readonly #cache: DiskCacheOptions;
  readonly #keys: IdempotencyKeys;
  readonly #endpoint: MetricsEndpoint;
  readonly #bucket: MetricsBucket | null;
  #outbox: Outbox | null = null;
  #waitsForTenantsUntilMs: number;
  #nextInMs = 1;

  constructor(options: ConsumptionOptions) {
    this.#options = options;
    const { platform, log, nodeId, openBucket } = options;
    this.#cache = { platform, log, directory: options.workDirectory, failpoints: options.failpoints };
    this.#keys = new IdempotencyKeys({ nodeId, ...platform });
    this.#endpoint = new MetricsEndpoint({ url: options.config.endpoint, platform, log, transport: options.transport, caPem: options.caPem });
    this.#bucket = openBucket === null ? null : new MetricsBucket({ open: openBucket, nodeId, platform, log });
    this.#waitsForTenantsUntilMs = platform.clock.monotonicMs() + LOADING_WAIT_MS;
  }

  tasks(): BackgroundTask[] {
    const { intervalMs } = this.#options.config;
    return [{ name: "consumption metrics", periodMs: () => this.#nextInMs, run: (signal) => this.#run(signal), overrun: { loop: "consumption_metrics_collect_metrics", periodMs: () => intervalMs } }];
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.platform;
    const { intervalMs } = this.#options.config;
    const startMs = clock.monotonicMs();
    this.#nextInMs = intervalMs;
    if (this.#outbox === null) {
      this.#outbox = await loadOutbox(this.#cache);
      this.#nextInMs = this.#untilNext(this.#outbox);
      if (this.#nextInMs > 1) return;
    }
    if (this.#tenantsAreLoading()) {
      this.#nextInMs = Math.min(LOADING_CHECK_MS, intervalMs);
      return;
    }
    this.#waitsForTenantsUntilMs = Number.NEGATIVE_INFINITY;
    try {
      await this.#round(this.#outbox, signal);
    } finally {
      this.#nextInMs = Math.max(1, intervalMs - (clock.monotonicMs() - startMs));
    }
  }

  /** A restart does not move the schedule; what nobody has answered is not kept waiting. */
  #untilNext(outbox: Outbox): number {
    const { config: { intervalMs }, platform: { clock }, log } = this.#options;
    const last = lastRecorded(outbox.told);
    if (last === null || outbox.unansweredCount > 0) return 1;
    const agoMs = clock.wallMs() - eventTimeMs(last);
    if (agoMs < -CLOCK_BEHIND_MS) log.warn("consumption was told of a time that is yet to come: increments are dated there until then", { last });
    return agoMs < 0 || agoMs >= intervalMs ? 1 : Math.max(1, intervalMs - agoMs);
  }

  #tenantsAreLoading(): boolean {
    const { tenants, platform: { clock } } = this.#options;
    if (clock.monotonicMs() >= this.#waitsForTenantsUntilMs) return false;
    return tenants.list().some(({ id, tenant }) => id.number === 0 && tenant?.state === "attaching");
  }

  async #round(outbox: Outbox, signal: AbortSignal): Promise<void> {
    const { platform: { clock }, log } = this.#options;
    const startMs = clock.monotonicMs();
    const { groups, made } = await this.#collect(outbox);
    signal.throwIfAborted();
    try {
      // Nothing is sent that is not written down: after a crash it would be sent again as something else.
      await saveOutbox(outbox, this.#cache);
    } catch (error) {
      log.error("consumption metrics could not be written down, and are not sent", { error });
      for (const group of made) outbox.refused(group);
      return;
    }
    const [answers] = await Promise.all([this.#send(outbox, groups, signal), this.#bucket?.upload(groups, signal)]);
    log.info("consumption metrics sent", { ...answers, elapsedMs: Math.round(clock.monotonicMs() - startMs) });
    await saveOutbox(outbox, this.#cache).catch((error: unknown) => log.error("the receipt of consumption metrics could not be written down", { error }));
  }

  async #collect(outbox: Outbox): Promise<{ groups: EventGroup[]; made: EventGroup[] }> {
    const { tenants, platform: { clock }, log } = this.#options;
    const sampling = new Sampling(tenants, clock);
    const groups: EventGroup[] = [];
    const made: EventGroup[] = [];
    let behindMs = 0;
    for await (const sample of sampling.samples()) {
      const nowMs = clock.wallMs();
      const { group, isNew } = outbox.next(sample, { read: (previous) => readings(sample, previous, eventTime(nowMs)), idempotencyKey: () => this.#keys.next() });
      groups.push(group);
      if (!isNew) continue;
      made.push(group);
      const [first] = group.readings;
      behindMs = Math.max(behindMs, eventTimeMs(recordedAt(first)) - nowMs);
    }
    const pacer = new Pacer(clock);
    const steps = outbox.retain((owner) => sampling.isHere(owner));
    while (steps.next().done !== true) await pacer.pause();
    if (behindMs > CLOCK_BEHIND_MS) log.warn("the clock is behind what was told of consumption: increments are dated there", { behindMs: Math.round(behindMs) });
    return { groups, made };
  }

  async #send(outbox: Outbox, groups: readonly EventGroup[], signal: AbortSignal): Promise<Record<Answer, number>> {
    const counts: Record<Answer, number> = { accepted: 0, refused: 0, unanswered: 0 };
    const requests = inRequests(groups);
    const pacer = new Pacer(this.#options.platform.clock);
    let maxAttempts = POST_ATTEMPTS;
    for (const [index, request] of requests.entries()) {
      const answer = signal.aborted ? "unanswered" : await this.#endpoint.post(requestBody(request), { isLast: index === requests.length - 1, maxAttempts, signal });
      for (const group of request) {
        counts[answer] += group.readings.length;
        if (answer === "accepted") outbox.accepted(group);
        if (answer === "refused") outbox.refused(group);
      }
      // A receiver that is away is not waited for once a request.
      if (answer === "unanswered") maxAttempts = 1;
      await pacer.pause();
    }
    return counts;
  }
}

function readings(sample: Sample, previous: ReadingGroup | null, now: EventTime): Reading[] {
  return "timeline" in sample ? timelineReadings(sample.timeline, previous, now) : tenantReadings(sample.tenant, previous, now);
}

function lastRecorded(groups: Iterable<ReadingGroup>): EventTime | null {
  let last: EventTime | null = null;
  for (const { readings: all } of groups) {
    for (const reading of all) {
      const time = recordedAt(reading);
      if (time !== last) last = last === null ? time : laterOf(last, time);
    }
  }
  return last;
}
