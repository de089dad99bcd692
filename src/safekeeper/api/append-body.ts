/** The WAL of an append, after either version's header: exactly what the header announced, and no more than the protocol allows. */
import type { ByteReader } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";

/** Most WAL bytes in one append: PostgreSQL's MAX_SEND_SIZE, 16 WAL pages. */
export const MAX_APPEND_BYTES = 16 * 8192;

/** A view of the reader's bytes. @throws StrataError fix-input `bad-proposer-message`, corrupt `truncated` */
export function readWalData(reader: ByteReader, beginLsn: Lsn, endLsn: Lsn): Uint8Array {
  const sizeBytes = endLsn - beginLsn;
  if (sizeBytes < 0 || sizeBytes > MAX_APPEND_BYTES) {
    const range = `${lsnToString(beginLsn)}–${lsnToString(endLsn)}`;
    throw new StrataError("fix-input", "bad-proposer-message", `append of ${range} is not between 0 and ${MAX_APPEND_BYTES} bytes`);
  }
  const walData = reader.bytes(sizeBytes);
  expectEnd(reader, "append");
  return walData;
}

export function expectEnd(reader: ByteReader, what: string): void {
  if (reader.remaining > 0) throw new StrataError("fix-input", "bad-proposer-message", `${reader.remaining} bytes after the end of ${what}`);
}
