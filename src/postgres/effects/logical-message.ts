/**
 * Logical messages. Main data: u32 database, bool transactional, 3 padding, u64 length of the prefix with its NUL, u64 length
 * of the content, prefix, content.
 *
 * The peer's patched PostgreSQL keeps its non-relation files ("aux files") in messages whose prefix is `neon-file:` and a
 * path; an empty content removes the file. Source: PostgreSQL replication/message.h.
 */
import { utf8ToString } from "../../kit/bytes.ts";
import { XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { badEffect, copyOf, mainDataReader, unknownInfo } from "./reading.ts";

const AUX_FILE_PREFIX = "neon-file:";

export type LogicalMessageEffect =
  | { readonly kind: "aux-file"; readonly path: string; readonly content: Uint8Array }
  | { readonly kind: "logical-message"; readonly dbOid: number; readonly transactional: boolean; readonly prefix: string; readonly content: Uint8Array };

/** `content` is the caller's own copy. @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeLogicalMessageRecord(record: WalRecord): LogicalMessageEffect {
  if ((record.info & XLR_RMGR_INFO_MASK) !== 0x00) throw unknownInfo(record);
  const reader = mainDataReader(record, "logical message record");
  const dbOid = reader.u32le();
  const transactional = reader.u8() !== 0;
  reader.skip(3);
  const prefixLength = Number(reader.u64le());
  const contentLength = Number(reader.u64le());
  const prefixBytes = reader.bytes(prefixLength);
  if (prefixLength === 0 || prefixBytes[prefixLength - 1] !== 0) throw badEffect(record, "prefix without an end");
  const prefix = utf8ToString(prefixBytes.subarray(0, prefixLength - 1));
  const content = copyOf(reader.bytes(contentLength));
  if (prefix.startsWith(AUX_FILE_PREFIX)) return { kind: "aux-file", path: prefix.slice(AUX_FILE_PREFIX.length), content };
  return { kind: "logical-message", dbOid, transactional, prefix, content };
}
