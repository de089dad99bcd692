/**
 * What a reader of WAL says back: PostgreSQL's standby messages, and the pageserver's own:
 *
 * | offset | field |
 * | --- | --- |
 * | 0 | u8 `z` |
 * | 1 | u64 length, big-endian |
 * | 9 | pageserver feedback (`api/pageserver-feedback.ts`) |
 *
 * Source: the peer libs/pq_proto (NEON_STATUS_UPDATE_TAG_BYTE), safekeeper/src/send_wal.rs.
 */
import { ByteReader } from "../../kit/bytes.ts";
import { decodeReceiverMessage, type HotStandbyFeedbackMessage, type ReceiverMessage } from "../../wire/replication-messages.ts";
import { decodePageserverFeedback, type PageserverFeedback } from "../api/pageserver-feedback.ts";
import type { HotStandbyFeedback } from "../api/proposer-messages.ts";

const TAG_PAGESERVER = 0x7a;

export type ReaderMessage = ReceiverMessage | { readonly kind: "pageserver-feedback"; readonly feedback: PageserverFeedback };

/** @throws StrataError corrupt `truncated`, fix-input `protocol-violation`, `bad-pageserver-feedback` */
export function decodeReaderMessage(bytes: Uint8Array): ReaderMessage {
  if (bytes[0] !== TAG_PAGESERVER) return decodeReceiverMessage(bytes);
  const reader = new ByteReader(bytes, "pageserver feedback", 1);
  reader.skip(8);
  return { kind: "pageserver-feedback", feedback: decodePageserverFeedback(reader.rest()) };
}

/** 32-bit ids with their epochs as 64-bit ids; 0 stays "none". */
export function hotStandbyFeedbackOf(message: HotStandbyFeedbackMessage): HotStandbyFeedback {
  const full = (xid: number, epoch: number): bigint => (xid === 0 ? 0n : (BigInt(epoch) << 32n) | BigInt(xid));
  return { timestamp: message.timestamp, xmin: full(message.xmin, message.xminEpoch), catalogXmin: full(message.catalogXmin, message.catalogXminEpoch) };
}
