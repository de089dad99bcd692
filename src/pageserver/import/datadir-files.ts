/** The files of a data directory that came from elsewhere: none is read beyond what it may have. */
import { StrataError } from "../../kit/errors.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";

export class DatadirFiles {
  readonly #files: FileSystem;
  readonly #directory: string;

  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  /** Names, sorted; none of a directory that is not there: archives may lack the empty ones. */
  async list(path: string): Promise<string[]> {
    const full = `${this.#directory}/${path}`;
    return (await this.#files.exists(full)) && (await this.#files.stat(full)).isDirectory ? await this.#files.list(full) : [];
  }

  /** @throws StrataError fix-input `bad-archive` when it is missing or larger */
  async read(path: string, maxBytes: number): Promise<Uint8Array> {
    const bytes = await this.readIfThere(path, maxBytes);
    if (bytes === null) throw new StrataError("fix-input", "bad-archive", `${path} is missing`);
    return bytes;
  }

  /** @throws StrataError fix-input `bad-archive` when it is larger */
  async readIfThere(path: string, maxBytes: number): Promise<Uint8Array | null> {
    if (!(await this.#files.exists(`${this.#directory}/${path}`))) return null;
    const sizeBytes = await this.sizeBytes(path);
    if (sizeBytes > maxBytes) throw new StrataError("fix-input", "bad-archive", `${path} has ${sizeBytes} bytes, at most ${maxBytes} are possible`);
    return await this.part(path, { offset: 0, maxBytes });
  }

  /** What is there of so many bytes. @throws StrataError fix-input `bad-archive` when the file is missing */
  async part(path: string, range: { readonly offset: number; readonly maxBytes: number }): Promise<Uint8Array> {
    const sizeBytes = await this.sizeBytes(path);
    const bytes = new Uint8Array(Math.max(0, Math.min(range.maxBytes, sizeBytes - range.offset)));
    const file = await this.open(path);
    try {
      return bytes.subarray(0, await file.read(bytes, range.offset));
    } finally {
      await file.close();
    }
  }

  /** @throws StrataError fix-input `bad-archive` when it is missing, or a directory */
  async sizeBytes(path: string): Promise<number> {
    const full = `${this.#directory}/${path}`;
    if (!(await this.#files.exists(full))) throw new StrataError("fix-input", "bad-archive", `${path} is missing`);
    const { sizeBytes, isDirectory } = await this.#files.stat(full);
    if (isDirectory) throw new StrataError("fix-input", "bad-archive", `${path} is a directory`);
    return sizeBytes;
  }

  open(path: string): Promise<FileHandle> {
    return this.#files.open(`${this.#directory}/${path}`, "read");
  }
}
