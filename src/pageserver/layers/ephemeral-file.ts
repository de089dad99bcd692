/**
 * Where the values of an in-memory layer go: a file that only grows, with full buffers written in the background while
 * the next one fills. Reads see everything appended, wherever it is. Nothing here survives a restart or has to.
 */
import { allocateBytes } from "../../kit/buffers.ts";
import { StrataError } from "../../kit/errors.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";

export const EPHEMERAL_PREFIX = "ephemeral-";
const BUFFER_BYTES = 256 * 1024;
/** Full buffers that may wait for the disk before appenders have to. */
const PENDING_MAX = 2;
/** Copying this much from the page cache costs no more than another system call. */
const GAP_MAX_BYTES = 16 * 1024;
const RUN_MAX_BYTES = 256 * 1024;
/** Synchronous reads in a row before one that lets others have the event loop. */
const SYNC_RUNS = 64;

interface Pending {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface EphemeralPlace {
  readonly offset: number;
  readonly length: number;
}

export class EphemeralFile {
  readonly #files: FileSystem;
  readonly #path: string;
  #file: FileHandle | null = null;
  #tail = allocateBytes(BUFFER_BYTES);
  #tailOffset = 0;
  #tailLength = 0;
  /** Full buffers on their way to the file, in order. */
  readonly #pending: Pending[] = [];
  #writing: Promise<void> | null = null;
  #closed = false;

  constructor(files: FileSystem, path: string) {
    this.#files = files;
    this.#path = path;
  }

  get sizeBytes(): number {
    return this.#tailOffset + this.#tailLength;
  }

  /** Bytes held in memory. */
  get memoryBytes(): number {
    return BUFFER_BYTES * (1 + this.#pending.length);
  }

  /** Copies `bytes` to the end; returns their offset. Never waits: see `drained`. */
  append(bytes: Uint8Array): number {
    const offset = this.sizeBytes;
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(BUFFER_BYTES - this.#tailLength, bytes.length - at);
      this.#tail.set(bytes.subarray(at, at + count), this.#tailLength);
      this.#tailLength += count;
      at += count;
      if (this.#tailLength === BUFFER_BYTES) this.#rotate();
    }
    return offset;
  }

  #rotate(): void {
    this.#pending.push({ offset: this.#tailOffset, bytes: this.#tail });
    this.#tailOffset += this.#tailLength;
    this.#tail = allocateBytes(BUFFER_BYTES);
    this.#tailLength = 0;
    // A failure is told to whoever waits in `drained`, which tries again.
    this.#startWriting().catch(() => {});
  }

  #startWriting(): Promise<void> {
    this.#writing ??= this.#writePending().finally(() => {
      this.#writing = null;
    });
    return this.#writing;
  }

  async #writePending(): Promise<void> {
    this.#file ??= await this.#files.open(this.#path, "truncate");
    for (let next = this.#pending[0]; next !== undefined && !this.#closed; next = this.#pending[0]) {
      await this.#file.write(next.bytes, next.offset);
      this.#pending.shift();
    }
  }

  /** Undefined while there is room; else resolves when there is. Rejects with the disk's error. */
  drained(): Promise<void> | undefined {
    return this.#pending.length > PENDING_MAX ? this.#startWriting() : undefined;
  }

  /** A copy of [offset, offset + length). */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const result = allocateBytes(length);
    await this.readInto(result, offset);
    return result;
  }

  /**
   * Many values, in the order of `places`; each may be a view of memory shared with others, not to be written. What is in
   * memory is not copied, what is in the file (and so in the page cache, mostly) is read in runs, without a promise a value.
   */
  async readMany(places: readonly EphemeralPlace[]): Promise<Uint8Array[]> {
    const values = new Array<Uint8Array>(places.length);
    const inFile: number[] = [];
    for (let i = 0; i < places.length; i++) {
      const view = this.#viewInMemory(places[i]);
      if (view !== null) values[i] = view;
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
      const bytes = allocateBytes(end - start);
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
    return this.#pending.length > 0 ? this.#pending[0].offset : this.#tailOffset;
  }

  /** A view of what lies whole in one buffer: buffers are filled once and never used again. */
  #viewInMemory({ offset, length }: EphemeralPlace): Uint8Array | null {
    if (offset >= this.#tailOffset) return this.#tail.subarray(offset - this.#tailOffset, offset - this.#tailOffset + length);
    for (const { offset: start, bytes } of this.#pending) {
      if (offset >= start && offset + length <= start + bytes.length) return bytes.subarray(offset - start, offset - start + length);
    }
    return null;
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
    if (fromFile < into.length) this.#copyFromMemory(into, offset, fromFile);
    if (fromFile === 0) return;
    const got = await (this.#file as FileHandle).read(into.subarray(0, fromFile), offset);
    this.#checkRead({ got, wanted: fromFile, offset });
  }

  #copyFromMemory(into: Uint8Array, offset: number, from: number): void {
    for (const { offset: start, bytes } of [...this.#pending, { offset: this.#tailOffset, bytes: this.#tail.subarray(0, this.#tailLength) }]) {
      const begin = Math.max(offset + from, start);
      const end = Math.min(offset + into.length, start + bytes.length);
      if (begin < end) into.set(bytes.subarray(begin - start, end - start), begin - offset);
    }
  }

  /** Removes the file; later reads fail. */
  async discard(): Promise<void> {
    this.#closed = true;
    await this.#writing?.catch(() => {});
    const file = this.#file;
    this.#file = null;
    this.#pending.length = 0;
    if (file === null) return;
    await file.close();
    await this.#files.remove(this.#path).catch(() => {});
  }
}
