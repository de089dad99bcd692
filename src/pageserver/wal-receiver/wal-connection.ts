/**
 * One stream of WAL from one safekeeper: received, decoded and interpreted (unless the safekeeper did), ingested, and answered
 * with how far we are.
 *
 * Invariants: streaming begins at the end of the last record ingested; a record is ingested whole or not at all; feedback
 * is sent after each message that was ingested and at least once a second, so that the safekeeper may drop WAL only when
 * it is in object storage here.
 */
import { Cancelled, isStrataError, StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import { type Lsn, lsnAlign, lsnToString } from "../../kit/lsn.ts";
import { zstdDecompress } from "../../kit/zstd.ts";
import { decodeInterpretedBatch } from "../../interpret/wire-format.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import { skipPageHeader } from "../../postgres/wal/page-header.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import { encodePageserverFeedback } from "../../safekeeper/api/pageserver-feedback.ts";
import { decodeInterpretedMessage, isInterpretedMessage, type WalProtocol, walProtocolToJson } from "../../safekeeper/api/wal-protocol.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { PgClient } from "../../wire/client.ts";
import type { CopyStream } from "../../wire/pg-session.ts";
import { decodeSenderMessage, postgresTimestamp } from "../../wire/replication-messages.ts";
import { concatBytes } from "../../kit/bytes.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import type { TimelineCounts } from "../counts/timeline-counts.ts";
import { WalIngest } from "../ingest/wal-ingest.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";

const FEEDBACK_INTERVAL_MS = 1000;
const FEEDBACK_TAG = 0x7a; // z
/** Records ingested before the loop is given a chance to do other things. */
const YIELD_RECORDS = 512;
/** Of one message, decompressed: several times the largest WAL record, whose pages each carry it. */
const BATCH_MAX_BYTES = 1024 * 1024 * 1024;
/** The words with which a safekeeper ends a stream that has nothing more to give. */
const STREAM_END_WORDS = "ending streaming";

/** Of all timelines, and of this one. */
export interface WalCounts {
  readonly ingest: StorageCounts["ingest"];
  readonly timeline: Pick<TimelineCounts, "recordsReceived">;
}

export interface WalConnectionOptions {
  readonly datadir: TimelineDatadir;
  readonly segmentSizeBytes: number;
  readonly address: { readonly host: string; readonly port: number };
  readonly platform: Platform;
  readonly log: Logger;
  readonly connectTimeoutMs: number;
  readonly authToken: string | null;
  /** Undefined for plain text. */
  readonly tls?: PgTls | undefined;
  readonly protocol: WalProtocol;
  readonly signal: AbortSignal;
  /** Only in testing mode. */
  readonly failpoints?: Failpoints | undefined;
  readonly counts: WalCounts;
}

export class WalConnection {
  readonly #options: WalConnectionOptions;
  readonly startedMs: number;
  receivedLsn: Lsn;
  progressMs: number;
  heardMs: number;
  readonly #record = new WalRecord();

  constructor(options: WalConnectionOptions) {
    this.#options = options;
    this.startedMs = options.platform.clock.monotonicMs();
    this.progressMs = this.startedMs;
    this.heardMs = this.startedMs;
    this.receivedLsn = options.datadir.store.lastRecordLsn;
  }

  /** Streams until the safekeeper ends it, the signal aborts (Cancelled) or something fails.
   *  @returns when the safekeeper has nothing more to give */
  async run(): Promise<void> {
    const { platform, datadir, signal, log } = this.#options;
    const { tenantShardId, timelineId } = datadir.store;
    const client = await PgClient.connect(platform.network, {
      address: this.#options.address,
      parameters: { user: "pageserver", replication: "true", application_name: "pageserver", options: `-c timeline_id=${timelineId} tenant_id=${tenantShardId.tenantId}${this.#protocolOptions()}` },
      timeoutMs: this.#options.connectTimeoutMs,
      signal,
      clock: platform.clock,
      random: platform.random,
      tls: this.#options.tls,
      ...(this.#options.authToken === null ? {} : { password: this.#options.authToken }),
    });
    const abort = (): void => client.destroy();
    signal.addEventListener("abort", abort, { once: true });
    try {
      const startLsn = lsnAlign(datadir.store.lastRecordLsn);
      const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(startLsn)}`);
      log.info("receiving WAL", { startLsn: lsnToString(startLsn), safekeeper: client.remote });
      await this.#stream(copy, startLsn);
    } catch (error) {
      if (signal.aborted) throw new Cancelled();
      if (isStrataError(error) && error.message.includes(STREAM_END_WORDS)) return;
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
      client.destroy();
    }
  }

  async #stream(copy: CopyStream, startLsn: Lsn): Promise<void> {
    const { datadir, platform } = this.#options;
    const decoder = new WalStreamDecoder(startLsn, datadir.version, this.#options.segmentSizeBytes);
    const ingest = await WalIngest.start(datadir);
    let feedbackMs = Number.NEGATIVE_INFINITY;
    for (let bytes = await copy.read(); bytes !== null; bytes = await copy.read()) {
      this.heardMs = platform.clock.monotonicMs();
      let wanted = false;
      const message = isInterpretedMessage(bytes) ? ({ kind: "interpreted", ...decodeInterpretedMessage(bytes) } as const) : decodeSenderMessage(bytes);
      if (message.kind === "interpreted") {
        this.receivedLsn = Math.max(this.receivedLsn, message.streamingLsn);
        this.progressMs = this.heardMs;
        this.#options.counts.ingest.bytesReceived += message.data.length;
        await this.#ingestInterpreted(ingest, message.data);
      } else if (message.kind === "wal-data") {
        this.receivedLsn = Math.max(this.receivedLsn, message.startLsn + message.data.length);
        this.progressMs = this.heardMs;
        this.#options.counts.ingest.bytesReceived += message.data.length;
        await this.#ingest(decoder, ingest, message);
      } else {
        wanted = message.replyRequested;
      }
      if (message.kind !== "keepalive") await this.#options.failpoints?.hit("walreceiver-after-ingest", this.#options.signal);
      // A burst is answered once: the next message is here already, and its answer says more.
      const due = platform.clock.monotonicMs() - feedbackMs >= FEEDBACK_INTERVAL_MS;
      if (!wanted && !due && copy.pending > 0) continue;
      feedbackMs = platform.clock.monotonicMs();
      await this.#sendFeedback(copy);
    }
    throw new StrataError("unavailable", "connection-lost", "the safekeeper ended the stream");
  }

  async #ingest(decoder: WalStreamDecoder, ingest: WalIngest, message: { readonly startLsn: Lsn; readonly data: Uint8Array }): Promise<void> {
    const { platform, counts, signal } = this.#options;
    const record = this.#record;
    decoder.feed(message.data, message.startLsn);
    let records = 0;
    let damage: unknown = null;
    const next = (): boolean => {
      try {
        return decoder.next(record);
      } catch (error) {
        damage = error;
        return false;
      }
    };
    while (next()) {
      const wait = ingest.ingestRecord(record);
      if (wait !== undefined) await wait;
      if (++records % YIELD_RECORDS === 0) {
        await platform.clock.sleep(0);
        if (signal.aborted) throw new Cancelled();
      }
    }
    counts.ingest.recordsReceived += records;
    counts.timeline.recordsReceived += records;
    // What came whole before the damage is good, and branches may need it.
    await ingest.commit();
    if (damage !== null) throw damage;
  }

  #protocolOptions(): string {
    const { protocol, datadir } = this.#options;
    if (protocol.type === "vanilla") return "";
    const { number, count, stripeBlocks } = datadir.shard;
    const shard = count === 0 ? "" : ` shard_count=${count} shard_number=${number} shard_stripe_size=${stripeBlocks}`;
    return ` protocol=${walProtocolToJson(protocol)} strata=1${shard}`;
  }

  async #ingestInterpreted(ingest: WalIngest, data: Uint8Array): Promise<void> {
    const { datadir, platform, counts, signal, protocol, segmentSizeBytes } = this.#options;
    const compressed = protocol.type === "interpreted" && protocol.zstdLevel !== null;
    // A copy where nothing is decompressed: values outlive the message.
    const batch = decodeInterpretedBatch(compressed ? zstdDecompress(data, BATCH_MAX_BYTES) : data.slice(), { version: datadir.version, shard: datadir.shard });
    let records = 0;
    for (const record of batch.records) {
      if (record.endLsn <= ingest.lsn) continue;
      if (record.effect === null && record.blocks.length === 0) counts.ingest.recordsObserved++;
      await ingest.ingest({ ...record, startLsn: skipPageHeader(ingest.lsn, segmentSizeBytes) });
      if (++records % YIELD_RECORDS === 0) {
        await platform.clock.sleep(0);
        if (signal.aborted) throw new Cancelled();
      }
    }
    counts.ingest.recordsReceived += records;
    counts.timeline.recordsReceived += records;
    // Records without anything for this shard were left out, and yet it has got past them.
    if (batch.nextRecordLsn > ingest.lsn) {
      await ingest.ingest({ startLsn: skipPageHeader(ingest.lsn, segmentSizeBytes), endLsn: batch.nextRecordLsn, xid: 0, effect: null, blocks: [] });
    }
    await ingest.commit();
  }

  async #sendFeedback(copy: CopyStream): Promise<void> {
    const { datadir, platform } = this.#options;
    const { store } = datadir;
    const feedback = encodePageserverFeedback({
      currentTimelineSizeBytes: await datadir.currentLogicalSizeBytes({ task: "walreceiver" }),
      lastReceivedLsn: store.lastRecordLsn,
      diskConsistentLsn: store.diskConsistentLsn,
      remoteConsistentLsn: store.remoteConsistentLsn,
      replyTimestamp: postgresTimestamp(platform.clock.wallMs()),
      shardNumber: store.tenantShardId.number,
      corruptionDetected: false,
    });
    const header = new Uint8Array(9);
    header[0] = FEEDBACK_TAG;
    new DataView(header.buffer).setUint32(5, feedback.length);
    copy.write(concatBytes([header, feedback]));
    await copy.drained();
  }
}
