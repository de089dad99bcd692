/**
 * Checks the CRC-32C of many records at once.
 *
 * One native call for each record costs more than the record's checksum, and tables in this language read each byte by
 * itself. So the records of a page are copied as they lie and rearranged so that one native call over the copy checks all of
 * them. A checksum goes over the record's body, then over its header; so each header is put behind its body, into the
 * room of the padding and of the next header:
 *
 * | bytes | content, for each record |
 * | --- | --- |
 * | length − 24 | its body; from the second record on with the first four bytes of body and header inverted |
 * | 20 | its header up to the checksum |
 * | 4 | its checksum, inverted |
 * | 0 to 7 | zero, in place of the padding |
 *
 * A message's right checksum, inverted, takes the CRC register to zero; there zero bytes leave it, and inverting the next four
 * bytes begins a new message. So in the end the register is zero when each record has the right checksum. A single damaged
 * record never passes: the register leaves zero there, and what follows maps different states to different states. Several
 * damaged ones pass with the probability of any CRC over them, 2^-32.
 */
import { copyBytes } from "../../kit/copy.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { RECORD_HEADER_SIZE, WAL_PAGE_SIZE } from "./constants.ts";

/** With less than this a record at a time is quicker. */
const WORTH_A_CALL_BYTES = 400;
/** The checksum, as it is given out, of what leaves the register at zero. */
const REGISTER_ZERO = 0xffff_ffff;

/** The last record's header goes beyond the page. */
const copy = new Uint8Array(WAL_PAGE_SIZE + 2 * RECORD_HEADER_SIZE);
const copyView = new DataView(copy.buffer);

/**
 * Looks at the records that lie whole in `[start, limit)` of `bytes`, at most a page, each padded to 8. Returns where they
 * end when all their checksums are right, else (also when they are too few for this to be worth it) the complement (`~`) of
 * that: then each is to be checked by itself. Positional parameters on purpose: it is called for each page of the log.
 */
export function checkRun(bytes: Uint8Array, view: DataView, start: number, limit: number): number {
  const size = limit - start;
  if (size < WORTH_A_CALL_BYTES || size > WAL_PAGE_SIZE) return ~limit;
  copyBytes(bytes, start, copy, 0, size);
  const end = rearrange(view, start, limit);
  const right = end > start && crc32c(copy, RECORD_HEADER_SIZE, end - start + RECORD_HEADER_SIZE) === REGISTER_ZERO;
  return right ? end : ~end;
}

/** Puts the headers behind their bodies in `copy`; returns where the last whole record ends in `view`. */
function rearrange(view: DataView, start: number, limit: number): number {
  const to = copyView;
  let from = start;
  while (limit - from >= RECORD_HEADER_SIZE) {
    const length = view.getInt32(from, true);
    if (length < RECORD_HEADER_SIZE || length > limit - from) break;
    const paddedLength = (length + 7) & ~7;
    if (paddedLength > limit - from) break;
    const at = from - start;
    const header = at + length;
    // The padding's bytes, wherever header and checksum leave them.
    to.setInt32(at + paddedLength + 16, 0, true);
    to.setInt32(at + paddedLength + 20, 0, true);
    to.setInt32(header, length, true);
    to.setInt32(header + 4, view.getInt32(from + 4, true), true);
    to.setInt32(header + 8, view.getInt32(from + 8, true), true);
    to.setInt32(header + 12, view.getInt32(from + 12, true), true);
    to.setInt32(header + 16, view.getInt32(from + 16, true), true);
    to.setInt32(header + 20, ~view.getInt32(from + 20, true), true);
    // Of the first message the runtime inverts the first bytes, as every CRC-32C does.
    const body = at + RECORD_HEADER_SIZE;
    if (at > 0) to.setInt32(body, ~to.getInt32(body, true), true);
    from += paddedLength;
  }
  return from;
}
