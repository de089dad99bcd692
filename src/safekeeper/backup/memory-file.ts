/** A file that is only in memory, for reading: a segment fetched from object storage. */
import { InvariantError } from "../../kit/errors.ts";
import type { FileHandle } from "../../platform/files.ts";

export class MemoryFile implements FileHandle {
  readonly path: string;
  readonly #bytes: Uint8Array;

  constructor(path: string, bytes: Uint8Array) {
    this.path = path;
    this.#bytes = bytes;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return this.readSync(into, position);
  }
  readSync(into: Uint8Array, position: number): number {
    const part = this.#bytes.subarray(position, position + into.length);
    into.set(part);
    return part.length;
  }
  async sizeBytes(): Promise<number> {
    return this.#bytes.length;
  }
  async close(): Promise<void> {}
  async write(): Promise<void> {
    this.writeSync();
  }
  writeSync(): void {
    throw new InvariantError(`${this.path} is in memory and for reading only`);
  }
  async truncate(): Promise<void> {
    this.writeSync();
  }
  async sync(): Promise<void> {}
  async dataSync(): Promise<void> {}
}
