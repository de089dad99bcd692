/**
 * Gossip: what this safekeeper knows of its active timelines goes to the broker every second; what others say of theirs
 * comes back, and questions about who has a timeline are answered.
 * Source: the peer safekeeper/src/broker.rs.
 */
import { Cancelled, describeError } from "../kit/errors.ts";
import {
  type BrokerMessage, MESSAGE_TYPE_DISCOVERY_REQUEST, MESSAGE_TYPE_DISCOVERY_RESPONSE, MESSAGE_TYPE_TIMELINE_INFO, type SafekeeperTimelineInfo, type TenantTimelineId,
} from "../broker/api/messages.ts";
import type { BrokerClient } from "../broker/api/client.ts";
import type { Lsn } from "../kit/lsn.ts";
import type { Logger } from "../observability/log.ts";
import type { Clock } from "../platform/clock.ts";
import type { SafekeeperMetrics } from "./metrics.ts";
import type { Newness } from "./timeline/newness.ts";
import type { Timelines } from "./timeline/timelines.ts";

export interface BrokerExchangeOptions {
  readonly client: BrokerClient;
  readonly timelines: Timelines;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: SafekeeperMetrics;
  /** False with `--disable-periodic-broker-push`. */
  readonly push: boolean;
}

const PUSH_INTERVAL_MS = 1000;
const RETRY_DELAY_MS = 1000;
const SILENCE_WARN_MS = 10_000;
/** Answers to discovery requests about one timeline: no more often than this. */
const DISCOVERY_INTERVAL_MS = 1000;
/** So that the answers find the subscription in place. */
const ASK_AFTER_MS = 50;
const ANSWER_WITHIN_MS = 300;

