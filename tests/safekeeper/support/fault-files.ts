/** Real files, with failures at chosen operations. */
import { StrataError } from "../../../src/kit/errors.ts";
import type { FileHandle, FileSystem } from "../../../src/platform/files.ts";

export type FaultPoint = "write" | "sync" | "rename" | "truncate" | "open" | "syncDirectory" | "remove";

export class FaultFiles implements FileSystem {
  readonly #inner: FileSystem;
  /** Throws to make an operation fail; called before each. */
  check: (point: FaultPoint, path: string) => void = () => undefined;
  readonly counts = new Map<FaultPoint, number>();

  constructor(inner: FileSystem) {
    this.#inner = inner;
  }

  failOnce(point: FaultPoint, code: "disk-full" | "io-error"): void {
    this.check = (at) => {
      if (at !== point) return;
      this.check = () => undefined;
      throw new StrataError("unavailable", code, `injected ${code}`);
    };
  }

  #pass(point: FaultPoint, path: string): void {
    this.counts.set(point, (this.counts.get(point) ?? 0) + 1);
    this.check(point, path);
  }

  async open(...args: Parameters<FileSystem["open"]>): Promise<FileHandle> {
    if (args[1] !== "read") this.#pass("open", args[0]);
    const file = await this.#inner.open(...args);
    const pass = (point: FaultPoint): void => this.#pass(point, args[0]);
    return {
      path: file.path,
      read: (into, position) => file.read(into, position),
      readSync: (into, position) => file.readSync(into, position),
      write: async (bytes, position) => (pass("write"), file.write(bytes, position)),
      writeSync: (bytes, position) => (pass("write"), file.writeSync(bytes, position)),
      truncate: async (size) => (pass("truncate"), file.truncate(size)),
      sizeBytes: () => file.sizeBytes(),
      sync: async () => (pass("sync"), file.sync()),
      dataSync: async () => (pass("sync"), file.dataSync()),
      close: () => file.close(),
    };
  }
  readFile = (path: string) => this.#inner.readFile(path);
  stat = (path: string) => this.#inner.stat(path);
  exists = (path: string) => this.#inner.exists(path);
  list = (path: string) => this.#inner.list(path);
  makeDirectory = (path: string) => this.#inner.makeDirectory(path);
  removeTree = (path: string) => this.#inner.removeTree(path);
  lock = (path: string) => this.#inner.lock(path);
  async rename(from: string, to: string): Promise<void> {
    this.#pass("rename", from);
    await this.#inner.rename(from, to);
  }
  async remove(path: string): Promise<void> {
    this.#pass("remove", path);
    await this.#inner.remove(path);
  }
  async syncDirectory(path: string): Promise<void> {
    this.#pass("syncDirectory", path);
    await this.#inner.syncDirectory(path);
  }
}
