/**
 * The memory that values of in-memory layers lie in, used again: new memory costs the system three times what it costs to fill it, since
 * each of its pages is zeroed and mapped when it is first touched. Shared memory: a thread that makes a layer reads it in place.
 *
 * Invariant: whoever gives a chunk back, and everybody it was shown to, has done with it.
 */
import { allocateSharedBytes } from "../../kit/buffers.ts";

export const CHUNK_BYTES = 256 * 1024;

export class ChunkPool {
  readonly #spare: Uint8Array[] = [];
  /** Since `trim` was called last. */
  #asked = false;

  /** Memory held for nobody. */
  get spareBytes(): number {
    return this.#spare.length * CHUNK_BYTES;
  }

  /** `CHUNK_BYTES`, with whatever was in them. */
  take(): Uint8Array {
    this.#asked = true;
    return this.#spare.pop() ?? allocateSharedBytes(CHUNK_BYTES);
  }

  /** @param roomBytes how much more may be held for nobody */
  give(chunk: Uint8Array, roomBytes: number): void {
    if (chunk.length === CHUNK_BYTES && roomBytes >= CHUNK_BYTES) this.#spare.push(chunk);
  }

  /** Lets go of what is above `mostBytes`. */
  shrink(mostBytes: number): void {
    const most = Math.max(0, Math.floor(mostBytes / CHUNK_BYTES));
    if (this.#spare.length > most) this.#spare.length = most;
  }

  /** Lets go of half when nobody has asked for a chunk since the last call. */
  trim(): void {
    if (!this.#asked) this.#spare.length >>= 1;
    this.#asked = false;
  }
}
