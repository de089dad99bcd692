/** Who reads a timeline's WAL now, and what they say about how far they are. */
import type { TenantShardId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { EMPTY_PAGESERVER_FEEDBACK, type PageserverFeedback } from "../api/pageserver-feedback.ts";
import { EMPTY_HOT_STANDBY_FEEDBACK, type HotStandbyFeedback } from "../api/proposer-messages.ts";

export interface StandbyReply {
  readonly writeLsn: Lsn;
  readonly flushLsn: Lsn;
  readonly applyLsn: Lsn;
  /** Microseconds since 2000-01-01. */
  readonly timestamp: bigint;
  readonly replyRequested: boolean;
}

export const EMPTY_STANDBY_REPLY: StandbyReply = { writeLsn: 0, flushLsn: 0, applyLsn: 0, timestamp: 0n, replyRequested: false };

export type ReaderFeedback =
  | { readonly kind: "none" }
  | { readonly kind: "pageserver"; readonly feedback: PageserverFeedback }
  | { readonly kind: "standby"; readonly reply: StandbyReply; readonly hotStandby: HotStandbyFeedback };

export interface WalSenderInfo {
  readonly connectionId: number;
  readonly remote: string;
  readonly applicationName: string | null;
  /** The shard of an interpreted stream; null for raw WAL. */
  readonly shard: TenantShardId | null;
}

export class WalSender {
  readonly info: WalSenderInfo;
  feedback: ReaderFeedback = { kind: "none" };
  /** The next byte it will be sent. */
  positionLsn: Lsn;

  constructor(info: WalSenderInfo, positionLsn: Lsn) {
    this.info = info;
    this.positionLsn = positionLsn;
  }
}

export class WalSenders {
  readonly #senders = new Set<WalSender>();
  #lastPageserverFeedback: PageserverFeedback = EMPTY_PAGESERVER_FEEDBACK;
  #pageserverFeedbackCount = 0;
  #corruptionReported = false;
  readonly #remoteConsistentByShard = new Map<number, Lsn>();
  #hotStandby: HotStandbyFeedback = EMPTY_HOT_STANDBY_FEEDBACK;

  get all(): readonly WalSender[] {
    return [...this.#senders];
  }
  get lastPageserverFeedback(): PageserverFeedback {
    return this.#lastPageserverFeedback;
  }
  get pageserverFeedbackCount(): number {
    return this.#pageserverFeedbackCount;
  }
  /** A pageserver found this timeline corrupt. */
  get corruptionReported(): boolean {
    return this.#corruptionReported;
  }
  /** What all standbys together still need of the primary. */
  get hotStandby(): HotStandbyFeedback {
    return this.#hotStandby;
  }

  register(sender: WalSender): () => void {
    this.#senders.add(sender);
    return () => {
      this.#senders.delete(sender);
      this.#hotStandby = this.#aggregate();
    };
  }

  recordPageserver(sender: WalSender, feedback: PageserverFeedback): void {
    sender.feedback = { kind: "pageserver", feedback };
    this.#lastPageserverFeedback = feedback;
    this.#pageserverFeedbackCount++;
    // A shard moved to another pageserver may report less than before: it then needs the WAL again.
    this.#remoteConsistentByShard.set(feedback.shardNumber, feedback.remoteConsistentLsn);
    this.#corruptionReported ||= feedback.corruptionDetected;
  }

  /** What every shard heard of has in object storage; 0 before the first report. */
  get remoteConsistentLsn(): Lsn {
    return this.#remoteConsistentByShard.size === 0 ? 0 : Math.min(...this.#remoteConsistentByShard.values());
  }

  recordStandbyReply(sender: WalSender, reply: StandbyReply): void {
    const hotStandby = sender.feedback.kind === "standby" ? sender.feedback.hotStandby : EMPTY_HOT_STANDBY_FEEDBACK;
    sender.feedback = { kind: "standby", reply, hotStandby };
  }

  recordHotStandby(sender: WalSender, hotStandby: HotStandbyFeedback): void {
    const reply = sender.feedback.kind === "standby" ? sender.feedback.reply : EMPTY_STANDBY_REPLY;
    sender.feedback = { kind: "standby", reply, hotStandby };
    this.#hotStandby = this.#aggregate();
  }

  /** The least position applied by a standby; 0 when there is none: what pages as of old LSNs it may still read. */
  get standbyHorizonLsn(): Lsn {
    let horizon = 0;
    for (const { feedback } of this.#senders) {
      if (feedback.kind !== "standby" || feedback.reply.applyLsn === 0) continue;
      horizon = horizon === 0 ? feedback.reply.applyLsn : Math.min(horizon, feedback.reply.applyLsn);
    }
    return horizon;
  }

  /** The least position any reader still has to be sent from; null without readers. */
  get leastPositionLsn(): Lsn | null {
    let least: Lsn | null = null;
    for (const sender of this.#senders) least = least === null ? sender.positionLsn : Math.min(least, sender.positionLsn);
    return least;
  }

  /** The oldest xmin of each kind, 0 counting as "none", and the newest time. */
  #aggregate(): HotStandbyFeedback {
    const oldest = (a: bigint, b: bigint): bigint => (a === 0n ? b : b === 0n || a < b ? a : b);
    let total = EMPTY_HOT_STANDBY_FEEDBACK;
    for (const { feedback } of this.#senders) {
      if (feedback.kind !== "standby") continue;
      const { timestamp, xmin, catalogXmin } = feedback.hotStandby;
      if (xmin === 0n && catalogXmin === 0n) continue;
      total = {
        timestamp: timestamp > total.timestamp ? timestamp : total.timestamp,
        xmin: oldest(total.xmin, xmin),
        catalogXmin: oldest(total.catalogXmin, catalogXmin),
      };
    }
    return total;
  }
}
