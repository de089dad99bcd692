/** One timeline of an attached tenant as the rest of the pageserver uses it: storage, data directory, WAL receiver. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { BrokerClient } from "../../broker/api/client.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import { decodeControlFile } from "../../postgres/control-file/control-file.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import type { TimelineCounts } from "../counts/timeline-counts.ts";
import { increment } from "../counts/storage-counts.ts";
import { type DatadirWatch, TimelineDatadir } from "../datadir/timeline-datadir.ts";
import type { ServedTimeline } from "../page-service/served-timeline.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { Throttle } from "./throttle.ts";
import { WalReceiver, type WalReceiverConfig } from "../wal-receiver/wal-receiver.ts";

export interface WalSource {
  readonly broker: BrokerClient;
  readonly config: WalReceiverConfig;
  /** Of connections to safekeepers; undefined for plain text. */
  readonly tls: PgTls | undefined;
}

/** After a start that failed for a reason that may pass. */
const RETRY_MS = 1000;

export class TenantTimeline implements ServedTimeline {
  readonly timeline: Timeline;
  readonly datadir: TimelineDatadir;
  #receiver: WalReceiver | null = null;
  #starting: { readonly abort: AbortController; readonly done: Promise<void> } | null = null;

  readonly #throttle: Throttle | null;
  /** From the control file; it never changes. */
  #segmentSizeBytes: number | null = null;

  constructor(timeline: Timeline, shard: ShardIdentity, throttle: Throttle | null = null) {
    this.timeline = timeline;
    this.#throttle = throttle;
    this.counts.throttle = throttle?.counts ?? null;
    this.datadir = new TimelineDatadir(timeline, { version: timeline.pgVersion, shard, watch: this.#watch() });
  }

  /** A branch that was made just now: what is known of its ancestor need not be read again, which for thousands of branches is work. */
  inherit(ancestor: TenantTimeline, logicalSizeBytes: number | null): void {
    this.#segmentSizeBytes = ancestor.#segmentSizeBytes;
    if (logicalSizeBytes !== null) this.datadir.startWithSize(logicalSizeBytes);
  }

  /** The safekeeper WAL comes from now. */
  get safekeeper(): number | null {
    return this.#receiver?.currentSafekeeper ?? null;
  }

  get lastReceived(): { readonly lsn: Lsn; readonly wallMs: number } | null {
    return this.#receiver?.lastReceived ?? null;
  }

  /**
   * Begins to take WAL, in the background: a branch whose content is its ancestor's waits until that has caught up, which may
   * take a compute to start on the ancestor. Nobody may wait for it here, least of all who would start that compute.
   */
  startReceiving(source: WalSource): void {
    if (this.#receiver !== null || this.#starting !== null) return;
    const abort = new AbortController();
    const done = this.#start(source, abort.signal).finally(() => (this.#starting = null));
    this.#starting = { abort, done };
  }

  async stopReceiving(): Promise<void> {
    this.#starting?.abort.abort();
    await this.#starting?.done;
    const receiver = this.#receiver;
    this.#receiver = null;
    await receiver?.stop();
  }

  /** Never throws. */
  async #start(source: WalSource, signal: AbortSignal): Promise<void> {
    const { deps: { platform, failpoints }, log } = this.timeline;
    while (!signal.aborted) {
      try {
        const segmentSizeBytes = (this.#segmentSizeBytes ??= await this.#readSegmentSize(signal));
        if (signal.aborted) return;
        const { ingest, walReceivers } = this.timeline.deps.metrics;
        this.#receiver = new WalReceiver({ ...source, counts: { ingest, walReceivers, timeline: this.counts }, datadir: this.datadir, segmentSizeBytes, platform, log, failpoints, somebodyWaits: () => this.timeline.waitingForLsn().length > 0 });
        this.timeline.onWaiting(() => this.#receiver?.nudge());
        return this.#receiver.start();
      } catch (error) {
        if (signal.aborted) return;
        if (!isStrataError(error) || (error.kind !== "retry" && error.kind !== "unavailable")) return log.error("timeline takes no WAL", { error });
        log.info("timeline takes no WAL yet", { error });
        await platform.clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  async #readSegmentSize(signal: AbortSignal): Promise<number> {
    const reader = this.datadir.at(this.timeline.lastRecordLsn, { task: "wal-receiver", signal });
    return decodeControlFile(await reader.controlFile()).segmentSize;
  }

  #watch(): DatadirWatch {
    const { deps: { metrics, platform: { clock } }, counts } = this.timeline;
    const { logicalSizes, relationSizes, ingest } = metrics;
    return {
      relationSizes,
      ingest,
      sizeCountBegins: (attempt, circumstances) => {
        const startMs = clock.monotonicMs();
        increment(logicalSizes.started, `${attempt === 0 ? "first" : "retry"} ${circumstances}`);
        return (isKnown) => {
          if (isKnown) {
            logicalSizes.finished++;
            counts.sizesCounted++;
          } else if (attempt === 0) logicalSizes.droppedFirst++;
          else logicalSizes.droppedRetry++;
          if (circumstances !== "EmptyInitial") metrics.took("logical size", counts, clock.monotonicMs() - startMs);
        };
      },
    };
  }

  /** The timeline is no longer here. */
  forgotten(): void {
    this.timeline.deps.metrics.logicalSizes.droppedFinished += this.counts.sizesCounted;
    this.counts.sizesCounted = 0;
  }

  get counts(): TimelineCounts {
    return this.timeline.counts;
  }

  get throttle(): Throttle | null {
    return this.#throttle?.isEnabled === true ? this.#throttle : null;
  }

  /** @param lengthMs the tenant's unless given */
  grantLease(lsn: Lsn, lengthMs?: number): number {
    const { gcCutoffLsn, lastRecordLsn, leases, config } = this.timeline;
    if (lsn > lastRecordLsn || (lsn < gcCutoffLsn && !leases.has(lsn))) {
      throw new StrataError("fix-input", "lsn-out-of-range", `no lease on ${lsnToString(lsn)}: history goes from ${lsnToString(gcCutoffLsn)} to ${lsnToString(lastRecordLsn)}`);
    }
    return leases.grant(lsn, lengthMs ?? config.lsnLeaseLengthMs);
  }

  get lazySlruDownload(): boolean {
    return this.timeline.config.lazySlruDownload;
  }

  hasLease(lsn: Lsn): boolean {
    return this.timeline.leases.has(lsn);
  }
}
