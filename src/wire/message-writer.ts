/**
 * Writes protocol messages in batches. Messages are put one behind the other into a slab; it goes to the socket when
 * 64 KiB are full, or a few microtask turns after the last message. Turns instead of a timer: answers to a burst of
 * requests, each handled by its own short chain of promises, still travel in one write, and nothing waits a tick.
 *
 * Payloads are copied, so a caller may reuse its buffers as soon as a method returns.
 */
import { utf8 } from "../kit/bytes.ts";
import type { Connection } from "../platform/network.ts";
import { TAG } from "./protocol.ts";

const SLAB_BYTES = 64 * 1024;
/** Turns without a new message after which the batch is sent. */
const QUIET_TURNS = 8;

export class PgMessageWriter {
  readonly #connection: Connection;
  #slab: Uint8Array = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #start = 0;
  #end = 0;
  /** Offset of the open message's length word, -1 when none is open. */
  #lengthAt = -1;
  #scheduled = false;
  #seenEnd = 0;
  #sentBytes = 0;
  #quietTurns = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Handed to the socket since the start. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  get bufferedBytes(): number {
    return this.#end - this.#start + this.#connection.bufferedBytes;
  }

  async drained(): Promise<void> {
    this.flush();
    await this.#connection.drained();
  }

  /** Hands everything written so far to the socket. */
  flush(): void {
    if (this.#end === this.#start || this.#lengthAt >= 0) return;
    this.#connection.write(this.#slab.subarray(this.#start, this.#end));
    this.#sentBytes += this.#end - this.#start;
    this.#start = this.#end;
    this.#seenEnd = this.#end;
  }

  /** Whole messages that the caller framed; its buffer may be used again. What was written before goes out first. */
  framed(bytes: Uint8Array): void {
    this.flush();
    this.#sentBytes += bytes.length;
    const taken = this.#connection.writeNow?.(bytes) ?? 0;
    if (taken < bytes.length) this.#connection.write(bytes.slice(taken));
  }

  /** One CopyData with the concatenation of `parts`. */
  copyData(parts: readonly Uint8Array[]): void {
    let length = 4;
    for (const part of parts) length += part.length;
    let at = this.#reserve(length + 1);
    const slab = this.#slab;
    slab[at] = TAG.copyData;
    putU32(slab, at + 1, length);
    at += 5;
    for (const part of parts) {
      slab.set(part, at);
      at += part.length;
    }
    this.#written();
  }

  /** Opens a message; fields follow, then `finish`. */
  begin(tag: number): this {
    const at = this.#reserve(5);
    this.#slab[at] = tag;
    this.#lengthAt = at + 1;
    return this;
  }

  /** An untagged start-up packet. */
  beginUntagged(): this {
    this.#lengthAt = this.#reserve(4);
    return this;
  }

  finish(): void {
    putU32(this.#slab, this.#lengthAt, this.#end - this.#lengthAt);
    this.#lengthAt = -1;
    this.#written();
  }

  /** Takes back a message that was begun and, by an error, never finished. */
  abandonOpen(): void {
    if (this.#lengthAt < 0) return;
    this.#end = this.#lengthAt - 1;
    this.#lengthAt = -1;
  }

  /** A message without fields. */
  empty(tag: number): void {
    this.begin(tag).finish();
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#slab[at] = value;
    return this;
  }
  u16(value: number): this {
    const at = this.#reserve(2);
    this.#slab[at] = value >>> 8;
    this.#slab[at + 1] = value;
    return this;
  }
  u32(value: number): this {
    const at = this.#reserve(4);
    putU32(this.#slab, at, value);
    return this;
  }
  bytes(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#slab.set(value, at);
    return this;
  }
  /** UTF-8 and a NUL; a NUL inside the text would end the string early for the reader, so it is cut out. */
  cstring(text: string): this {
    return this.bytes(utf8(text.includes("\0") ? text.replaceAll("\0", "") : text)).u8(0);
  }

  /** Room for `length` bytes behind what is there; an open message moves to the new slab with them. */
  #reserve(length: number): number {
    const at = this.#end;
    if (at + length <= this.#slab.length) {
      this.#end = at + length;
      return at;
    }
    const keepFrom = this.#lengthAt >= 0 ? Math.max(this.#start, this.#lengthAt - 1) : at;
    if (keepFrom > this.#start) this.#connection.write(this.#slab.subarray(this.#start, keepFrom));
    this.#sentBytes += keepFrom - this.#start;
    const kept = at - keepFrom;
    const grown: Uint8Array = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, (kept + length) * 2));
    grown.set(this.#slab.subarray(keepFrom, at));
    if (this.#lengthAt >= 0) this.#lengthAt -= keepFrom;
    this.#slab = grown;
    this.#start = 0;
    this.#end = kept + length;
    return kept;
  }

  #written(): void {
    if (this.#end - this.#start >= SLAB_BYTES) this.flush();
    else if (!this.#scheduled) this.#schedule();
  }

  #schedule(): void {
    this.#scheduled = true;
    this.#quietTurns = 0;
    this.#seenEnd = this.#end;
    queueMicrotask(this.#turn);
  }

  readonly #turn = (): void => {
    if (this.#end === this.#seenEnd) this.#quietTurns++;
    else this.#quietTurns = 0;
    this.#seenEnd = this.#end;
    if (this.#quietTurns < QUIET_TURNS && this.#end > this.#start) {
      queueMicrotask(this.#turn);
      return;
    }
    this.#scheduled = false;
    this.flush();
  };
}

export const COPY_DATA_HEADER_SIZE = 5;

/** The header of a CopyData message with a payload of `length` bytes, for `framed`. */
export function putCopyDataHeader(into: Uint8Array, at: number, length: number): void {
  into[at] = TAG.copyData;
  putU32(into, at + 1, length + 4);
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
