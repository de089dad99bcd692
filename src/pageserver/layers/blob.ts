/**
 * Blobs in layer files: a length, then the bytes, running across block borders without padding.
 *
 * | first byte | header | content |
 * | --- | --- | --- |
 * | 0x00–0x7F | 1 byte: the length | as is |
 * | 0x8_ | 4 bytes, big-endian, 28 bits of length | as is |
 * | 0x9_ | 4 bytes, big-endian, 28 bits of stored length | a zstd frame |
 *
 * Source: the peer's blob_io module.
 */
import { StrataError } from "../../kit/errors.ts";
import { zstdCompress, zstdDecompress } from "../../kit/zstd.ts";

export const BLOB_MAX_BYTES = 0x0fff_ffff;
export const BLOB_HEADER_MAX = 4;
const SHORT_MAX = 127;
const KIND_MASK = 0xf0;
const KIND_PLAIN = 0x80;
const KIND_ZSTD = 0x90;

/** Largest value a compressed blob may unfold to: no page or auxiliary file comes near. */
const DECOMPRESSED_MAX_BYTES = 64 * 1024 * 1024;

/** Below this a frame's own header and the time it takes are not worth it. */
export const COMPRESS_MIN_BYTES = 512;
/** Reading has to unpack what was packed: only for a quarter saved. */
const COMPRESS_MAX_RATIO = 0.75;

/** The zstd frame to store instead of `bytes`, where that pays; else null. */
export function compressedBlob(bytes: Uint8Array, zstdLevel: number | null): Uint8Array | null {
  if (zstdLevel === null || bytes.length < COMPRESS_MIN_BYTES) return null;
  const packed = zstdCompress(bytes, zstdLevel);
  return packed.length <= bytes.length * COMPRESS_MAX_RATIO ? packed : null;
}

/**
 * Writes the header of a blob of `length` stored bytes; returns its size, at most `BLOB_HEADER_MAX`.
 * Positional parameters on purpose: called a value.
 * @throws StrataError fix-input `blob-too-large`
 */
export function writeBlobHeader(target: Uint8Array, at: number, length: number, compressed: boolean): number {
  if (length <= SHORT_MAX && !compressed) {
    target[at] = length;
    return 1;
  }
  if (length > BLOB_MAX_BYTES) throw new StrataError("fix-input", "blob-too-large", `value of ${length} bytes, at most ${BLOB_MAX_BYTES}`);
  target[at] = (compressed ? KIND_ZSTD : KIND_PLAIN) | (length >>> 24);
  target[at + 1] = length >>> 16;
  target[at + 2] = length >>> 8;
  target[at + 3] = length;
  return BLOB_HEADER_MAX;
}

/** Bytes of the header that starts with `firstByte`. */
export function blobHeaderSize(firstByte: number): 1 | 4 {
  return firstByte <= SHORT_MAX ? 1 : 4;
}

/** Stored length, from a header that lies whole in `bytes` at `at`. */
export function blobBodySize(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first <= SHORT_MAX) return first;
  return ((first & 0x0f) << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}

export function isCompressedBlob(firstByte: number): boolean {
  return (firstByte & KIND_MASK) > KIND_PLAIN;
}

/**
 * The value, from the whole stored blob. A view of `body` when it was stored as is.
 * @throws StrataError corrupt `bad-blob`, `bad-zstd`
 */
export function decodeBlobBody(firstByte: number, body: Uint8Array): Uint8Array {
  const kind = firstByte & KIND_MASK;
  if (kind <= KIND_PLAIN) return body;
  if (kind !== KIND_ZSTD) throw new StrataError("corrupt", "bad-blob", `blob of unknown kind 0x${firstByte.toString(16)}`);
  return zstdDecompress(body, DECOMPRESSED_MAX_BYTES);
}
