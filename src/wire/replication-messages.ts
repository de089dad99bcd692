/**
 * Messages inside the CopyData of streaming replication, big-endian:
 *
 * | tag | from | layout |
 * | --- | --- | --- |
 * | w | sender | u64 first LSN, u64 end of WAL at the sender, i64 time, WAL bytes |
 * | k | sender | u64 end of WAL, i64 time, u8 reply wanted |
 * | r | receiver | u64 written, u64 flushed, u64 applied, i64 time, u8 reply wanted |
 * | h | receiver | i64 time, u32 xmin, u32 its epoch, u32 catalog xmin, u32 its epoch |
 *
 * Times are microseconds since 2000-01-01.
 * Source: PostgreSQL manual, "Streaming Replication Protocol"; src/backend/replication/walsender.c, walreceiver.c.
 */
import { ByteReader, ByteWriter } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Lsn } from "../kit/lsn.ts";

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);

const TAG_WAL_DATA = 0x77; // w
const TAG_KEEPALIVE = 0x6b; // k
const TAG_STATUS = 0x72; // r
const TAG_HOT_STANDBY = 0x68; // h

export interface WalDataMessage {
  readonly kind: "wal-data";
  readonly startLsn: Lsn;
  /** End of WAL at the sender. */
  readonly endLsn: Lsn;
  readonly timestamp: bigint;
  readonly data: Uint8Array;
}

export interface KeepaliveMessage {
  readonly kind: "keepalive";
  readonly endLsn: Lsn;
  readonly timestamp: bigint;
  readonly replyRequested: boolean;
}

export interface StandbyStatusMessage {
  readonly kind: "standby-status";
  readonly writeLsn: Lsn;
  readonly flushLsn: Lsn;
  readonly applyLsn: Lsn;
  readonly timestamp: bigint;
  readonly replyRequested: boolean;
}

export interface HotStandbyFeedbackMessage {
  readonly kind: "hot-standby-feedback";
  readonly timestamp: bigint;
  /** 32-bit ids and their epochs; all zero = no standby needs anything. */
  readonly xmin: number;
  readonly xminEpoch: number;
  readonly catalogXmin: number;
  readonly catalogXminEpoch: number;
}

export type SenderMessage = WalDataMessage | KeepaliveMessage;
export type ReceiverMessage = StandbyStatusMessage | HotStandbyFeedbackMessage;

/** Microseconds since 2000-01-01 for a wall-clock time in milliseconds since 1970. */
export function postgresTimestamp(wallMs: number): bigint {
  return BigInt(Math.round((wallMs - POSTGRES_EPOCH_MS) * 1000));
}

/** `data` of a wal-data message is a view of `bytes`. @throws StrataError corrupt `truncated`, fix-input `protocol-violation` */
export function decodeSenderMessage(bytes: Uint8Array): SenderMessage {
  const reader = new ByteReader(bytes, "replication message");
  const tag = reader.u8();
  if (tag === TAG_WAL_DATA) {
    return { kind: "wal-data", startLsn: reader.lsnBe(), endLsn: reader.lsnBe(), timestamp: reader.i64be(), data: reader.rest() };
  }
  if (tag === TAG_KEEPALIVE) return { kind: "keepalive", endLsn: reader.lsnBe(), timestamp: reader.i64be(), replyRequested: reader.u8() !== 0 };
  throw unknownTag(tag);
}

/** @throws StrataError corrupt `truncated`, fix-input `protocol-violation` */
export function decodeReceiverMessage(bytes: Uint8Array): ReceiverMessage {
  const reader = new ByteReader(bytes, "replication message");
  const tag = reader.u8();
  if (tag === TAG_STATUS) {
    const [writeLsn, flushLsn, applyLsn] = [reader.lsnBe(), reader.lsnBe(), reader.lsnBe()];
    return { kind: "standby-status", writeLsn, flushLsn, applyLsn, timestamp: reader.i64be(), replyRequested: reader.u8() !== 0 };
  }
  if (tag === TAG_HOT_STANDBY) {
    const timestamp = reader.i64be();
    const [xmin, xminEpoch, catalogXmin, catalogXminEpoch] = [reader.u32be(), reader.u32be(), reader.u32be(), reader.u32be()];
    return { kind: "hot-standby-feedback", timestamp, xmin, xminEpoch, catalogXmin, catalogXminEpoch };
  }
  throw unknownTag(tag);
}

/** What goes before the WAL bytes of a wal-data message. */
export function encodeWalDataHeader(header: Omit<WalDataMessage, "kind" | "data">): Uint8Array {
  return new ByteWriter(25).u8(TAG_WAL_DATA).lsnBe(header.startLsn).lsnBe(header.endLsn).i64be(header.timestamp).finish();
}

export function encodeKeepalive(message: Omit<KeepaliveMessage, "kind">): Uint8Array {
  return new ByteWriter(18).u8(TAG_KEEPALIVE).lsnBe(message.endLsn).i64be(message.timestamp).u8(message.replyRequested ? 1 : 0).finish();
}

export function encodeStandbyStatus(message: Omit<StandbyStatusMessage, "kind">): Uint8Array {
  const writer = new ByteWriter(34).u8(TAG_STATUS).lsnBe(message.writeLsn).lsnBe(message.flushLsn).lsnBe(message.applyLsn);
  return writer.i64be(message.timestamp).u8(message.replyRequested ? 1 : 0).finish();
}

export function encodeHotStandbyFeedback(message: Omit<HotStandbyFeedbackMessage, "kind">): Uint8Array {
  const writer = new ByteWriter(25).u8(TAG_HOT_STANDBY).i64be(message.timestamp);
  return writer.u32be(message.xmin).u32be(message.xminEpoch).u32be(message.catalogXmin).u32be(message.catalogXminEpoch).finish();
}

function unknownTag(tag: number): StrataError {
  return new StrataError("fix-input", "protocol-violation", `unknown replication message tag ${tag}`);
}
