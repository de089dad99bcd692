/**
 * Checks the CRC-32C of many short records at once.
 *
 * One native call for each record costs more than the record's checksum, and tables in this language read each byte by
 * itself. So the records of a page are laid out one after the other in the order in which their checksums go over them,
 * and one native call goes over all of them:
 *
 * | bytes | content, for each record |
 * | --- | --- |
 * | length − 24 | its body |
 * | 20 | its header up to the checksum |
 * | 4 | its checksum, XOR `CLOSING` |
 *
 * Feeding a message's checksum takes the CRC register to the same state whatever the message was; `CLOSING` makes that the
 * state before the first byte. So the whole has checksum 0 when each record has the right one. A single damaged record never
 * passes: the register leaves its path there, and what follows maps different states to different states. Several damaged
 * ones pass with the probability of any CRC over them, 2^-32.
 */
import { crc32c, crc32cRegisterBefore } from "../../kit/crc32c.ts";
import { RECORD_HEADER_SIZE, WAL_PAGE_SIZE } from "./constants.ts";

const CRC_OFFSET = 20;
/** Longer records are not worth copying: a native call of their own costs little. */
const LONG_RECORD_BYTES = 1024;
/** With less than this a record at a time is quicker. */
const WORTH_A_CALL_BYTES = 800;
const ALL_ONES = 0xffff_ffff;
const CLOSING = ~crc32cRegisterBefore(ALL_ONES, 4);

/** A page's records, and room for a word more. */
const laidOut = new Uint8Array(WAL_PAGE_SIZE + 8);
const laidOutView = new DataView(laidOut.buffer);

/**
 * Where the run of short records ends that begins at `start` and lies before `limit` whole, with its padding: only
 * lengths are looked at. Positional parameters on purpose: it is called for each page of the log.
 */
export function checksumRunEnd(view: DataView, start: number, limit: number): number {
  let at = start;
  while (limit - at >= RECORD_HEADER_SIZE) {
    const length = view.getInt32(at, true);
    if (length < RECORD_HEADER_SIZE || length > LONG_RECORD_BYTES) break;
    const next = at + ((length + 7) & ~7);
    if (next > limit) break;
    at = next;
  }
  return at;
}

/**
 * True when every record of the run `[start, end)` found by `checksumRunEnd`, not longer than a page, has the right
 * checksum; false when one has not, or the run is too short for this to be worth it: then each is to be checked by itself.
 */
export function checksumRunHolds(view: DataView, start: number, end: number): boolean {
  if (end - start < WORTH_A_CALL_BYTES || end - start > WAL_PAGE_SIZE) return false;
  const to = laidOutView;
  let out = 0;
  for (let at = start; at < end; ) {
    const length = view.getInt32(at, true);
    // Whole words; what they have too much is written over by what follows.
    const body = at + RECORD_HEADER_SIZE;
    const bodyLength = length - RECORD_HEADER_SIZE;
    for (let i = 0; i < bodyLength; i += 4) to.setInt32(out + i, view.getInt32(body + i, true), true);
    out += bodyLength;
    to.setInt32(out, length, true);
    to.setInt32(out + 4, view.getInt32(at + 4, true), true);
    to.setInt32(out + 8, view.getInt32(at + 8, true), true);
    to.setInt32(out + 12, view.getInt32(at + 12, true), true);
    to.setInt32(out + 16, view.getInt32(at + 16, true), true);
    to.setInt32(out + CRC_OFFSET, view.getInt32(at + CRC_OFFSET, true) ^ CLOSING, true);
    out += RECORD_HEADER_SIZE;
    at += (length + 7) & ~7;
  }
  return crc32c(laidOut, 0, out) === 0;
}
