/**
 * One decode of a timeline's WAL for all shards that stand near each other.
 *
 * A group reads and decodes piece after piece when one of its members wants more, interprets each record once a shard, and
 * hands every member its batch. A member that joins a little behind makes the group step back; the others have those
 * records left out. One that does not take its batches is put out of the group when its queue is full, and goes on in a
 * group of its own from where it stands, so that a slow pageserver delays nobody.
 *
 * Source: the peer safekeeper/src/send_interpreted_wal.rs (InterpretedWalReader).
 */
import { InvariantError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { zstdCompress } from "../../kit/zstd.ts";
import { encodeInterpretedBatch, encodeInterpretedRecord } from "../../interpret/wire-format.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import { encodeInterpretedHeader } from "../api/wal-protocol.ts";
import type { WalReader } from "../wal-store/wal-reader.ts";
import type { SourceMessage, WalSource } from "./wal-source.ts";

/** How far apart members of a group may begin. */
const NEAR_BYTES = 32 * 1024 * 1024;
const PIECE_BYTES = 128 * 1024;
/** Batches a member may leave lying. */
const QUEUE_MAX_BATCHES = 16;
const QUEUE_MAX_BYTES = 8 * 1024 * 1024;

export interface WalOfTimeline {
  readonly geometry: WalGeometry;
  reader(fromLsn: Lsn): Pick<WalReader, "read" | "close">;
}

export interface MemberOptions {
  readonly shard: ShardIdentity;
  /** The reader is one of ours. */
  readonly extended: boolean;
  readonly zstdLevel: number | null;
  readonly startLsn: Lsn;
}

/** A timeline's groups. */
export class DecodeGroups {
  readonly #wal: WalOfTimeline;
  readonly #groups = new Set<DecodeGroup>();
  /** Pieces decoded since the start. */
  decodedPieces = 0;

  constructor(wal: WalOfTimeline) {
    this.#wal = wal;
  }

  get count(): number {
    return this.#groups.size;
  }

  open(options: MemberOptions): WalSource {
    const member = new Member(this, options);
    this.join(member);
    return member;
  }

  join(member: Member): void {
    let group = [...this.#groups].find((one) => one.isNear(member.nextRecordLsn));
    if (group === undefined) this.#groups.add((group = new DecodeGroup(this, this.#wal, member.nextRecordLsn)));
    group.add(member);
  }

  async drop(group: DecodeGroup): Promise<void> {
    this.#groups.delete(group);
    await group.close();
  }
}

interface Batch {
  readonly records: readonly Uint8Array[];
  readonly nextRecordLsn: Lsn;
  readonly streamingLsn: Lsn;
  readonly sizeBytes: number;
}

class Member implements WalSource {
  readonly options: MemberOptions;
  /** Records that end at or below it have been sent, or are queued. */
  nextRecordLsn: Lsn;
  group: DecodeGroup | null = null;
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
    this.nextRecordLsn = Math.max(this.nextRecordLsn, batch.nextRecordLsn);
    this.#queue.push(batch);
    this.#queuedBytes += batch.sizeBytes;
  }

  async next(endLsn: Lsn): Promise<SourceMessage | null> {
    for (;;) {
      const batch = this.#queue.shift();
      if (batch !== undefined) {
        this.#queuedBytes -= batch.sizeBytes;
        return this.#message(batch, endLsn);
      }
      if (this.group === null) this.#groups.join(this);
      if (this.group === null) throw new InvariantError("a reader of interpreted WAL is in no group");
      if (this.group.positionLsn >= endLsn) return null;
      await this.group.step(endLsn);
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
    await this.group?.remove(this);
  }
}

class DecodeGroup {
  readonly #groups: DecodeGroups;
  readonly #wal: WalOfTimeline;
  readonly #members = new Set<Member>();
  readonly #record = new WalRecord();
  readonly #reader: Pick<WalReader, "read" | "close">;
  #decoder: WalStreamDecoder;
  /** A step back that waits for the step under way. */
  #resetTo: Lsn | null = null;
  #step: Promise<void> | null = null;

  constructor(groups: DecodeGroups, wal: WalOfTimeline, startLsn: Lsn) {
    this.#groups = groups;
    this.#wal = wal;
    this.#reader = wal.reader(startLsn);
    this.#decoder = this.#newDecoder(startLsn);
  }

  #newDecoder(lsn: Lsn): WalStreamDecoder {
    const { version, segmentSize } = this.#wal.geometry;
    return new WalStreamDecoder(lsn, version, segmentSize);
  }

  /** Everything below it has been decoded and handed out. */
  get positionLsn(): Lsn {
    return this.#resetTo ?? this.#decoder.position;
  }

  isNear(lsn: Lsn): boolean {
    return Math.abs(this.#decoder.position - lsn) <= NEAR_BYTES;
  }

  add(member: Member): void {
    this.#members.add(member);
    member.group = this;
    if (member.nextRecordLsn < this.#decoder.recordEnd) this.#resetTo = Math.min(this.#resetTo ?? member.nextRecordLsn, member.nextRecordLsn);
  }

  async remove(member: Member): Promise<void> {
    this.#members.delete(member);
    member.group = null;
    if (this.#members.size === 0) await this.#groups.drop(this);
  }

  async close(): Promise<void> {
    await this.#step?.catch(() => undefined);
    await this.#reader.close();
  }

  /** Decodes a piece of what lies below `endLsn`, or waits for the one under way. */
  step(endLsn: Lsn): Promise<void> {
    this.#step ??= this.#decodePiece(endLsn).finally(() => {
      this.#step = null;
    });
    return this.#step;
  }

  async #decodePiece(endLsn: Lsn): Promise<void> {
    if (this.#resetTo !== null) {
      this.#decoder = this.#newDecoder(this.#resetTo);
      this.#resetTo = null;
    }
    const lsn = this.#decoder.position;
    if (lsn >= endLsn) return;
    const piece = new Uint8Array(Math.min(PIECE_BYTES, endLsn - lsn));
    const length = await this.#reader.read(lsn, piece);
    // Somebody stepped back meanwhile: what was read is not what comes next.
    if (this.#resetTo !== null) return;
    this.#groups.decodedPieces++;
    this.#decoder.feed(piece.subarray(0, length), lsn);
    this.#handOut(this.#interpretAll(), lsn + length);
  }

  /** What each member gets, and where the last whole record ends. */
  #interpretAll(): { readonly records: ReadonlyMap<Member, Uint8Array[]>; readonly lastEnd: Lsn } {
    const records = new Map<Member, Uint8Array[]>([...this.#members].map((member) => [member, []]));
    let lastEnd = 0;
    while (this.#decoder.next(this.#record)) {
      const { endLsn } = this.#record;
      lastEnd = endLsn;
      /** One encoding for all members of a shard. */
      const encoded = new Map<string, Uint8Array | null>();
      for (const [member, list] of records) {
        if (endLsn <= member.nextRecordLsn) continue;
        const { shard, extended } = member.options;
        const key = `${shard.number}/${shard.count}/${shard.stripeBlocks}/${extended}`;
        let bytes = encoded.get(key);
        if (bytes === undefined) encoded.set(key, (bytes = encodeInterpretedRecord(this.#record, { shard, extended })));
        if (bytes !== null) list.push(bytes);
      }
    }
    return { records, lastEnd };
  }

  /** Nothing is sent before a whole record was decoded. */
  #handOut(decoded: { readonly records: ReadonlyMap<Member, Uint8Array[]>; readonly lastEnd: Lsn }, streamingLsn: Lsn): void {
    if (decoded.lastEnd === 0) return;
    for (const [member, records] of decoded.records) {
      if (decoded.lastEnd <= member.nextRecordLsn || !this.#members.has(member)) continue;
      member.push({ records, nextRecordLsn: decoded.lastEnd, streamingLsn, sizeBytes: records.reduce((sum, record) => sum + record.length, 0) });
      if (!member.isFull) continue;
      this.#members.delete(member);
      member.group = null;
    }
    if (this.#members.size === 0) void this.#groups.drop(this);
  }
}
