/**
 * Decompresses one raw LZ4 block, as PostgreSQL stores page images with wal_compression = lz4.
 *
 * Our own because it writes into a given buffer without allocating and is safe on hostile input; the format is small:
 *
 * | bytes | meaning |
 * | --- | --- |
 * | 1 | token: high nibble literal length, low nibble match length − 4; 15 continues in further bytes, each added, until one is not 255 |
 * | n | literals |
 * | 2 | distance of the match, little-endian; the last sequence of a block has only literals |
 *
 * Source: LZ4 block format description (lz4/doc/lz4_Block_format.md).
 */
import type { CompressedSpan } from "./pglz.ts";

const NIBBLE_MAX = 15;
const MATCH_MIN = 4;

/**
 * Decompresses `source[start, end)` of the span into `target[0, size)`. False when the input is damaged or does not give exactly `size`
 * bytes; `target` may then be partly written.
 */
export function lz4Decompress(source: Uint8Array, span: CompressedSpan, target: Uint8Array): boolean {
  const { end, size } = span;
  let from = span.start;
  let to = 0;
  while (from < end) {
    const token = source[from++];
    let literals = token >>> 4;
    if (literals === NIBBLE_MAX) {
      let more = 255;
      while (more === 255 && from < end) {
        more = source[from++];
        literals += more;
      }
    }
    if (literals > end - from || literals > size - to) return false;
    for (const stop = from + literals; from < stop; ) target[to++] = source[from++];
    if (from === end) return to === size;
    if (end - from < 2) return false;
    const distance = source[from] | (source[from + 1] << 8);
    from += 2;
    let length = (token & NIBBLE_MAX) + MATCH_MIN;
    if ((token & NIBBLE_MAX) === NIBBLE_MAX) {
      let more = 255;
      while (more === 255 && from < end) {
        more = source[from++];
        length += more;
      }
    }
    if (distance === 0 || distance > to || length > size - to) return false;
    for (const stop = to + length; to < stop; to++) target[to] = target[to - distance];
  }
  return false;
}
