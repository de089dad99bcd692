/**
 * Object storage in a local directory: an object is a file at its key. An upload writes a temporary file, syncs it,
 * renames it into place and syncs the directory, so a crash leaves the old object or the new one.
 *
 * Temporary files live in `.uploads/` below the root, out of every listing. Several processes may share the root:
 * names are random, and only leftovers older than a day are swept.
 */
import { allocateBytes } from "../kit/buffers.ts";
import { InvariantError, isStrataError, StrataError } from "../kit/errors.ts";
import { DirectorySyncs } from "../platform/directory-syncs.ts";
import type { FileHandle, FileSystem } from "../platform/files.ts";
import { Pacer } from "../platform/pacer.ts";
import type { Platform } from "../platform/platform.ts";
import { bodyWithEnd, checkObjectKey, type ListOptions, type ListPage, LIST_PAGE_MAX, objectNotFound, type OperationOptions, type RemoteObject, type RemoteStorage, type Download, type ByteRange, storageUnavailable, type UploadSource } from "./remote-storage.ts";
import { timeTravelUnsupported } from "./time-travel.ts";

const UPLOADS_DIRECTORY = ".uploads";
const CHUNK_BYTES = 256 * 1024;
const LEFTOVER_AGE_MS = 24 * 3600 * 1000;
const KNOWN_DIRECTORIES_MAX = 10_000;

export class LocalDirectoryStorage implements RemoteStorage {
  readonly maxKeysPerDelete = 1000;
  readonly #root: string;
  readonly #platform: Pick<Platform, "files" | "random" | "clock">;
  /** Durable with all their parents. */
  readonly #knownDirectories = new Set<string>();
  readonly #syncs: DirectorySyncs;

  private constructor(root: string, platform: Pick<Platform, "files" | "random" | "clock">) {
    this.#root = root;
    this.#platform = platform;
    this.#syncs = new DirectorySyncs(platform.files);
  }

  static async open(root: string, platform: Pick<Platform, "files" | "random" | "clock">): Promise<LocalDirectoryStorage> {
    const storage = new LocalDirectoryStorage(root, platform);
    const uploads = `${root}/${UPLOADS_DIRECTORY}`;
    await platform.files.makeDirectory(uploads);
    await storage.#sweepLeftovers(uploads);
    return storage;
  }

