/**
 * What a pageserver tells a safekeeper, and the safekeeper passes on to the compute. Self-describing, so that either
 * side may learn new keys first:
 *
 * | bytes | content |
 * | --- | --- |
 * | u8 | number of entries |
 * | each: C string, u32 length, value | big-endian |
 *
 * | key | value |
 * | --- | --- |
 * | current_timeline_size | u64 logical size in bytes |
 * | ps_writelsn | u64 last received LSN |
 * | ps_flushlsn | u64 disk-consistent LSN |
 * | ps_applylsn | u64 remote-consistent LSN |
 * | ps_replytime | i64 microseconds since 2000-01-01 |
 * | shard_number | u32, left out for shard 0 |
 * | corruption_detected | u8, left out when false |
 *
 * Source: the peer libs/utils/src/pageserver_feedback.rs, pgxn/neon/walproposer.c (ParsePageserverFeedbackMessage).
 */
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { readU64be } from "./u64.ts";

export interface PageserverFeedback {
  readonly currentTimelineSizeBytes: number;
  readonly lastReceivedLsn: Lsn;
  readonly diskConsistentLsn: Lsn;
  readonly remoteConsistentLsn: Lsn;
  /** Microseconds since 2000-01-01, PostgreSQL's TimestampTz. */
  readonly replyTimestamp: bigint;
  readonly shardNumber: number;
  readonly corruptionDetected: boolean;
}

export const EMPTY_PAGESERVER_FEEDBACK: PageserverFeedback = {
  currentTimelineSizeBytes: 0,
  lastReceivedLsn: 0,
  diskConsistentLsn: 0,
  remoteConsistentLsn: 0,
  replyTimestamp: 0n,
  shardNumber: 0,
  corruptionDetected: false,
};

export function encodePageserverFeedback(feedback: PageserverFeedback): Uint8Array {
  const writer = new ByteWriter(160);
  const withShard = feedback.shardNumber > 0;
  writer.u8(5 + (withShard ? 1 : 0) + (feedback.corruptionDetected ? 1 : 0));
  writer.cstring("current_timeline_size").u32be(8).u64be(BigInt(feedback.currentTimelineSizeBytes));
  writer.cstring("ps_writelsn").u32be(8).lsnBe(feedback.lastReceivedLsn);
  writer.cstring("ps_flushlsn").u32be(8).lsnBe(feedback.diskConsistentLsn);
  writer.cstring("ps_applylsn").u32be(8).lsnBe(feedback.remoteConsistentLsn);
  writer.cstring("ps_replytime").u32be(8).i64be(feedback.replyTimestamp);
  if (withShard) writer.cstring("shard_number").u32be(4).u32be(feedback.shardNumber);
  if (feedback.corruptionDetected) writer.cstring("corruption_detected").u32be(1).u8(1);
  return writer.finish();
}

type Field = (value: ByteReader, into: { -readonly [K in keyof PageserverFeedback]: PageserverFeedback[K] }) => void;

const FIELDS: Readonly<Record<string, { readonly lengthBytes: number; readonly read: Field }>> = {
  current_timeline_size: { lengthBytes: 8, read: (value, into) => { into.currentTimelineSizeBytes = readU64be(value, "current_timeline_size"); } },
  ps_writelsn: { lengthBytes: 8, read: (value, into) => { into.lastReceivedLsn = value.lsnBe(); } },
  ps_flushlsn: { lengthBytes: 8, read: (value, into) => { into.diskConsistentLsn = value.lsnBe(); } },
  ps_applylsn: { lengthBytes: 8, read: (value, into) => { into.remoteConsistentLsn = value.lsnBe(); } },
  ps_replytime: { lengthBytes: 8, read: (value, into) => { into.replyTimestamp = value.i64be(); } },
  shard_number: { lengthBytes: 4, read: (value, into) => { into.shardNumber = value.u32be(); } },
  corruption_detected: { lengthBytes: 1, read: (value, into) => { into.corruptionDetected = value.u8() !== 0; } },
};

/** Reads to the last announced entry; keys it does not know are skipped. @throws StrataError corrupt `truncated`, fix-input `bad-pageserver-feedback` */
export function decodePageserverFeedback(bytes: Uint8Array): PageserverFeedback {
  return readPageserverFeedback(new ByteReader(bytes, "pageserver feedback"));
}

export function readPageserverFeedback(reader: ByteReader): PageserverFeedback {
  const feedback = { ...EMPTY_PAGESERVER_FEEDBACK };
  for (let left = reader.u8(); left > 0; left--) {
    const key = reader.cstring();
    const value = reader.bytes(reader.u32be());
    if (!Object.hasOwn(FIELDS, key)) continue;
    const field = FIELDS[key];
    if (value.length !== field.lengthBytes) {
      throw new StrataError("fix-input", "bad-pageserver-feedback", `${key} has ${value.length} bytes, not ${field.lengthBytes}`);
    }
    field.read(new ByteReader(value, key), feedback);
  }
  return feedback;
}
