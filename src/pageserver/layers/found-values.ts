/**
 * What a read that does not wait has found of one key: its values, newest first, their bytes side by side in one buffer. It is
 * filled and used up without waiting in between, so one serves all such reads, and a value costs no object.
 */
import { copyBytes } from "../../kit/copy.ts";
import type { Lsn } from "../../kit/lsn.ts";

const FIRST_BYTES = 64 * 1024;
/** Past it the buffer is not kept for the next read. */
const KEPT_BYTES = 1024 * 1024;
/** Longer histories are read and applied with pauses, by the vectored read. */
export const FOUND_VALUES_MAX = 128;

export class FoundValues {
  readonly lsns = new Float64Array(FOUND_VALUES_MAX);
  readonly starts = new Uint32Array(FOUND_VALUES_MAX);
  readonly lengths = new Uint32Array(FOUND_VALUES_MAX);
  readonly willInit = new Uint8Array(FOUND_VALUES_MAX);
  buffer = new ArrayBuffer(FIRST_BYTES);
  bytes = new Uint8Array(this.buffer);
  count = 0;
  #used = 0;

  clear(): void {
    this.count = 0;
    this.#used = 0;
    if (this.bytes.length > KEPT_BYTES) this.#resize(FIRST_BYTES);
  }

  #resize(sizeBytes: number): void {
    const before = this.bytes;
    this.buffer = new ArrayBuffer(sizeBytes);
    this.bytes = new Uint8Array(this.buffer);
    copyBytes(before, 0, this.bytes, 0, this.#used);
  }

  get isFull(): boolean {
    return this.count === FOUND_VALUES_MAX;
  }

  /** Adds a value whose `length` bytes the caller puts into `bytes` from the offset returned. Not when it is full. */
  add(lsn: Lsn, willInit: boolean, length: number): number {
    const start = this.#used;
    if (start + length > this.bytes.length) this.#resize(Math.max(this.bytes.length * 2, start + length));
    this.lsns[this.count] = lsn;
    this.starts[this.count] = start;
    this.lengths[this.count] = length;
    this.willInit[this.count] = willInit ? 1 : 0;
    this.count++;
    this.#used = start + length;
    return start;
  }

  /** Whether the oldest needs nothing below it. */
  get isWhole(): boolean {
    return this.count > 0 && this.willInit[this.count - 1] === 1;
  }
}
