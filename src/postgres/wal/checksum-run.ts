/**
 * Checks the CRC-32C of many records at once.
 *
 * A call for each record costs more than its checksum, and tables in this language read each byte by itself. So the records
 * that lie whole on the pages of a piece of log are copied one behind the other and rearranged so that one look over the copy
 * (`leavesRegisterZero`) checks all of them. A checksum goes over the record's body, then over its header; so each header is
 * put behind its body, into the room of the padding and of the next header:
 *
 * | bytes | content, for each record |
 * | --- | --- |
 * | length − 24 | its body; the first four bytes of body and header inverted |
 * | 20 | its header up to the checksum |
 * | 4 | its checksum, inverted |
 * | 0 to 7 | zero, in place of the padding |
 *
 * Inverting the first four bytes begins a message on a register of zero. A message's right checksum, inverted, takes the
 * register back to zero; there zero bytes leave it. So in the end the register is zero when each record has the right checksum.
 * A single damaged record never passes: the register leaves zero there, and what follows maps different states to different
 * states. Several damaged ones pass with the probability of any CRC over them, 2^-32.
 *
 * Where the records of a page begin, its header only hints here: the decoder takes the result for a run of records that begins
 * where it has come to by itself, or not at all.
 */
import { copyBytes } from "../../kit/copy.ts";
import { FOLD_CAPACITY_BYTES, foldMessage, leavesRegisterZero } from "../../kit/crc32c-fold.ts";
import { RECORD_HEADER_SIZE, WAL_PAGE_SIZE } from "./constants.ts";
import { LONG_HEADER_SIZE, SHORT_HEADER_SIZE, XLP_FIRST_IS_CONTRECORD, XLP_LONG_HEADER } from "./page-header.ts";

/** With less than this a record at a time is quicker. */
const WORTH_A_LOOK_BYTES = 400;
/** One a page, if there are that many pages to one look. */
const MAX_RUNS = FOLD_CAPACITY_BYTES / WAL_PAGE_SIZE + 1;

const messageView = new DataView(foldMessage.buffer, foldMessage.byteOffset, foldMessage.byteLength);

/** The runs of records with right checksums in one piece of log: each whole on one page, padded to 8. */
export class ChecksumRuns {
  readonly #starts = new Int32Array(MAX_RUNS);
  readonly #ends = new Int32Array(MAX_RUNS);
  #count = 0;
  /** The first run that has not been asked for. */
  #next = 0;
  #lookedTo = 0;

  /** Begins with another piece. */
  clear(): void {
    this.#count = 0;
    this.#next = 0;
    this.#lookedTo = 0;
  }

  /**
   * Where the run of records ends that begins at `start`, `inPage` bytes into its page; `start` when it is not known that their
   * checksums are right. To be asked in ascending order. Positional parameters on purpose: it is called for each page of the log.
   */
  endOf(piece: Uint8Array, view: DataView, start: number, inPage: number): number {
    if (start >= this.#lookedTo) this.#look(piece, view, start, inPage);
    while (this.#next < this.#count && this.#starts[this.#next] < start) this.#next++;
    return this.#next < this.#count && this.#starts[this.#next] === start ? this.#ends[this.#next] : start;
  }

  /** Checks what lies whole on the pages from `start` on, as many as one look takes. Positional parameters: as above. */
  #look(piece: Uint8Array, view: DataView, start: number, inPage: number): void {
    const { length } = piece;
    let from = start;
    let pageEnd = start - inPage + WAL_PAGE_SIZE;
    let size = 0;
    let count = 0;
    while (from < length && count < MAX_RUNS) {
      const limit = Math.min(pageEnd, length);
      if (size + limit - from > FOLD_CAPACITY_BYTES) break;
      if (limit - from > RECORD_HEADER_SIZE) copyBytes(piece, from + RECORD_HEADER_SIZE, foldMessage, size, limit - from - RECORD_HEADER_SIZE);
      const end = rearrange(view, from, limit, size);
      if (end > from) {
        this.#starts[count] = from;
        this.#ends[count++] = end;
        size += end - from;
      }
      from = firstRecord(view, pageEnd);
      pageEnd += WAL_PAGE_SIZE;
    }
    this.#lookedTo = Math.min(from, length);
    this.#next = 0;
    this.#count = size >= WORTH_A_LOOK_BYTES && leavesRegisterZero(size) ? count : 0;
  }
}

/** Where the first record begins on the page at `page`, as its header says it; where the page or the piece ends if none does. */
function firstRecord(view: DataView, page: number): number {
  const room = view.byteLength - page;
  if (room < LONG_HEADER_SIZE) return view.byteLength;
  const flags = view.getUint16(page + 2, true);
  const header = (flags & XLP_LONG_HEADER) !== 0 ? LONG_HEADER_SIZE : SHORT_HEADER_SIZE;
  const continued = (flags & XLP_FIRST_IS_CONTRECORD) !== 0 ? view.getInt32(page + 16, true) : 0;
  if (continued < 0 || continued > WAL_PAGE_SIZE - header) return page + WAL_PAGE_SIZE;
  return page + header + ((continued + 7) & ~7);
}

/**
 * Puts the headers of the records in `[start, limit)` of `view` behind their bodies, which lie in the message from `to` on;
 * returns where the last whole record ends. Positional parameters: as above.
 */
function rearrange(view: DataView, start: number, limit: number, to: number): number {
  const message = messageView;
  let from = start;
  let body = to;
  while (limit - from >= RECORD_HEADER_SIZE) {
    const length = view.getInt32(from, true);
    if (length < RECORD_HEADER_SIZE || length > limit - from) break;
    const paddedLength = (length + 7) & ~7;
    if (paddedLength > limit - from) break;
    const header = body + length - RECORD_HEADER_SIZE;
    // The padding's bytes, wherever header and checksum leave them.
    message.setInt32(body + paddedLength - 8, 0, true);
    message.setInt32(body + paddedLength - 4, 0, true);
    message.setInt32(header, length, true);
    message.setInt32(header + 4, view.getInt32(from + 4, true), true);
    message.setInt32(header + 8, view.getInt32(from + 8, true), true);
    message.setInt32(header + 12, view.getInt32(from + 12, true), true);
    message.setInt32(header + 16, view.getInt32(from + 16, true), true);
    message.setInt32(header + 20, ~view.getInt32(from + 20, true), true);
    message.setInt32(body, ~message.getInt32(body, true), true);
    body += paddedLength;
    from += paddedLength;
  }
  return from;
}
