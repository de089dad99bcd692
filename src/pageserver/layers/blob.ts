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
const SHORT_MAX = 127;
const KIND_MASK = 0xf0;
const KIND_PLAIN = 0x80;
const KIND_ZSTD = 0x90;

/** Largest value a compressed blob may unfold to: no page or auxiliary file comes near. */
const DECOMPRESSED_MAX_BYTES = 64 * 1024 * 1024;

export interface EncodedBlob {
  readonly header: Uint8Array;
  readonly body: Uint8Array;
}

/** @param zstdLevel null to store as is; kept compressed only when smaller */
export function encodeBlob(bytes: Uint8Array, zstdLevel: number | null): EncodedBlob {
  if (bytes.length <= SHORT_MAX) return { header: Uint8Array.of(bytes.length), body: bytes };
  if (bytes.length > BLOB_MAX_BYTES) throw new StrataError("fix-input", "blob-too-large", `value of ${bytes.length} bytes, at most ${BLOB_MAX_BYTES}`);
  if (zstdLevel !== null) {
    const packed = zstdCompress(bytes, zstdLevel);
    if (packed.length < bytes.length) return { header: longHeader(KIND_ZSTD, packed.length), body: packed };
  }
  return { header: longHeader(KIND_PLAIN, bytes.length), body: bytes };
}

function longHeader(kind: number, length: number): Uint8Array {
  return Uint8Array.of(kind | (length >>> 24), length >>> 16, length >>> 8, length);
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
