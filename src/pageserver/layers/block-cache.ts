/**
 * Cache of layer-file blocks, bounded in bytes, least recently used out first. Blocks in it have passed their checksum
 * and are shared: nobody may write to them. One cache serves a whole pageserver.
 */
import { BLOCK_SIZE } from "./summary.ts";

/** Room for 2^22 blocks (32 GiB) in a file, and 2^31 files in the life of a process. */
const BLOCKS_PER_FILE = 2 ** 22;
/** Map entry and array header, beside the bytes. */
const ENTRY_OVERHEAD_BYTES = 200;

export class BlockCache {
  readonly #capacity: number;
  readonly #blocks = new Map<number, Uint8Array>();
  #nextFileId = 0;
  hits = 0;
  misses = 0;

  constructor(options: { readonly capacityBytes: number }) {
    this.#capacity = Math.max(16, Math.floor(options.capacityBytes / (BLOCK_SIZE + ENTRY_OVERHEAD_BYTES)));
  }

  /** Each opening of a file gets its own id, so that blocks of a replaced file are never served. */
  newFileId(): number {
    return this.#nextFileId++;
  }

  get sizeBytes(): number {
    return this.#blocks.size * (BLOCK_SIZE + ENTRY_OVERHEAD_BYTES);
  }

  get(fileId: number, block: number): Uint8Array | undefined {
    const key = fileId * BLOCKS_PER_FILE + block;
    const found = this.#blocks.get(key);
    if (found === undefined) {
      this.misses++;
      return undefined;
    }
    this.hits++;
    this.#blocks.delete(key);
    this.#blocks.set(key, found);
    return found;
  }

  /** @param bytes an array of its own, not a view that would keep a larger buffer alive */
  put(fileId: number, block: number, bytes: Uint8Array): void {
    const key = fileId * BLOCKS_PER_FILE + block;
    this.#blocks.delete(key);
    this.#blocks.set(key, bytes);
    if (this.#blocks.size > this.#capacity) {
      for (const oldest of this.#blocks.keys()) {
        this.#blocks.delete(oldest);
        break;
      }
    }
  }
}
