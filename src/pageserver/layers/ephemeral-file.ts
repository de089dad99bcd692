/**
 * Where the values of an in-memory layer go: chunks of memory, the oldest of which are written to a file when all layers together
 * hold too much (layer-memory.ts). Reads see everything appended, wherever it is. Nothing here survives a restart or has to.
 *
 * Invariants: the file holds a prefix of the content, whole chunks; a chunk's bytes never change once written, as long as it is this
 * file's. Once spilled or discarded it is another's: so views of chunks never leave here, but for `readNow`, whose caller copies before
 * anything else happens, and `withContent`, during which nothing is spilled or discarded.
 */
import { allocateSharedBytes } from "../../kit/buffers.ts";
import { copyBytes } from "../../kit/copy.ts";
import { StrataError } from "../../kit/errors.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { openWithDirectory } from "../../platform/open-with-directory.ts";
import { CHUNK_BYTES } from "./chunk-pool.ts";
import type { LayerMemory, Spillable } from "./layer-memory.ts";

export const EPHEMERAL_PREFIX = "ephemeral-";
/** The first chunk grows up to the others' size: most timelines of a fleet are idle. */
const FIRST_CHUNK_BYTES = 8 * 1024;
/** Copying this much from the page cache costs no more than another system call. */
const GAP_MAX_BYTES = 16 * 1024;
const RUN_MAX_BYTES = 256 * 1024;
/** Synchronous reads in a row before one that lets others have the event loop. */
const SYNC_RUNS = 64;

export interface EphemeralPlace {
  readonly offset: number;
  readonly length: number;
}

/** Everything, for a worker: chunks in memory, null where `path` has them. Plain data. */
export interface EphemeralContent {
  readonly sizeBytes: number;
  readonly chunks: readonly (Uint8Array | null)[];
  readonly path: string;
}

export class EphemeralFile implements Spillable {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #memory: LayerMemory;
  #file: FileHandle | null = null;
  /** Null: in the file. All but the last are full. */
  readonly #chunks: (Uint8Array | null)[] = [];
  #sizeBytes = 0;
  /** Chunks before it are in the file, and not in memory. */
  #spilledChunks = 0;
  #memoryBytes = 0;
  #besideBytes = 0;
  #spilling: Promise<void> | null = null;
  #pinned = false;
  #closed = false;

  constructor(files: FileSystem, path: string, memory: LayerMemory) {
    this.#files = files;
    this.#path = path;
    this.#memory = memory;
    memory.add(this);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Bytes held in memory. */
  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  /** Copies the first `length` bytes of `bytes` to the end; returns their offset. Never waits: see `drained`. */
  append(bytes: Uint8Array, length = bytes.length): number {
    const offset = this.#sizeBytes;
    for (let at = 0; at < length; ) {
      const within = this.#sizeBytes % CHUNK_BYTES;
      const chunk = this.#room(within, length - at);
      const count = Math.min(chunk.length - within, length - at);
      copyBytes(bytes, at, chunk, within, count);
      this.#sizeBytes += count;
      at += count;
    }
    return offset;
  }

  /** The last chunk, with room beyond `within`. */
  #room(within: number, wanted: number): Uint8Array {
    const last = this.#chunks.length - 1;
    const chunk = within === 0 ? null : (this.#chunks[last] as Uint8Array);
    if (chunk !== null && within < chunk.length) return chunk;
    if (chunk === null) {
      const fresh = this.#fresh(last < 0 ? firstChunkSize(wanted) : CHUNK_BYTES);
      this.#chunks.push(fresh);
      return fresh;
    }
    const grown = this.#fresh(firstChunkSize(Math.max(within + wanted, chunk.length * 2)));
    copyBytes(chunk, 0, grown, 0, within);
    this.#chunks[last] = grown;
    this.#giveBack(chunk);
    return grown;
  }

  #fresh(sizeBytes: number): Uint8Array {
    this.#memoryBytes += sizeBytes;
    if (sizeBytes === CHUNK_BYTES) return this.#memory.takeChunk();
    const chunk = allocateSharedBytes(sizeBytes);
    this.#memory.take(sizeBytes);
    return chunk;
  }

