/**
 * Byte cursors: bounds-checked sequential reading and growing sequential writing, with the endianness in each
 * name. Readers never copy: `bytes(n)` is a view into the input, owned by whoever owns the input.
 */
import { allocateBytes } from "./buffers.ts";
import { copyBytes } from "./copy.ts";
import { StrataError } from "./errors.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "./lsn.ts";

const utf8Decoder = new TextDecoder("utf-8", { fatal: false });
const utf8Encoder = new TextEncoder();

export function dataViewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function utf8(text: string): Uint8Array {
  return utf8Encoder.encode(text);
}

export function utf8ToString(bytes: Uint8Array): string {
  return utf8Decoder.decode(bytes);
}

export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const result = allocateBytes(length);
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

/** Sequential reader. Every read past the end throws StrataError corrupt `truncated`. */
export class ByteReader {
  readonly data: Uint8Array;
  offset: number;
  readonly #view: DataView;
  readonly #what: string;

  constructor(data: Uint8Array, what: string, offset = 0) {
    this.data = data;
    this.offset = offset;
    this.#view = dataViewOf(data);
    this.#what = what;
  }

  get remaining(): number {
    return this.data.length - this.offset;
  }

  #take(length: number): number {
    const at = this.offset;
    if (length < 0 || at + length > this.data.length) {
      throw new StrataError("corrupt", "truncated", `${this.#what}: ${length} bytes wanted at offset ${at} of ${this.data.length}`);
    }
    this.offset = at + length;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }
  u16le(): number {
    return this.#view.getUint16(this.#take(2), true);
  }
  u16be(): number {
    return this.#view.getUint16(this.#take(2));
  }
  u32le(): number {
    return this.#view.getUint32(this.#take(4), true);
  }
  u32be(): number {
    return this.#view.getUint32(this.#take(4));
  }
  i32le(): number {
    return this.#view.getInt32(this.#take(4), true);
  }
  i32be(): number {
    return this.#view.getInt32(this.#take(4));
  }
  u64le(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }
  u64be(): bigint {
    return this.#view.getBigUint64(this.#take(8));
  }
  i64le(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }
  i64be(): bigint {
    return this.#view.getBigInt64(this.#take(8));
  }
  /** u64 as a number. @throws StrataError fix-input `bad-lsn` at 2^53 and above, but u64::MAX gives LSN_MAX */
  lsnLe(): Lsn {
    const at = this.#take(8);
    return lsnFromHalves(this.#view.getUint32(at + 4, true), this.#view.getUint32(at, true));
  }
  lsnBe(): Lsn {
    const at = this.#take(8);
    return lsnFromHalves(this.#view.getUint32(at), this.#view.getUint32(at + 4));
  }
  /** A view of the next `length` bytes, not a copy. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.data.subarray(at, at + length);
  }
  skip(length: number): void {
    this.#take(length);
  }
  /** UTF-8 up to a NUL, which is consumed. */
  cstring(): string {
    const end = this.data.indexOf(0, this.offset);
    if (end < 0) throw new StrataError("corrupt", "truncated", `${this.#what}: string at offset ${this.offset} has no end`);
    const text = utf8ToString(this.data.subarray(this.offset, end));
    this.offset = end + 1;
    return text;
  }
  rest(): Uint8Array {
    return this.bytes(this.remaining);
  }
}

/** Growing sequential writer. `finish()` gives a view of what was written; the writer must not be used after it. */
export class ByteWriter {
  #data: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(capacity = 256) {
    // Asking a small array for its buffer would move its bytes into one first.
    const buffer = new ArrayBuffer(capacity);
    this.#data = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  get length(): number {
    return this.#length;
  }

  #reserve(length: number): number {
    const at = this.#length;
    const end = at + length;
    if (end > this.#data.length) {
      const grown = allocateBytes(Math.max(end, this.#data.length * 2));
      grown.set(this.#data.subarray(0, at));
      this.#data = grown;
      this.#view = dataViewOf(grown);
    }
    this.#length = end;
    return at;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#view.setUint8(at, value);
    return this;
  }
  u16le(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value, true);
    return this;
  }
  u16be(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }
  u32le(value: number): this {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, true);
    return this;
  }
  u32be(value: number): this {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
    return this;
  }
  i32be(value: number): this {
    const at = this.#reserve(4);
    this.#view.setInt32(at, value);
    return this;
  }
  u64le(value: bigint): this {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, value, true);
    return this;
  }
  u64be(value: bigint): this {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, value);
    return this;
  }
  i64be(value: bigint): this {
    const at = this.#reserve(8);
    this.#view.setBigInt64(at, value);
    return this;
  }
  lsnLe(lsn: Lsn): this {
    const at = this.#reserve(8);
    this.#view.setUint32(at, lsnLow(lsn), true);
    this.#view.setUint32(at + 4, lsnHigh(lsn), true);
    return this;
  }
  lsnBe(lsn: Lsn): this {
    const at = this.#reserve(8);
    this.#view.setUint32(at, lsnHigh(lsn));
    this.#view.setUint32(at + 4, lsnLow(lsn));
    return this;
  }
  bytes(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#data.set(value, at);
    return this;
  }
  zeros(length: number): this {
    const at = this.#reserve(length);
    this.#data.fill(0, at, at + length);
    return this;
  }
  cstring(text: string): this {
    return this.bytes(utf8(text)).u8(0);
  }
  /** Overwrites a u32 written earlier, for lengths known only afterwards. */
  patchU32be(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }
  patchU32le(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
  finish(): Uint8Array {
    return this.#data.subarray(0, this.#length);
  }
  /** For a writer that is used again and again: what was written is copied out, and forgotten by `clear`. */
  copyInto(target: Uint8Array, offset: number): void {
    copyBytes(this.#data, 0, target, offset, this.#length);
  }
  clear(): void {
    this.#length = 0;
  }
}
