/**
 * Looks over a zstd frame before it is handed to a decompressor that would allocate what the frame claims.
 *
 * | bytes | field |
 * | --- | --- |
 * | 4 | magic FD2FB528 |
 * | 1 | descriptor: bits 7–6 size of the content size, 5 single segment, 2 checksum, 1–0 size of the dictionary id |
 * | 0–1 | window descriptor, unless single segment |
 * | 0–4 | dictionary id |
 * | 0–8 | content size |
 * | 3 + n | blocks: bit 0 last, bits 2–1 type (0 raw, 1 repeated byte, 2 compressed), then the size |
 * | 0–4 | checksum |
 *
 * Little-endian. Source: RFC 8878, section 3.1.1.
 */
const MAGIC = 0xfd2fb528;
const BLOCK_REPEATED_BYTE = 1;
const BLOCK_RESERVED = 3;

/**
 * The content size `frame` states, when it is exactly one whole zstd frame without a dictionary and says so; -1 for anything
 * else (several frames, streamed frames without a size, damage).
 */
export function zstdContentSize(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 6 || view.getUint32(0, true) !== MAGIC) return -1;
  const descriptor = frame[4];
  const singleSegment = (descriptor & 0x20) !== 0;
  if ((descriptor & 3) !== 0) return -1;
  let at = singleSegment ? 5 : 6;
  const sizeCode = descriptor >>> 6;
  const sizeBytes = sizeCode === 0 ? (singleSegment ? 1 : 0) : 1 << sizeCode;
  if (frame.length - at < sizeBytes) return -1;
  const size = readContentSize(view, at, sizeBytes);
  at += sizeBytes;
  return blocksEnd(frame, at) + ((descriptor & 4) !== 0 ? 4 : 0) === frame.length ? size : -1;
}

/** -1 when the frame does not say. */
function readContentSize(view: DataView, at: number, sizeBytes: number): number {
  if (sizeBytes === 1) return view.getUint8(at);
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  if (sizeBytes === 4) return view.getUint32(at, true);
  if (sizeBytes === 8) return view.getUint32(at + 4, true) === 0 ? view.getUint32(at, true) : -1;
  return -1;
}

/** Where the last block ends; beyond any frame when the blocks are damaged. */
function blocksEnd(frame: Uint8Array, at: number): number {
  while (frame.length - at >= 3) {
    const header = frame[at] | (frame[at + 1] << 8) | (frame[at + 2] << 16);
    const type = (header >>> 1) & 3;
    if (type === BLOCK_RESERVED) break;
    at += 3 + (type === BLOCK_REPEATED_BYTE ? 1 : header >>> 3);
    if ((header & 1) !== 0) return at;
  }
  return Number.POSITIVE_INFINITY;
}
