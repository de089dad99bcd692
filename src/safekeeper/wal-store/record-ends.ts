/**
 * Ends of the records taken in so far, as far as the flush position must know them: a flush at a segment's end makes
 * durable the records up to there, though later ones have been taken in already.
 */
import type { Lsn } from "../../kit/lsn.ts";

export class RecordEnds {
  readonly #segmentSizeBytes: number;
  /** End of the last whole record whose bytes are all here. */
  #last: Lsn;
  /** The same for each segment end passed since the last flush, ascending. */
  readonly #atSegmentEnds: { readonly segmentEnd: Lsn; readonly recordEnd: Lsn }[] = [];
  #nextSegmentEnd: Lsn;
  /** A record that ends beyond the bytes received: after a log switch the rest of the segment is padding still to come. */
  #ahead: Lsn = 0;

  constructor(start: Lsn, segmentSizeBytes: number) {
    this.#segmentSizeBytes = segmentSizeBytes;
    this.#last = start;
    this.#nextSegmentEnd = (Math.floor(start / segmentSizeBytes) + 1) * segmentSizeBytes;
  }

  get last(): Lsn {
    return this.#last;
  }

  /** A record that was decoded whole. Call `reached` afterwards, at the end of the piece. */
  add(endLsn: Lsn): void {
    if (this.#ahead !== 0) this.#take(this.#ahead);
    this.#ahead = endLsn;
  }

  /** All bytes below `writeLsn` have been received. */
  reached(writeLsn: Lsn): void {
    if (this.#ahead === 0 || this.#ahead > writeLsn) return;
    this.#take(this.#ahead);
    this.#ahead = 0;
  }

  #take(endLsn: Lsn): void {
    for (; this.#nextSegmentEnd < endLsn; this.#nextSegmentEnd += this.#segmentSizeBytes) {
      this.#atSegmentEnds.push({ segmentEnd: this.#nextSegmentEnd, recordEnd: this.#last });
    }
    this.#last = endLsn;
  }

  /** End of the last record that ends at or below `lsn`, which is a segment's end or everything received. */
  lastUpTo(lsn: Lsn): Lsn {
    return this.#atSegmentEnds.find((entry) => entry.segmentEnd >= lsn)?.recordEnd ?? this.#last;
  }

  forgetUpTo(lsn: Lsn): void {
    while (this.#atSegmentEnds.length > 0 && this.#atSegmentEnds[0].segmentEnd <= lsn) this.#atSegmentEnds.shift();
  }
}
