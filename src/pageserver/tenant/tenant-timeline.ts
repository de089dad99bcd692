/** One timeline of an attached tenant as the rest of the pageserver uses it: storage, data directory, WAL receiver. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { BrokerClient } from "../../broker/api/client.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import { decodeControlFile } from "../../postgres/control-file/control-file.ts";
import { TimelineDatadir } from "../datadir/timeline-datadir.ts";
import type { ServedTimeline } from "../page-service/served-timeline.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { WalReceiver, type WalReceiverConfig } from "../wal-receiver/wal-receiver.ts";
import type { WalConnectionOptions } from "../wal-receiver/wal-connection.ts";

export interface WalSource {
  readonly broker: BrokerClient;
  readonly config: WalReceiverConfig;
  readonly metrics: WalConnectionOptions["metrics"];
}

export class TenantTimeline implements ServedTimeline {
  readonly timeline: Timeline;
  readonly datadir: TimelineDatadir;
  #receiver: WalReceiver | null = null;

  constructor(timeline: Timeline, shard: ShardIdentity) {
    this.timeline = timeline;
    this.datadir = new TimelineDatadir(timeline, { version: timeline.pgVersion, shard });
  }

  /** The safekeeper WAL comes from now. */
  get safekeeper(): number | null {
    return this.#receiver?.currentSafekeeper ?? null;
  }

  /** Begins to take WAL; the timeline has its first content. */
  async startReceiving(source: WalSource): Promise<void> {
    if (this.#receiver !== null) return;
    const reader = this.datadir.at(this.timeline.lastRecordLsn, { task: "wal-receiver" });
    const { segmentSize } = decodeControlFile(await reader.controlFile());
    const { platform } = this.timeline.deps;
    this.#receiver = new WalReceiver({ ...source, datadir: this.datadir, segmentSizeBytes: segmentSize, platform, log: this.timeline.log, somebodyWaits: () => this.timeline.waitingForLsn().length > 0 });
    this.#receiver.start();
  }

  async stopReceiving(): Promise<void> {
    const receiver = this.#receiver;
    this.#receiver = null;
    await receiver?.stop();
  }

  grantLease(lsn: Lsn): number {
    const { gcCutoffLsn, lastRecordLsn, leases, config } = this.timeline;
    if (lsn > lastRecordLsn || (lsn < gcCutoffLsn && !leases.has(lsn))) {
      throw new StrataError("fix-input", "lsn-out-of-range", `no lease on ${lsnToString(lsn)}: history goes from ${lsnToString(gcCutoffLsn)} to ${lsnToString(lastRecordLsn)}`);
    }
    return leases.grant(lsn, config.lsnLeaseLengthMs);
  }

  hasLease(lsn: Lsn): boolean {
    return this.timeline.leases.has(lsn);
  }
}
