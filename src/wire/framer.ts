/**
 * Cuts a byte stream into protocol messages without copying: a message that lies within one received chunk is a
 * view of it, only one that spans chunks is assembled. Pure: chunks go in by `push`, frames come out of `take`.
 *
 * Invariants: nothing is allocated by a length field before that many bytes have arrived; a length outside
 * [4, limit] is refused as soon as it is seen.
 */
import { concatBytes } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import { tagName } from "./protocol.ts";

export interface PgFrame {
  /** 0 for a start-up packet, which has none. */
  readonly tag: number;
  /** Without tag and length; a view owned by the receiver of the frame. */
  readonly body: Uint8Array;
}

/** A message that is looked at in place: its body is bytes[start, end). */
export interface PeekedFrame {
  readonly tag: number;
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

const EMPTY = new Uint8Array(0);

export class PgFramer {
  #maxBytes: number;
  /** Bytes before the length word: 1 for tagged messages, 0 for start-up packets. */
  #tagBytes: 0 | 1;
  #chunk: Uint8Array = EMPTY;
  #at = 0;
  /** Chunks of a message that has only begun; they come before #chunk, which is then empty. */
  #partial: Uint8Array[] = [];
  #partialBytes = 0;
  /** A message assembled from #partial, served before #chunk. */
  #front: PgFrame | null = null;
  /** Whole frames counted between #at and #scannedTo, so that counting costs a look at each header once. */
  #counted = 0;
  #scannedTo = 0;
  readonly #peeked: { tag: number; bytes: Uint8Array; start: number; end: number } = { tag: 0, bytes: EMPTY, start: 0, end: 0 };

  constructor(options: { tagged: boolean; maxBytes: number }) {
    this.#tagBytes = options.tagged ? 1 : 0;
    this.#maxBytes = options.maxBytes;
  }

  /** Start-up packets carry no tag, everything after them does. */
  setMode(options: { tagged: boolean; maxBytes: number }): void {
    this.#tagBytes = options.tagged ? 1 : 0;
    this.#maxBytes = options.maxBytes;
    this.#counted = 0;
    this.#scannedTo = this.#at;
  }

  get bufferedBytes(): number {
    return this.#partialBytes + this.#chunk.length - this.#at + (this.#front === null ? 0 : this.#front.body.length);
  }

  /** Whole messages that `take` would give without another `push`. */
  get pending(): number {
    const chunk = this.#chunk;
    while (chunk.length - this.#scannedTo >= this.#tagBytes + 4) {
      const length = readU32(chunk, this.#scannedTo + this.#tagBytes);
      if (length < 4 || length > this.#maxBytes) break;
      if (chunk.length - this.#scannedTo < this.#tagBytes + length) break;
      this.#scannedTo += this.#tagBytes + length;
      this.#counted++;
    }
    return this.#counted + (this.#front === null ? 0 : 1);
  }

  /** Adds received bytes, which now belong to the framer. Only to be called after `take` returned null.
   *  @throws StrataError fix-input `protocol-violation` for an impossible length */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    if (this.#at < this.#chunk.length) {
      this.#partial.push(this.#chunk.subarray(this.#at));
      this.#partialBytes += this.#chunk.length - this.#at;
    }
    this.#chunk = chunk;
    this.#at = 0;
    if (this.#partialBytes > 0) this.#assemble();
    this.#counted = 0;
    this.#scannedTo = this.#at;
  }

  /**
   * The next message in place, or null when it is not whole yet: good until the next call of anything here, and one object
   * always. @throws StrataError fix-input `protocol-violation`
   */
  peek(): PeekedFrame | null {
    const peeked = this.#peeked;
    const front = this.#front;
    if (front !== null) {
      peeked.tag = front.tag;
      peeked.bytes = front.body;
      peeked.start = 0;
      peeked.end = front.body.length;
      return peeked;
    }
    const chunk = this.#chunk;
    const at = this.#at;
    const tagBytes = this.#tagBytes;
    if (chunk.length - at < tagBytes + 4) return null;
    peeked.tag = tagBytes === 1 ? chunk[at] : 0;
    peeked.end = at + tagBytes + this.#checkedLength(peeked.tag, readU32(chunk, at + tagBytes));
    if (peeked.end > chunk.length) return null;
    peeked.bytes = chunk;
    peeked.start = at + tagBytes + 4;
    return peeked;
  }

  /** Takes the message that `peek` gave. */
  skip(): void {
    if (this.#front !== null) {
      this.#front = null;
      return;
    }
    this.#at = this.#peeked.end;
    if (this.#counted > 0) this.#counted--;
    else this.#scannedTo = this.#at;
  }

  /** The next message, or null when it is not whole yet. @throws StrataError fix-input `protocol-violation` */
  take(): PgFrame | null {
    const front = this.#front;
    if (front !== null) {
      this.#front = null;
      return front;
    }
    const chunk = this.#chunk;
    const at = this.#at;
    const headerBytes = this.#tagBytes + 4;
    if (chunk.length - at < headerBytes) return null;
    const tag = this.#tagBytes === 1 ? chunk[at] : 0;
    const length = this.#checkedLength(tag, readU32(chunk, at + this.#tagBytes));
    const end = at + this.#tagBytes + length;
    if (end > chunk.length) return null;
    this.#at = end;
    if (this.#counted > 0) this.#counted--;
    else this.#scannedTo = end;
    return { tag, body: chunk.subarray(at + headerBytes, end) };
  }

  #checkedLength(tag: number, length: number): number {
    if (length >= 4 && length <= this.#maxBytes) return length;
    const what = this.#tagBytes === 1 ? `message "${tagName(tag)}"` : "start-up packet";
    throw new StrataError("fix-input", "protocol-violation", `invalid length ${length} of ${what} (4 to ${this.#maxBytes} allowed)`);
  }

  /** Completes the message in #partial from #chunk, or moves #chunk to #partial when even that is not enough. */
  #assemble(): void {
    const headerBytes = this.#tagBytes + 4;
    const total = this.#partialBytes + this.#chunk.length;
    let first = this.#partial[0];
    if (first.length < headerBytes && total >= headerBytes) {
      first = concatBytes([...this.#partial, this.#chunk.subarray(0, headerBytes)]);
    }
    if (total >= headerBytes) {
      const tag = this.#tagBytes === 1 ? first[0] : 0;
      const wanted = this.#tagBytes + this.#checkedLength(tag, readU32(first, this.#tagBytes));
      if (total >= wanted) {
        this.#at = wanted - this.#partialBytes;
        const whole = concatBytes([...this.#partial, this.#chunk.subarray(0, this.#at)]);
        this.#front = { tag, body: whole.subarray(headerBytes) };
        this.#partial = [];
        this.#partialBytes = 0;
        return;
      }
    }
    this.#partial.push(this.#chunk);
    this.#partialBytes = total;
    this.#chunk = EMPTY;
  }
}

function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}