  #giveBack(chunk: Uint8Array): void {
    this.#memoryBytes -= chunk.length;
    this.#memory.giveChunk(chunk);
  }

  /** What is held together with the values and cannot be spilled counts as theirs. */
  setBesideBytes(bytes: number): void {
    if (bytes === this.#besideBytes) return;
    this.#memory.take(bytes - this.#besideBytes);
    this.#besideBytes = bytes;
  }

  /** Full chunks that are only in memory. */
  get #spillable(): number {
    return this.#pinned || this.#closed ? 0 : Math.floor(this.#sizeBytes / CHUNK_BYTES) - this.#spilledChunks;
  }

  get spillableBytes(): number {
    return this.#spillable * CHUNK_BYTES;
  }

  get pinned(): boolean {
    return this.#pinned;
  }

  spill(): Promise<void> {
    this.#spilling ??= this.#spillWhileOver().finally(() => {
      this.#spilling = null;
    });
    return this.#spilling;
  }

  async #spillWhileOver(): Promise<void> {
    while (this.#memory.isOver && this.#spillable > 0) {
      this.#file ??= await openWithDirectory(this.#files, this.#path, "truncate");
      const at = this.#spilledChunks;
      const chunk = this.#chunks[at] as Uint8Array;
      await this.#file.write(chunk, at * CHUNK_BYTES);
      if (this.#closed) return;
      this.#chunks[at] = null;
      this.#spilledChunks++;
      this.#giveBack(chunk);
    }
  }

  /** Runs `work` over everything there is, which stays where it is meanwhile. No append comes any more. */
  async withContent<T>(work: (content: EphemeralContent) => Promise<T>): Promise<T> {
    this.#pinned = true;
    try {
      await this.#spilling?.catch(() => {});
      return await work({ sizeBytes: this.#sizeBytes, chunks: [...this.#chunks], path: this.#path });
    } finally {
      this.#pinned = false;
    }
  }

  /** A copy of [offset, offset + length). */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const result = new Uint8Array(length);
    await this.readInto(result, offset);
    return result;
  }

  /**
   * Many values, in the order of `places`, copied; some share memory with others. What is in the file (and so in the page cache,
   * mostly) is read in runs, without a promise a value.
   */
  async readMany(places: readonly EphemeralPlace[]): Promise<Uint8Array[]> {
    const values = new Array<Uint8Array>(places.length);
    const inFile: number[] = [];
    for (let i = 0; i < places.length; i++) {
      const view = this.#viewInMemory(places[i]);
      if (view !== null) values[i] = view.slice();
      else if (places[i].offset + places[i].length <= this.#fileEnd) inFile.push(i);
      else values[i] = await this.read(places[i].offset, places[i].length);
    }
    inFile.sort((a, b) => places[a].offset - places[b].offset);
    for (let first = 0, run = 1; first < inFile.length; run++) {
      const start = places[inFile[first]].offset;
      let end = start + places[inFile[first]].length;
      let next = first + 1;
      for (; next < inFile.length; next++) {
        const place = places[inFile[next]];
        if (place.offset - end > GAP_MAX_BYTES || place.offset + place.length - start > RUN_MAX_BYTES) break;
        end = Math.max(end, place.offset + place.length);
      }
      const bytes = new Uint8Array(end - start);
      const wait = this.#readRun(bytes, start, run % SYNC_RUNS === 0);
      if (wait !== undefined) await wait;
      for (; first < next; first++) {
        const { offset, length } = places[inFile[first]];
        values[inFile[first]] = bytes.subarray(offset - start, offset - start + length);
      }
    }
    return values;
  }

  /** Everything below is in the file. */
  get #fileEnd(): number {
    return this.#spilledChunks * CHUNK_BYTES;
  }

  /** A view of what lies whole in one chunk. */
  #viewInMemory({ offset, length }: EphemeralPlace): Uint8Array | null {
    const number = Math.floor(offset / CHUNK_BYTES);
    const chunk = this.#chunks[number];
    const start = offset - number * CHUNK_BYTES;
    return chunk === null || start + length > CHUNK_BYTES ? null : chunk.subarray(start, start + length);
  }

  /** One value without waiting; null when it lies in several chunks. May be a view of a chunk: to be copied at once. */
  readNow(offset: number, length: number): Uint8Array | null {
    const view = this.#viewInMemory({ offset, length });
    if (view !== null || offset + length > this.#fileEnd) return view;
    const bytes = new Uint8Array(length);
    const wait = this.#readRun(bytes, offset, false);
    return wait === undefined ? bytes : null;
  }

  /** Of the file alone. Undefined when it was read at once. */
  #readRun(into: Uint8Array, offset: number, yielding: boolean): Promise<void> | undefined {
    const file = this.#file as FileHandle;
    if (yielding) return file.read(into, offset).then((got) => this.#checkRead({ got, wanted: into.length, offset }));
    this.#checkRead({ got: file.readSync(into, offset), wanted: into.length, offset });
    return undefined;
  }

  #checkRead({ got, wanted, offset }: { got: number; wanted: number; offset: number }): void {
    if (got < wanted) throw new StrataError("corrupt", "ephemeral-file-short", `${this.#path}: ${got} of ${wanted} bytes at ${offset}`);
  }

  async readInto(into: Uint8Array, offset: number): Promise<void> {
    const fromFile = Math.max(0, Math.min(into.length, this.#fileEnd - offset));
    // What is in memory now may be on its way to the file when a read has waited: copy it first.
    for (let at = fromFile; at < into.length; ) {
      const number = Math.floor((offset + at) / CHUNK_BYTES);
      const within = offset + at - number * CHUNK_BYTES;
      const count = Math.min(CHUNK_BYTES - within, into.length - at);
      copyBytes(this.#chunks[number] as Uint8Array, within, into, at, count);
      at += count;
    }
    if (fromFile === 0) return;
    const got = await (this.#file as FileHandle).read(into.subarray(0, fromFile), offset);
    this.#checkRead({ got, wanted: fromFile, offset });
  }

  /** Removes the file and gives the memory back; later reads fail. */
  async discard(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#memory.remove(this);
    this.#memory.give(this.#besideBytes);
    this.#besideBytes = 0;
    // What is being written to the file is read until that is done.
    await this.#spilling?.catch(() => {});
    for (const chunk of this.#chunks) if (chunk !== null) this.#giveBack(chunk);
    this.#chunks.length = 0;
    const file = this.#file;
    this.#file = null;
    if (file === null) return;
    await file.close();
    await this.#files.remove(this.#path).catch(() => {});
  }
}

function firstChunkSize(wanted: number): number {
  let size = FIRST_CHUNK_BYTES;
  while (size < wanted && size < CHUNK_BYTES) size *= 2;
  return size;
}
