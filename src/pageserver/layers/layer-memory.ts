/**
 * How much memory the in-memory layers of all timelines may take together, and who gives some back when it is too much.
 *
 * Values are held in memory up to `limitBytes`; above it the file that holds most writes its oldest values to disk. When the disk
 * does not keep up, appenders wait at an eighth above the limit (`mustWait`). What cannot be spilled (the indexes) makes layers
 * freeze early instead: see `freezeAtIndexBytes`. And where a few timelines have the memory to themselves their layers freeze before
 * they fill it, so that the next layer has room while one is flushed, and nothing is spilled: see `freezeAtBytes`.
 *
 * Chunks given back are kept for the next who asks, within the same limit.
 */
import { ChunkPool } from "./chunk-pool.ts";

/** Holds values in memory that it can put on disk instead. */
export interface Spillable {
  /** What it could write out now. */
  readonly spillableBytes: number;
  /** Its memory is read by a flush, and comes free when that ends. */
  readonly pinned: boolean;
  /** Writes its oldest values out while `isOver`. Rejects with the disk's error; one at a time, all callers share it. */
  spill(): Promise<void>;
}

const SQUEEZE_DIVISOR = 4;
/** What an open layer may hold before it freezes: as much is being flushed meanwhile. */
const OPEN_SHARE = 0.4;
/** A layer that is smaller than this had better be spilled. */
const FREEZE_MIN_BYTES = 32 * 1024 * 1024;
/** Indexes may take this part of the whole before layers freeze early. */
const INDEX_SHARE = 0.25;
/** And never below this: layers would become too small to be worth it. */
const INDEX_MIN_BYTES = 4 * 1024 * 1024;
/** Appenders wait from here on. */
const WAIT_FACTOR = 1.125;

export class LayerMemory {
  readonly #limitBytes: number;
  #squeezed = false;
  readonly #holders = new Set<Spillable>();
  readonly #chunks = new ChunkPool();
  #used = 0;
  /** Resolved when memory is given back. */
  #given = Promise.withResolvers<void>();

  /** @param limitBytes 0 keeps nothing in memory that can be on disk */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get limitBytes(): number {
    return this.#squeezed ? this.#limitBytes / SQUEEZE_DIVISOR : this.#limitBytes;
  }

  /** The process as a whole has too much: until that is over, less is held. */
  squeeze(squeezed: boolean): void {
    if (this.#squeezed === squeezed) return;
    this.#squeezed = squeezed;
    this.take(0);
  }

  /** To be called several times a second, where somebody can: memory kept for the next layer goes when none comes. */
  trim(): void {
    this.#chunks.trim();
  }

  /** Held for the next who asks. */
  get spareBytes(): number {
    return this.#chunks.spareBytes;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** Above it `release` is owed. */
  get isOver(): boolean {
    return this.#used > this.limitBytes;
  }

  get mustWait(): boolean {
    return this.#used > this.limitBytes * WAIT_FACTOR;
  }

  /** An open layer whose index is larger is to be frozen. */
  freezeAtIndexBytes(): number {
    return Math.max(INDEX_MIN_BYTES, (this.limitBytes * INDEX_SHARE) / Math.max(1, this.#holders.size));
  }

  /** An open layer that holds more than this is to be frozen. */
  freezeAtBytes(): number {
    return Math.max(FREEZE_MIN_BYTES, this.limitBytes * OPEN_SHARE);
  }

  add(holder: Spillable): void {
    this.#holders.add(holder);
  }

  remove(holder: Spillable): void {
    this.#holders.delete(holder);
    if (this.#holders.size === 0) this.#chunks.shrink(0);
  }

  /** Counts memory taken; whoever can spill most begins to when that is too much. */
  take(bytes: number): void {
    this.#used += bytes;
    this.#chunks.shrink(this.limitBytes - this.#used);
    // A failure is told to whoever waits in `relief`, which tries again.
    if (this.isOver) this.#most()?.spill().catch(() => {});
  }

  #most(): Spillable | null {
    let most: Spillable | null = null;
    for (const holder of this.#holders) if (holder.spillableBytes > (most?.spillableBytes ?? 0)) most = holder;
    return most;
  }

  give(bytes: number): void {
    this.#used -= bytes;
    this.#given.resolve();
    this.#given = Promise.withResolvers<void>();
  }

  /** `CHUNK_BYTES`, counted. What was in them may still be there. */
  takeChunk(): Uint8Array {
    const chunk = this.#chunks.take();
    this.take(chunk.length);
    return chunk;
  }

  /** Gives back a chunk of any size that nobody reads or writes any more. */
  giveChunk(chunk: Uint8Array): void {
    this.give(chunk.length);
    // Nothing is taken in where there is no other layer.
    if (this.#holders.size > 0) this.#chunks.give(chunk, this.limitBytes - this.#used - this.#chunks.spareBytes);
  }

  /** Undefined while there is memory; else to be waited for before more is taken. Rejects with the disk's error. */
  relief(): Promise<void> | undefined {
    if (!this.mustWait) return undefined;
    const most = this.#most();
    if (most !== null) return most.spill();
    // Nothing to spill: flushes under way will give theirs back. Without any the limit is smaller than the layers' last chunks.
    for (const holder of this.#holders) if (holder.pinned) return this.#given.promise;
    return undefined;
  }
}