export class BrokerExchange {
  readonly #options: BrokerExchangeOptions;
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];
  /** Timeline and sender of infos being recorded: a newer one from the same sender is dropped meanwhile. */
  readonly #recording = new Set<string>();
  readonly #answeredMs = new Map<string, number>();
  #lastHeardMs: number;
  #silenceSaid = false;

  constructor(options: BrokerExchangeOptions) {
    this.#options = options;
    this.#lastHeardMs = options.clock.monotonicMs();
  }

  start(): void {
    if (this.#options.push) this.#loops.push(this.#repeat("push", () => this.#pushLoop()));
    this.#loops.push(this.#repeat("subscription", () => this.#subscribe()));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#loops);
    this.#options.client.close();
  }

  /** Runs `action` again and again until stopped. The first failure of a row is a warning, the rest are not. */
  async #repeat(name: string, action: () => Promise<void>): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted; ) {
      const startMs = clock.monotonicMs();
      try {
        await action();
      } catch (error) {
        if (signal.aborted || error instanceof Cancelled) return;
        failures = clock.monotonicMs() - startMs > SILENCE_WARN_MS ? 1 : failures + 1;
        log[failures === 1 ? "warn" : "debug"](`broker ${name} failed, trying again`, { error, failures });
      }
      await clock.sleep(RETRY_DELAY_MS, signal).catch(() => undefined);
    }
  }

  async #pushLoop(): Promise<void> {
    const { client, clock } = this.#options;
    const { signal } = this.#stop;
    const publisher = client.publisher();
    let broken: { readonly error: unknown } | null = null;
    publisher.ended.catch((error: unknown) => {
      broken = { error };
    });
    const failure = (): { readonly error: unknown } | null => broken;
    try {
      while (!signal.aborted) {
        const failed = failure();
        if (failed !== null) throw failed.error;
        this.#pushOnce((info) => publisher.publish(info));
        this.#warnOfSilence();
        await clock.sleep(PUSH_INTERVAL_MS, signal).catch(() => undefined);
      }
    } finally {
      publisher.end();
    }
  }

  #pushOnce(publish: (info: SafekeeperTimelineInfo) => boolean): void {
    const { timelines, metrics, clock } = this.#options;
    const startMs = clock.monotonicMs();
    let pushed = 0;
    for (const timeline of timelines.all) {
      if (!timeline.active) continue;
      // A full buffer means a slow broker: the next round has newer news.
      if (!publish(timeline.info())) break;
      pushed++;
      metrics.brokerPushed.inc();
    }
    metrics.brokerPushSeconds.recordMs(clock.monotonicMs() - startMs);
    metrics.brokerIterationTimelines.observe(pushed);
  }

  /** Our own messages come back, so silence while we push means that the broker does not pass messages on. */
  #warnOfSilence(): void {
    const { timelines, clock, log } = this.#options;
    const silentMs = clock.monotonicMs() - this.#lastHeardMs;
    if (timelines.all.every((timeline) => !timeline.active)) {
      this.#lastHeardMs = clock.monotonicMs();
      return;
    }
    if (silentMs < SILENCE_WARN_MS || this.#silenceSaid) return;
    this.#silenceSaid = true;
    log.warn("no message from the broker", { silentMs });
  }

  async #subscribe(): Promise<void> {
    const filter = { types: [MESSAGE_TYPE_TIMELINE_INFO, MESSAGE_TYPE_DISCOVERY_REQUEST] as const, timeline: null };
    await this.#options.client.subscribe(filter, (message) => this.#receive(message), this.#stop.signal);
  }

  #receive(message: BrokerMessage): void {
    this.#lastHeardMs = this.#options.clock.monotonicMs();
    this.#silenceSaid = false;
    if (message.type === "timeline-info") this.#record(message.info);
    else if (message.type === "discovery-request") this.#answer(message.request);
  }

  #record(info: SafekeeperTimelineInfo): void {
    const { timelines, metrics, log } = this.#options;
    const timeline = timelines.find(info);
    const key = `${info.tenantId}/${info.timelineId}/${info.safekeeperId}`;
    if (timeline === null || this.#recording.has(key)) {
      metrics.brokerPulled.with("skipped").inc();
      return;
    }
    this.#recording.add(key);
    void timeline
      .recordPeer(info)
      .then(() => metrics.brokerPulled.with("success").inc(), (error: unknown) => {
        metrics.brokerPulled.with("error").inc();
        log.debug("a peer's state was not taken over", { error });
      })
      .finally(() => this.#recording.delete(key));
  }

  /**
   * Whether any safekeeper that the broker reaches has WAL of the timeline, beyond what it was made with here. Silence says "new": it
   * cannot tell those that have none from those that are away.
   */
  async findWal(id: TenantTimelineId, madeWithLsn: Lsn): Promise<Newness> {
    const { client, clock } = this.#options;
    const found = Promise.withResolvers<Newness>();
    const filter = { types: [MESSAGE_TYPE_TIMELINE_INFO, MESSAGE_TYPE_DISCOVERY_RESPONSE] as const, timeline: id };
    const hear = (message: BrokerMessage): void => {
      const said = message.type === "timeline-info" ? message.info : message.type === "discovery-response" ? message.response : null;
      if (said !== null && said.commitLsn > madeWithLsn) found.resolve({ kind: "known", by: `${said.safekeeperId} at ${said.safekeeperConnstr}`, term: message.type === "timeline-info" ? message.info.term : 0, heard: 1 });
    };
    const over = new AbortController();
    const uncertain = (error: unknown): void => found.resolve({ kind: "uncertain", why: `the broker cannot be asked: ${describeError(error)}`, term: 0, heard: 0 });
    client.subscribe(filter, hear, AbortSignal.any([this.#stop.signal, over.signal])).catch(uncertain);
    const ask = (): void => void client.publishOne({ type: "discovery-request", request: id }).catch(uncertain);
    // Once more, for a safekeeper does not answer twice in a second.
    const timers = [clock.after(ASK_AFTER_MS, ask), clock.after(ASK_AFTER_MS + DISCOVERY_INTERVAL_MS, ask), clock.after(ASK_AFTER_MS + DISCOVERY_INTERVAL_MS + ANSWER_WITHIN_MS, () => found.resolve({ kind: "new", term: 0, heard: 0 }))];
    try {
      return await found.promise;
    } finally {
      for (const timer of timers) timer.cancel();
      over.abort();
    }
  }

  #answer(request: TenantTimelineId): void {
    const { timelines, client, clock, log } = this.#options;
    const timeline = timelines.find(request);
    if (timeline === null) return;
    const key = `${request.tenantId}/${request.timelineId}`;
    const nowMs = clock.monotonicMs();
    if (nowMs - (this.#answeredMs.get(key) ?? Number.NEGATIVE_INFINITY) < DISCOVERY_INTERVAL_MS) return;
    this.#answeredMs.set(key, nowMs);
    for (const known of this.#answeredMs.keys()) if (nowMs - (this.#answeredMs.get(known) ?? 0) > SILENCE_WARN_MS) this.#answeredMs.delete(known);
    const { safekeeperId, commitLsn, safekeeperConnstr, availabilityZone, standbyHorizon } = timeline.info();
    const response = { ...timeline.id, safekeeperId, commitLsn, safekeeperConnstr, standbyHorizon, ...(availabilityZone === undefined ? {} : { availabilityZone }) };
    client.publishOne({ type: "discovery-response", response }).catch((error: unknown) => log.debug("discovery response was not sent", { error }));
  }
}
