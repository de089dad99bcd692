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

interface FrameShape {
  /** -1 when the frame does not say. */
  readonly contentSize: number;
  /** Offset behind the frame; beyond the input when it is cut short or damaged. */
  readonly end: number;
}

/** Null when no frame without a dictionary begins at `start`. */
function frameShape(bytes: Uint8Array, start: number): FrameShape | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length - start < 6 || view.getUint32(start, true) !== MAGIC) return null;
  const descriptor = bytes[start + 4];
  const singleSegment = (descriptor & 0x20) !== 0;
  if ((descriptor & 3) !== 0) return null;
  let at = start + (singleSegment ? 5 : 6);
  const sizeCode = descriptor >>> 6;
  const sizeBytes = sizeCode === 0 ? (singleSegment ? 1 : 0) : 1 << sizeCode;
  if (bytes.length - at < sizeBytes) return null;
  const contentSize = readContentSize(view, at, sizeBytes);
  at += sizeBytes;
  return { contentSize, end: blocksEnd(bytes, at) + ((descriptor & 4) !== 0 ? 4 : 0) };
}

/**
 * The content size `frame` states, when it is exactly one whole zstd frame without a dictionary and says so; -1 for anything
 * else (several frames, streamed frames without a size, damage).
 */
export function zstdContentSize(frame: Uint8Array): number {
  const shape = frameShape(frame, 0);
  return shape !== null && shape.end === frame.length ? shape.contentSize : -1;
}

/** Whether `bytes` are one or more whole frames and nothing else, by their block headers. */
export function areWholeZstdFrames(bytes: Uint8Array): boolean {
  let at = 0;
  while (at < bytes.length) {
    const shape = frameShape(bytes, at);
    if (shape === null || shape.end > bytes.length) return false;
    at = shape.end;
  }
  return bytes.length > 0;
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
