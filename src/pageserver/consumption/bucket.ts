/**
 * Events of a round as an object in a bucket: gzip of one JSON text a line, `year=2023/month=09/day=15/hour=08/08:01:02Z_<node>.ndjson.gz`.
 *
 * Source: the peer pageserver/src/consumption_metrics/upload.rs (upload_metrics_bucket), of after January 2025: until then the hour was not
 * in the name, and what is lines now were requests' bodies one after the other.
 */
import { concatBytes, utf8 } from "../../kit/bytes.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { logRetries, withRetries } from "../../remote-storage/retry.ts";
import { gzipped, GZIP_SMALL } from "../basebackup/gzip.ts";
import { Pacer } from "../layers/pacer.ts";
import { eventTime } from "./event-time.ts";
import { type EventGroup, eventTexts } from "./events.ts";

export interface MetricsBucketOptions {
  /** Opened at the first upload, and again after a failure. */
  readonly open: () => Promise<RemoteStorage>;
  readonly nodeId: number;
  readonly platform: Pick<Platform, "clock" | "random">;
  readonly log: Logger;
}

const ATTEMPTS = 5;
const GROUPS_PER_PIECE = 64;

export class MetricsBucket {
  readonly #options: MetricsBucketOptions;
  #storage: RemoteStorage | null = null;
  /** Of the last object's name; at first the second we began in, which may be in the name of an object of the process before. */
  #lastSecondMs: number;

  constructor(options: MetricsBucketOptions) {
    this.#options = options;
    this.#lastSecondMs = Math.floor(options.platform.clock.wallMs() / 1000) * 1000;
  }

  /** Never throws: what the bucket misses is in the log, and at the receiver. */
  async upload(groups: readonly EventGroup[], signal: AbortSignal): Promise<void> {
    if (groups.length === 0) return;
    const { platform, log } = this.#options;
    const key = this.#nextKey();
    try {
      const storage = (this.#storage ??= await this.#options.open());
      const bytes = await packed(groups, new Pacer(platform.clock));
      await withRetries(() => storage.upload(key, { bytes }, { signal }), { ...platform, maxAttempts: ATTEMPTS, signal, onRetry: logRetries(log, "consumption metrics could not be uploaded", { key }) });
      log.info("consumption metrics are in the bucket", { key, sizeBytes: bytes.length });
    } catch (error) {
      if (!signal.aborted) log.warn("consumption metrics are not in the bucket", { key, error });
    }
  }

  /** Never the same twice. */
  #nextKey(): string {
    this.#lastSecondMs = Math.max(Math.floor(this.#options.platform.clock.wallMs() / 1000), this.#lastSecondMs / 1000 + 1) * 1000;
    const [date, time] = eventTime(this.#lastSecondMs).split("T");
    const [year, month, day] = date.split("-");
    return `year=${year}/month=${month}/day=${day}/hour=${time.slice(0, 2)}/${time}_${this.#options.nodeId}.ndjson.gz`;
  }
}

async function packed(groups: readonly EventGroup[], pacer: Pacer): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of gzipped(lines(groups, pacer), GZIP_SMALL)) parts.push(part);
  return concatBytes(parts);
}

async function* lines(groups: readonly EventGroup[], pacer: Pacer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < groups.length; at += GROUPS_PER_PIECE) {
    const texts = groups.slice(at, at + GROUPS_PER_PIECE).flatMap(eventTexts);
    yield utf8(texts.map((text) => `${text}\n`).join(""));
    await pacer.pause();
  }
}
