/**
 * Where the values of an in-memory layer go: a file that only grows, with full buffers written in the background while
 * the next one fills. Reads see everything appended, wherever it is. Nothing here survives a restart or has to.
 */
import { StrataError } from "../../kit/errors.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";

export const EPHEMERAL_PREFIX = "ephemeral-";
const BUFFER_BYTES = 256 * 1024;
/** Full buffers that may wait for the disk before appenders have to. */
const PENDING_MAX = 2;

interface Pending {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class EphemeralFile {
  readonly #files: FileSystem;
  readonly #path: string;
  #file: FileHandle | null = null;
  #tail = new Uint8Array(BUFFER_BYTES);
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
    this.#tail = new Uint8Array(BUFFER_BYTES);
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
    const result = new Uint8Array(length);
    await this.readInto(result, offset);
    return result;
  }

  async readInto(into: Uint8Array, offset: number): Promise<void> {
    const inMemoryFrom = this.#pending.length > 0 ? this.#pending[0].offset : this.#tailOffset;
    const fromFile = Math.max(0, Math.min(into.length, inMemoryFrom - offset));
    // What is in memory now may be on its way to the file when a read has waited: copy it first.
    if (fromFile < into.length) this.#copyFromMemory(into, offset, fromFile);
    if (fromFile === 0) return;
    const got = await (this.#file as FileHandle).read(into.subarray(0, fromFile), offset);
    if (got < fromFile) throw new StrataError("corrupt", "ephemeral-file-short", `${this.#path}: ${got} of ${fromFile} bytes at ${offset}`);
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
