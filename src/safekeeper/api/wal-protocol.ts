/**
 * How a reader wants WAL, said in the `options` of its connection: `protocol=<json>`, and for interpreted WAL
 * `shard_number`, `shard_count`, `shard_stripe_size`. The JSON is the peer's:
 *
 *     {"type":"vanilla"}
 *     {"type":"interpreted","args":{"format":"protobuf","compression":{"zstd":{"level":1}}}}     compression may be null
 *
 * An interpreted message inside CopyData, big-endian:
 *
 * | offset | field |
 * | --- | --- |
 * | 0 | u8 `0` |
 * | 1 | u64 end of the raw WAL that was interpreted |
 * | 9 | u64 end of committed WAL |
 * | 17 | InterpretedWalRecords, compressed or not |
 *
 * `strata=1` is ours: the reader understands what the peer has no words for (src/interpret/metadata-codec.ts).
 * Source: the peer libs/utils/src/postgres_client.rs, libs/pq_proto/src/lib.rs (InterpretedWalRecordsBody).
 */
import { z } from "zod";
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";

export type WalProtocol = { readonly type: "vanilla" } | { readonly type: "interpreted"; readonly zstdLevel: number | null };

const compressionSchema = z.object({ zstd: z.object({ level: z.number().int().min(-128).max(22) }) }).nullable().optional();
export const walProtocolSchema = z
  .union([
    z.object({ type: z.literal("vanilla") }),
    z.object({ type: z.literal("interpreted"), args: z.object({ format: z.literal("protobuf"), compression: compressionSchema }) }),
  ])
  .transform((said): WalProtocol => (said.type === "vanilla" ? { type: "vanilla" } : { type: "interpreted", zstdLevel: said.args.compression?.zstd.level ?? null }));

/** @throws StrataError fix-input `bad-wal-protocol` */
export function parseWalProtocol(json: string): WalProtocol {
  try {
    const parsed = walProtocolSchema.safeParse(JSON.parse(json));
    if (parsed.success) return parsed.data;
  } catch {
    // Said below.
  }
  throw new StrataError("fix-input", "bad-wal-protocol", `WAL protocol ${json.slice(0, 200)} is not supported`);
}

export function walProtocolToJson(protocol: WalProtocol): string {
  if (protocol.type === "vanilla") return JSON.stringify({ type: "vanilla" });
  return JSON.stringify({ type: "interpreted", args: { format: "protobuf", compression: protocol.zstdLevel === null ? null : { zstd: { level: protocol.zstdLevel } } } });
}

const TAG = 0x30;

export interface InterpretedMessage {
  /** End of the raw WAL that was interpreted. */
  readonly streamingLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly data: Uint8Array;
}

export function isInterpretedMessage(bytes: Uint8Array): boolean {
  return bytes[0] === TAG;
}

export function encodeInterpretedHeader(header: Omit<InterpretedMessage, "data">): Uint8Array {
  return new ByteWriter(17).u8(TAG).lsnBe(header.streamingLsn).lsnBe(header.commitLsn).finish();
}

/** `data` is a view of `bytes`. @throws StrataError corrupt `truncated` */
export function decodeInterpretedMessage(bytes: Uint8Array): InterpretedMessage {
  const reader = new ByteReader(bytes, "interpreted WAL message", 1);
  return { streamingLsn: reader.lsnBe(), commitLsn: reader.lsnBe(), data: reader.rest() };
}