  get #files(): FileSystem {
    return this.#platform.files;
  }

  async #sweepLeftovers(uploads: string): Promise<void> {
    const oldest = this.#platform.clock.wallMs() - LEFTOVER_AGE_MS;
    for (const name of await this.#files.list(uploads)) {
      const path = `${uploads}/${name}`;
      try {
        if ((await this.#files.stat(path)).modifiedMs < oldest) await this.#files.remove(path);
      } catch (error) {
        if (!isStrataError(error, "file-not-found")) throw error;
      }
    }
  }

  async upload(key: string, source: UploadSource, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(key);
    options.signal?.throwIfAborted();
    const temporary = `${this.#root}/${UPLOADS_DIRECTORY}/${this.#platform.random.bytes(16).toHex()}`;
    try {
      const target = `${this.#root}/${key}`;
      const directory = parentOf(target);
      const isKnown = this.#knownDirectories.has(directory);
      // Side by side, so that the disk is waited for twice only: for the content, then for all names that lead to it.
      await allOf([this.#writeSynced(temporary, source, options.signal), ...(isKnown ? [] : [this.#files.makeDirectory(directory)])]);
      await this.#files.rename(temporary, target);
      await allOf((isKnown ? [directory] : this.#upToRoot(directory)).map((path) => this.#syncs.sync(path)));
      this.#remember(directory);
    } catch (error) {
      await this.#files.remove(temporary).catch(() => {});
      // Somebody may have taken directories away.
      this.#knownDirectories.clear();
      throw asStorageError(error, `upload of ${key}`);
    }
  }

  async #writeSynced(path: string, source: UploadSource, signal?: AbortSignal): Promise<void> {
    const file = await this.#files.open(path, "create-new");
    try {
      if ("bytes" in source) await file.write(source.bytes, 0);
      else await this.#copyFile(file, source, signal);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #copyFile(to: FileHandle, source: { filePath: string; sizeBytes: number }, signal?: AbortSignal): Promise<void> {
    const from = await this.#files.open(source.filePath, "read");
    try {
      const buffer = allocateBytes(Math.min(CHUNK_BYTES, source.sizeBytes));
      for (let at = 0; at < source.sizeBytes; ) {
        signal?.throwIfAborted();
        const count = await from.read(buffer.subarray(0, Math.min(buffer.length, source.sizeBytes - at)), at);
        if (count === 0) throw new StrataError("corrupt", "file-too-short", `${source.filePath} ends at ${at}, ${source.sizeBytes} bytes wanted`);
        await to.write(buffer.subarray(0, count), at);
        at += count;
      }
    } finally {
      await from.close();
    }
  }

  /** A directory and its parents, as far as one may not be durable yet. */
  #upToRoot(directory: string): string[] {
    const paths = [directory];
    for (let at = directory; at.length > this.#root.length && !this.#knownDirectories.has(at); at = parentOf(at)) paths.push(parentOf(at));
    return paths;
  }

  #remember(directory: string): void {
    if (this.#knownDirectories.has(directory)) return;
    if (this.#knownDirectories.size >= KNOWN_DIRECTORIES_MAX) this.#knownDirectories.clear();
    for (let at = directory; at.length >= this.#root.length; at = parentOf(at)) this.#knownDirectories.add(at);
  }

  async download(key: string, options: OperationOptions & { readonly range?: ByteRange } = {}): Promise<Download> {
    checkObjectKey(key);
    options.signal?.throwIfAborted();
    const file = await this.#openObject(key);
    try {
      const size = await file.sizeBytes();
      const start = options.range?.start ?? 0;
      const end = Math.min(size, options.range?.end ?? size);
      if (start < 0 || start > end) throw new StrataError("fix-input", "bad-range", `range ${start}–${end} of object ${key} with ${size} bytes`);
      return { sizeBytes: end - start, body: bodyWithEnd(readChunks(file, { start, end }, options.signal), () => file.close()) };
    } catch (error) {
      await file.close();
      throw asStorageError(error, `download of ${key}`);
    }
  }

  async #openObject(key: string): Promise<FileHandle> {
    const path = `${this.#root}/${key}`;
    try {
      // A directory can be opened for reading; an object cannot be one.
      if ((await this.#files.stat(path)).isDirectory) throw objectNotFound(key);
      return await this.#files.open(path, "read");
    } catch (error) {
      if (isStrataError(error, "file-not-found")) throw objectNotFound(key, error);
      throw asStorageError(error, `download of ${key}`);
    }
  }

  async list(options: ListOptions): Promise<ListPage> {
    options.signal?.throwIfAborted();
    const limit = Math.min(options.maxKeys ?? LIST_PAGE_MAX, LIST_PAGE_MAX);
    if (limit < 1) throw new InvariantError("a listing needs room for at least one key");
    const found: Found[] = [];
    const startDirectory = options.prefix.includes("/") ? options.prefix.slice(0, options.prefix.lastIndexOf("/") + 1) : "";
    try {
      await this.#walk(startDirectory, { ...options, limit, found });
    } catch (error) {
      throw asStorageError(error, `listing of "${options.prefix}"`);
    }
    const page = found.slice(0, limit);
    return {
      objects: page.flatMap((entry) => (entry.object === null ? [] : [entry.object])),
      prefixes: page.flatMap((entry) => (entry.object === null ? [entry.key] : [])),
      continuation: found.length > limit ? page[page.length - 1].key : null,
    };
  }

  /** Visits what lies in `directory` ("" or ending in "/") in key order until one more than `limit` is found. */
  async #walk(directory: string, search: Search): Promise<void> {
    for (const entry of await this.#entries(directory)) {
      if (search.found.length > search.limit) return;
      if (!entry.startsWith(search.prefix) && !search.prefix.startsWith(entry)) continue;
      const after = search.continuation ?? "";
      if (entry.endsWith("/")) {
        // Everything inside sorts before the continuation unless the continuation is inside or earlier.
        if (entry <= after && !after.startsWith(entry)) continue;
        const isPrefix = search.delimiter === "/" && entry.startsWith(search.prefix) && entry.length > search.prefix.length;
        if (!isPrefix) await this.#walk(entry, search);
        else if (entry > after && (await this.#holdsAnything(entry))) search.found.push({ key: entry, object: null });
      } else if (entry > after && entry.startsWith(search.prefix)) {
        const stat = await this.#statOrNull(entry);
        if (stat !== null) search.found.push({ key: entry, object: { key: entry, sizeBytes: stat.sizeBytes, modifiedMs: stat.modifiedMs } });
      }
    }
  }

  /** Keys below a directory, directories with a trailing "/", in byte order. */
  async #entries(directory: string): Promise<string[]> {
    let names: string[];
    try {
      names = await this.#files.list(`${this.#root}/${directory}`.replace(/\/$/, ""));
    } catch (error) {
      if (isStrataError(error, "file-not-found")) return [];
      throw error;
    }
    const entries: string[] = [];
    const pacer = new Pacer(this.#platform.clock);
    for (const name of names) {
      const pause = pacer.pause();
      if (pause !== undefined) await pause;
      if (directory === "" && name === UPLOADS_DIRECTORY) continue;
      const stat = await this.#statOrNull(directory + name);
      if (stat !== null) entries.push(stat.isDirectory ? `${directory}${name}/` : directory + name);
    }
    return entries.sort((a, b) => (a < b ? -1 : 1));
  }

  async #statOrNull(key: string): Promise<{ sizeBytes: number; modifiedMs: number; isDirectory: boolean } | null> {
    try {
      return await this.#files.stat(`${this.#root}/${key}`);
    } catch (error) {
      if (isStrataError(error, "file-not-found")) return null;
      throw error;
    }
  }

  /** Directories stay when their last object goes; such a one is no prefix. */
  async #holdsAnything(directory: string): Promise<boolean> {
    for (const entry of await this.#entries(directory)) {
      if (!entry.endsWith("/") || (await this.#holdsAnything(entry))) return true;
    }
    return false;
  }

  async delete(keys: readonly string[], options: OperationOptions = {}): Promise<void> {
    for (const key of keys) checkObjectKey(key);
    const touched = new Set<string>();
    try {
      for (const key of keys) {
        options.signal?.throwIfAborted();
        if (await this.#removeIfPresent(`${this.#root}/${key}`)) touched.add(parentOf(`${this.#root}/${key}`));
      }
      await allOf([...touched].map((directory) => this.#syncs.sync(directory)));
    } catch (error) {
      throw asStorageError(error, `deletion of ${keys.length} objects`);
    }
  }

  async #removeIfPresent(path: string): Promise<boolean> {
    try {
      if ((await this.#files.stat(path)).isDirectory) return false;
      await this.#files.remove(path);
      return true;
    } catch (error) {
      if (isStrataError(error, "file-not-found")) return false;
      throw error;
    }
  }

  async copy(from: string, to: string, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(from);
    const stat = await this.#statOrNull(from);
    if (stat === null || stat.isDirectory) throw objectNotFound(from);
    await this.upload(to, { filePath: `${this.#root}/${from}`, sizeBytes: stat.sizeBytes }, options);
  }

  async timeTravelRecover(): Promise<void> {
    throw timeTravelUnsupported("a local directory");
  }
}

interface Found {
  readonly key: string;
  readonly object: RemoteObject | null;
}

interface Search extends ListOptions {
  readonly limit: number;
  readonly found: Found[];
}

/** Throws what failed first, and not before all have ended. */
async function allOf(works: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(works)) if (result.status === "rejected") throw result.reason;
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

async function* readChunks(file: FileHandle, range: { start: number; end: number }, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  for (let at = range.start; at < range.end; ) {
    signal?.throwIfAborted();
    const buffer = allocateBytes(Math.min(CHUNK_BYTES, range.end - at));
    const count = await file.read(buffer, at);
    if (count === 0) throw storageUnavailable(`${file.path} became shorter while it was read`);
    yield count === buffer.length ? buffer : buffer.subarray(0, count);
    at += count;
  }
}

/** File errors become storage errors; ours, bugs and cancellation pass. */
function asStorageError(error: unknown, what: string): unknown {
  if (isStrataError(error) && (error.code === "io-error" || error.code === "disk-full" || error.code === "file-not-found")) return storageUnavailable(`${what} failed`, error);
  return error;
}
