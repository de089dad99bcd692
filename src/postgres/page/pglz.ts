/**
 * Decompresses PostgreSQL's own LZ format.
 *
 * | bytes | meaning |
 * | --- | --- |
 * | 1 | control byte: for each of the next 8 items, lowest bit first, 0 literal, 1 match |
 * | 1 | a literal: the byte itself |
 * | 2 | a match: high nibble of byte 0 and byte 1: distance back, 12 bits; low nibble of byte 0: length − 3 |
 * | +1 | if that length is 18: how much longer |
 *
 * Source: PostgreSQL common/pg_lzcompress.c (pglz_decompress).
 */

/** Where compressed bytes lie, and how many they must become. */
export interface CompressedSpan {
  readonly start: number;
  readonly end: number;
  readonly size: number;
}

/** Length that says "one more length byte follows". */
const LONG_MATCH = 18;

/**
 * Decompresses `source[start, end)` of the span into `target[0, size)`. False when the input is damaged or does not give exactly `size`
 * bytes; `target` may then be partly written.
 */
export function pglzDecompress(source: Uint8Array, span: CompressedSpan, target: Uint8Array): boolean {
  const { end, size } = span;
  let from = span.start;
  let to = 0;
  while (from < end && to < size) {
    let control = source[from++];
    for (let item = 0; item < 8 && from < end && to < size; item++, control >>= 1) {
      if ((control & 1) === 0) {
        target[to++] = source[from++];
        continue;
      }
      if (end - from < 2) return false;
      let length = (source[from] & 0x0f) + 3;
      const distance = ((source[from] & 0xf0) << 4) | source[from + 1];
      from += 2;
      if (length === LONG_MATCH) {
        if (from === end) return false;
        length += source[from++];
      }
      if (distance === 0 || distance > to) return false;
      const stop = Math.min(to + length, size);
      // Source and target may overlap, so byte by byte and forward.
      for (; to < stop; to++) target[to] = target[to - distance];
    }
  }
  return from === end && to === size;
}
