/**
 * Cache of layer-file blocks, bounded in bytes; out goes what was not used since the hand last came by. Blocks in it have
 * passed their checksum and are shared: nobody may write to them. One cache serves a whole pageserver; each opening of a file
 * has its own `FileBlocks`, so that blocks of a replaced file are never served.
 */
import type { BtreeNode } from "./disk-btree.ts";
import { BLOCK_SIZE } from "./summary.ts";

/** Map entry, entry and array header, beside the bytes. */
const ENTRY_OVERHEAD_BYTES = 200;

export interface CachedBlock {
  home: FileBlocks;
  block: number;
  bytes: Uint8Array;
  used: boolean;
  /** Of an index block, once it was looked into. */
  node: BtreeNode | null;
}

export class BlockCache {
  readonly #capacity: number;
  readonly #ring: CachedBlock[] = [];
  #hand = 0;
  hits = 0;
  misses = 0;

  constructor(options: { readonly capacityBytes: number }) {
    this.#capacity = Math.max(16, Math.floor(options.capacityBytes / (BLOCK_SIZE + ENTRY_OVERHEAD_BYTES)));
  }

  get maxBytes(): number {
    return this.#capacity * (BLOCK_SIZE + ENTRY_OVERHEAD_BYTES);
  }

  get sizeBytes(): number {
    return this.#ring.length * (BLOCK_SIZE + ENTRY_OVERHEAD_BYTES);
  }

  /** For a file that was just opened. */
  forFile(): FileBlocks {
    return new FileBlocks(this);
  }

  /** Takes a place in the ring: a new one, or that of a block not used lately. */
  enter(home: FileBlocks, block: number, bytes: Uint8Array): CachedBlock {
    if (this.#ring.length < this.#capacity) {
      const entry = { home, block, bytes, used: false, node: null };
      this.#ring.push(entry);
      return entry;
    }
    for (;;) {
      const entry = this.#ring[this.#hand];
      this.#hand = this.#hand + 1 === this.#capacity ? 0 : this.#hand + 1;
      if (entry.used) {
        entry.used = false;
        continue;
      }
      entry.home.dropped(entry.block);
      entry.home = home;
      entry.block = block;
      entry.bytes = bytes;
      entry.node = null;
      return entry;
    }
  }
}

/** The blocks of one opened file that are in the cache. */
export class FileBlocks {
  readonly #cache: BlockCache;
  readonly #blocks = new Map<number, CachedBlock>();

  constructor(cache: BlockCache) {
    this.#cache = cache;
  }

  get(block: number): Uint8Array | undefined {
    return this.entry(block)?.bytes;
  }

  entry(block: number): CachedBlock | undefined {
    const found = this.#blocks.get(block);
    if (found === undefined) {
      this.#cache.misses++;
      return undefined;
    }
    this.#cache.hits++;
    found.used = true;
    return found;
  }

  /** @param bytes an array of its own, not a view that would keep a larger buffer alive */
  put(block: number, bytes: Uint8Array): void {
    const known = this.#blocks.get(block);
    if (known !== undefined) {
      known.bytes = bytes;
      known.node = null;
    } else this.#blocks.set(block, this.#cache.enter(this, block, bytes));
  }

  /** The cache gave its place away. */
  dropped(block: number): void {
    this.#blocks.delete(block);
  }
}
