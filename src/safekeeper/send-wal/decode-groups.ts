/**
 * One decode of a timeline's WAL for all shards that stand near each other.
 *
 * A reader that begins is taken into a group (`decode-group.ts`) near it. One that does not take its batches is put out of it, so
 * that a slow pageserver delays nobody, and goes on in a group of its own from where it stands; when that has caught up
 * with another, the two become one. Nobody who was put out makes a group step back: it would be put out again, and each time
 * all would be decoded twice.
 *
 * Source: the peer safekeeper/src/send_interpreted_wal.rs (InterpretedWalReader).
 */
import type { Lsn } from "../../kit/lsn.ts";
import { zstdCompress } from "../../kit/zstd.ts";
import { encodeInterpretedBatch } from "../../interpret/wire-format.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { encodeInterpretedHeader } from "../api/wal-protocol.ts";
import { type Batch, DecodeGroup, type GroupMember, type MemberOptions, type WalOfTimeline } from "./decode-group.ts";
import type { SourceMessage, WalSource } from "./wal-source.ts";

/** Batches a member may leave lying. */
const QUEUE_MAX_BATCHES = 16;
const QUEUE_MAX_BYTES = 8 * 1024 * 1024;

export interface DecodeGroupsOptions {
  readonly clock: Clock;
  readonly log: Logger;
}

/** A timeline's groups. */
export class DecodeGroups {
  readonly #wal: WalOfTimeline;
  readonly #options: DecodeGroupsOptions;
  /** The oldest first. */
  readonly #groups = new Set<DecodeGroup>();
  /** Pieces decoded since the start. */
  decodedPieces = 0;

  constructor(wal: WalOfTimeline, options: DecodeGroupsOptions) {
    this.#wal = wal;
    this.#options = options;
  }

  get count(): number {
    return this.#groups.size;
  }

  /** @throws StrataError not-found `wal-before-timeline`, …: what can be known before anything is read */
  open(options: MemberOptions): WalSource {
    // Its reader has no file open yet.
    this.#wal.reader(options.startLsn);
    return new Member(this, options);
  }

  /** The group in which the member goes on now. */
  place(member: Member, endLsn: Lsn): DecodeGroup {
    const { group } = member;
    if (group === null) return this.#join(member, member.isNew ? this.#nearest(member, endLsn) : this.#merging(member));
    const other = this.#merging(member);
    if (other === null) return group;
    group.remove(member);
    return this.#join(member, other);
  }

  #join(member: Member, found: DecodeGroup | null): DecodeGroup {
    const group = found ?? this.#open(member.nextRecordLsn);
    group.add(member);
    return group;
  }

  #open(startLsn: Lsn): DecodeGroup {
    const group: DecodeGroup = new DecodeGroup({ wal: this.#wal, clock: this.#options.clock, startLsn, onPiece: () => this.decodedPieces++, onEmpty: () => this.#drop(group) });
    this.#groups.add(group);
    return group;
  }

  #nearest(member: Member, endLsn: Lsn): DecodeGroup | null {
    let nearest: { readonly group: DecodeGroup; readonly distance: number } | null = null;
    for (const group of this.#groups) {
      const distance = group.distance(member.nextRecordLsn, endLsn);
      if (distance !== null && (nearest === null || distance < nearest.distance)) nearest = { group, distance };
    }
    return nearest?.group ?? null;
  }

  /** A group with which the member's may become one. The smaller goes into the larger, of two alike the younger into the older: never to and fro. */
  #merging(member: Member): DecodeGroup | null {
    if (this.#groups.size === 1 && member.group !== null) return null;
    let isOlder = true;
    const ownSize = member.group?.size ?? 0;
    for (const group of this.#groups) {
      if (group === member.group) isOlder = false;
      else if ((group.size > ownSize || (group.size === ownSize && isOlder)) && group.leadsOn(member.nextRecordLsn)) return group;
    }
    return null;
  }

  #drop(group: DecodeGroup): void {
    this.#groups.delete(group);
    group.close().catch((error: unknown) => this.#options.log.warn("a reader of WAL could not be closed", { error }));
  }
}

class Member implements WalSource, GroupMember {
  readonly options: MemberOptions;
  nextRecordLsn: Lsn;
  group: DecodeGroup | null = null;
  /** It has been in no group yet. */
  isNew = true;
  readonly #groups: DecodeGroups;
  readonly #queue: Batch[] = [];
  #queuedBytes = 0;
  #streamedLsn: Lsn;

  constructor(groups: DecodeGroups, options: MemberOptions) {
    this.#groups = groups;
    this.options = options;
    this.nextRecordLsn = options.startLsn;
    this.#streamedLsn = options.startLsn;
  }

  get isFull(): boolean {
    return this.#queue.length >= QUEUE_MAX_BATCHES || this.#queuedBytes >= QUEUE_MAX_BYTES;
  }

  push(batch: Batch): void {
    this.nextRecordLsn = batch.nextRecordLsn;
    this.#queue.push(batch);
    this.#queuedBytes += batch.sizeBytes;
  }

  async next(endLsn: Lsn): Promise<SourceMessage | null> {
    for (;;) {
      const batch = this.#queue.shift();
      if (batch !== undefined) {
        this.#queuedBytes -= batch.sizeBytes;
        this.group?.noteRoom();
        return this.#message(batch, endLsn);
      }
      const group = this.#groups.place(this, endLsn);
      this.isNew = false;
      if (group.positionLsn >= endLsn) return null;
      await group.step(endLsn);
    }
  }

  #message(batch: Batch, commitLsn: Lsn): SourceMessage {
    const { zstdLevel } = this.options;
    const plain = encodeInterpretedBatch(batch.records, batch.nextRecordLsn);
    this.#streamedLsn = Math.max(this.#streamedLsn, batch.streamingLsn);
    const header = encodeInterpretedHeader({ streamingLsn: this.#streamedLsn, commitLsn: Math.max(commitLsn, this.#streamedLsn) });
    return { header, body: zstdLevel === null ? plain : zstdCompress(plain, zstdLevel), positionLsn: this.#streamedLsn };
  }

  async close(): Promise<void> {
    this.group?.remove(this);
  }
}
