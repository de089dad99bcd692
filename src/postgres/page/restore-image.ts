/**
 * Restores a page from the full image a WAL record carries: decompresses it and puts back the hole, the run of zeros between
 * line pointers and tuples that was left out.
 *
 * Source: PostgreSQL access/transam/xlogreader.c (RestoreBlockImage).
 */
import { copyBytes } from "../../kit/copy.ts";
import { StrataError, isStrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import { zstdDecompress } from "../../kit/zstd.ts";
import type { BlockRef, WalRecord } from "../wal/record.ts";
import { lz4Decompress } from "./lz4-block.ts";
import { PAGE_SIZE } from "./page-layout.ts";
import { pglzDecompress } from "./pglz.ts";

const unpacked = new Uint8Array(PAGE_SIZE);
const span = { start: 0, end: 0, size: 0 };

/**
 * Writes the image of `block` to `page` (8192 bytes), as it was logged: the caller stamps the record's end LSN on it unless
 * the page is new.
 *
 * @throws StrataError corrupt `wal-bad-image` when the image does not unpack to exactly one page, or there is none
 */
export function restoreImage(record: WalRecord, block: BlockRef, page: Uint8Array): void {
  if (!block.hasImage || page.length !== PAGE_SIZE) throw badImage(record, block);
  const { imageOffset, imageLength, holeOffset, holeLength } = block;
  const plainLength = PAGE_SIZE - holeLength;
  let source = record.bytes;
  let at = imageOffset;
  if (block.compression !== "none") {
    source = unpack(record, block, plainLength);
    at = 0;
  } else if (imageLength !== plainLength) {
    throw badImage(record, block);
  }
  if (holeOffset + holeLength > PAGE_SIZE) throw badImage(record, block);
  if (holeLength === 0) {
    copyBytes(source, at, page, 0, PAGE_SIZE);
    return;
  }
  copyBytes(source, at, page, 0, holeOffset);
  page.fill(0, holeOffset, holeOffset + holeLength);
  copyBytes(source, at + holeOffset, page, holeOffset + holeLength, plainLength - holeOffset);
}

/** Returns a buffer whose first `size` bytes are the image; good until the next call. */
function unpack(record: WalRecord, block: BlockRef, size: number): Uint8Array {
  span.start = block.imageOffset;
  span.end = block.imageOffset + block.imageLength;
  span.size = size;
  if (block.compression === "pglz") {
    if (pglzDecompress(record.bytes, span, unpacked)) return unpacked;
  } else if (block.compression === "lz4") {
    if (lz4Decompress(record.bytes, span, unpacked)) return unpacked;
  } else {
    const plain = unpackZstd(record.bytes.subarray(span.start, span.end), size);
    if (plain !== null) return plain;
  }
  throw badImage(record, block);
}

function unpackZstd(frame: Uint8Array, size: number): Uint8Array | null {
  try {
    const plain = zstdDecompress(frame, size);
    return plain.length === size ? plain : null;
  } catch (error) {
    if (isStrataError(error)) return null;
    throw error;
  }
}

function badImage(record: WalRecord, block: BlockRef): StrataError {
  const lsn = lsnToString(record.lsn);
  const relation = `${block.spcOid}/${block.dbOid}/${block.relNumber}`;
  const what = `image of block ${block.blockNumber} of ${relation} fork ${block.fork} (${block.compression}, ${block.imageLength} bytes) does not unpack to a page`;
  return new StrataError("corrupt", "wal-bad-image", `WAL record at ${lsn}: ${what}`, { details: { lsn, relation, block: block.blockNumber } });
}
