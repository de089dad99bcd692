/**
 * One decode of WAL for several readers: piece after piece is read and decoded when one of the members wants more, each
 * record is interpreted once a shard, and every member gets its batch.
 *
 * A member whose queue is full is waited for a moment, for a pageserver that keeps up is full now and then as well; one that
 * does not take anything in that time is put out.
 */
import type { Lsn } from "../../kit/lsn.ts";
import { encodeInterpretedRecord } from "../../interpret/wire-format.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import type { Clock } from "../../platform/clock.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import type { WalReader } from "../wal-store/wal-reader.ts";

/** How far apart members of a group may begin. */
const NEAR_BYTES = 32 * 1024 * 1024;
const PIECE_BYTES = 128 * 1024;
/** How long a piece waits for a member whose queue is full: one slower than 128 KiB in this time goes on by itself. */
const ROOM_WAIT_MS = 50;

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

export interface Batch {
  readonly records: readonly Uint8Array[];
  readonly nextRecordLsn: Lsn;
  readonly streamingLsn: Lsn;
  readonly sizeBytes: number;
}

export interface GroupMember {
  readonly options: MemberOptions;
  /** Records that end at or below it have been sent, or are queued. */
  readonly nextRecordLsn: Lsn;
  readonly isFull: boolean;
  /** Null: it has to find one. */
  group: DecodeGroup | null;
  push(batch: Batch): void;
}

export interface DecodeGroupOptions {
  readonly wal: WalOfTimeline;
  readonly clock: Clock;
  readonly startLsn: Lsn;
  readonly onPiece: () => void;
  /** The last member has gone. */
  readonly onEmpty: () => void;
}

export class DecodeGroup {
  readonly #options: DecodeGroupOptions;
  readonly #members = new Set<GroupMember>();
  readonly #record = new WalRecord();
  readonly #reader: Pick<WalReader, "read" | "close">;
  #decoder: WalStreamDecoder;
  /** A step back that waits for the step under way. */
  #resetTo: Lsn | null = null;
  #step: Promise<void> | null = null;
  #roomMade: (() => void) | null = null;

  constructor(options: DecodeGroupOptions) {
    this.#options = options;
    this.#reader = options.wal.reader(options.startLsn);
    this.#decoder = this.#newDecoder(options.startLsn);
  }

  #newDecoder(lsn: Lsn): WalStreamDecoder {
    const { version, segmentSize } = this.#options.wal.geometry;
    return new WalStreamDecoder(lsn, version, segmentSize);
  }

  get size(): number {
    return this.#members.size;
  }

  /** Everything below it has been decoded and handed out. */
  get positionLsn(): Lsn {
    return this.#resetTo ?? this.#decoder.position;
  }

  /** The end of the last record handed out. */
  get #recordEnd(): Lsn {
    return this.#resetTo ?? this.#decoder.recordEnd;
  }

  /**
   * How far a new member at `lsn` is from here; null when it is better off by itself. Sharing costs the one behind nothing and the
   * one ahead the WAL between them once more, so it pays where more than that lies ahead of both.
   */
  distance(lsn: Lsn, endLsn: Lsn): number | null {
    const gap = Math.abs(this.#recordEnd - lsn);
    const ahead = endLsn - Math.max(this.#recordEnd, lsn);
    return gap <= PIECE_BYTES || (gap <= NEAR_BYTES && gap <= ahead) ? gap : null;
  }

  /** Whether a member at `lsn` could go on here and nobody would be decoded anything twice. */
  leadsOn(lsn: Lsn): boolean {
    return this.#recordEnd <= lsn && lsn <= this.#recordEnd + PIECE_BYTES;
  }

  /** One that is behind makes the group step back; the others have what they know left out. */
  add(member: GroupMember): void {
    this.#members.add(member);
    member.group = this;
    if (member.nextRecordLsn < this.#recordEnd) this.#resetTo = member.nextRecordLsn;
  }

  remove(member: GroupMember): void {
    if (!this.#members.delete(member)) return;
    member.group = null;
    this.noteRoom();
    if (this.#members.size === 0) this.#options.onEmpty();
  }

  /** A member has taken a batch. */
  noteRoom(): void {
    this.#roomMade?.();
  }

  async close(): Promise<void> {
    await this.#step?.catch(() => undefined);
    await this.#reader.close();
  }

  /** Decodes a piece of what lies below `endLsn`, or waits for the one under way. @throws what reading and decoding WAL throw */
  step(endLsn: Lsn): Promise<void> {
    this.#step ??= this.#decodePiece(endLsn)
      .catch((error: unknown) => {
        // A decoder is of no use after an error: whoever still wants more finds out in a group of its own.
        for (const member of this.#members) this.remove(member);
        throw error;
      })
      .finally(() => {
        this.#step = null;
      });
    return this.#step;
  }

  async #decodePiece(endLsn: Lsn): Promise<void> {
    await this.#makeRoom();
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
    this.#options.onPiece();
    this.#decoder.feed(piece.subarray(0, length), lsn);
    this.#handOut(this.#interpretAll(), lsn + length);
  }

  /** Nobody is full after it. */
  async #makeRoom(): Promise<void> {
    const isFull = (): boolean => this.#members.values().some((member) => member.isFull);
    if (!isFull()) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.after(ROOM_WAIT_MS, resolve);
      this.#roomMade = () => {
        if (isFull()) return;
        timer.cancel();
        resolve();
      };
    });
    this.#roomMade = null;
    for (const member of this.#members) if (member.isFull) this.remove(member);
  }

  /** What each member gets, and where the last whole record ends. */
  #interpretAll(): { readonly records: ReadonlyMap<GroupMember, Uint8Array[]>; readonly lastEnd: Lsn } {
    const records = new Map<GroupMember, Uint8Array[]>([...this.#members].map((member) => [member, []]));
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
  #handOut(decoded: { readonly records: ReadonlyMap<GroupMember, Uint8Array[]>; readonly lastEnd: Lsn }, streamingLsn: Lsn): void {
    if (decoded.lastEnd === 0) return;
    for (const [member, records] of decoded.records) {
      if (decoded.lastEnd <= member.nextRecordLsn) continue;
      member.push({ records, nextRecordLsn: decoded.lastEnd, streamingLsn, sizeBytes: records.reduce((sum, record) => sum + record.length, 0) });
    }
  }
}
