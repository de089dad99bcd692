/**
 * The system's files, with a shadow of what is durable beside them: a testing aid. A harness that has killed the process may
 * then put in the live directory's place what a loss of power could have left of it (`lose-power.ts`), for processes
 * that know nothing of it. Only `sync`, `dataSync` and `syncDirectory` reach the shadow.
 *
 * Only what lies below the given roots is shadowed; a root itself is durable as soon as it is there.
 */
import { basename, dirname, join, normalize } from "node:path";
import { InvariantError } from "../../kit/errors.ts";
import { Mutex } from "../../kit/mutex.ts";
import type { FileHandle, FileStat, FileSystem, OpenMode } from "../files.ts";
import { isDirectoryKey, keyOf, Shadow, walk } from "./shadow.ts";
import type { Key, NameEdit } from "./durable-tree.ts";

export interface PowerLossOptions {
  /** Live directories. */
  readonly roots: readonly string[];
  /** Holds a shadow for each of them. */
  readonly shadowDirectory: string;
}

/** Where the shadow of a root is. */
export function shadowOf(shadowDirectory: string, root: string): string {
  return join(shadowDirectory, encodeURIComponent(normalize(root)));
}

/** The part of a file that may differ from its shadow. */
interface Dirty {
  from: number;
  to: number;
}

interface Root {
  readonly shadow: Shadow;
  /** A file without an entry is clean, but for what is in `syncing`. */
  readonly dirty: Map<Key, Dirty>;
  /** What running syncs of a file began with, in their order. */
  readonly syncing: Map<Key, Snapshot[]>;
}

interface Snapshot {
  readonly bytes: Uint8Array;
  readonly position: number;
  readonly sizeBytes: number;
}

const CLEAN: Dirty = { from: Number.POSITIVE_INFINITY, to: 0 };
const EVERYTHING = Number.MAX_SAFE_INTEGER;
const FRESH_KEY_TRIES = 1000;
const FRESH_KEY_PAUSE_MS = 1;

export class PowerLossFiles implements FileSystem {
  readonly #inner: FileSystem;
  readonly #options: PowerLossOptions;
  readonly #roots = new Map<string, Root>();
  /** One change of names at a time: what is there before and after it tells what it did. */
  readonly #names = new Mutex();

  constructor(inner: FileSystem, options: PowerLossOptions) {
    this.#inner = inner;
    this.#options = { ...options, roots: options.roots.map((root) => normalize(root)) };
  }

  async open(path: string, mode: OpenMode): Promise<FileHandle> {
    const root = this.#rootOf(path);
    if (root === null || mode === "read") return this.#inner.open(path, mode);
    return await this.#names.run("open", () => this.#openShadowed(root, path, mode));
  }

  async #openShadowed(root: Root, path: string, mode: OpenMode): Promise<FileHandle> {
    const before = keyOf(path);
    let file = await this.#inner.open(path, mode);
    if (before === null) file = await this.#asNew(root, file);
    const key = keyOf(path);
    if (key === null) throw new InvariantError(`${path} was renamed while it was opened`);
    if (before === null) {
      root.dirty.set(key, { ...CLEAN });
      this.#change(root, [[path, key]]);
    } else if (mode === "truncate") root.dirty.set(key, { from: 0, to: EVERYTHING });
    return new ShadowedHandle(file, { root, key });
  }

  /** A new file whose inode had another content a moment ago would have that one's shadow: made again until it has a key of its own. */
  async #asNew(root: Root, file: FileHandle): Promise<FileHandle> {
    let current = file;
    for (let tries = 0; tries < FRESH_KEY_TRIES; tries++) {
      const key = keyOf(current.path);
      if (key === null || (root.shadow.isFresh(key) && !root.dirty.has(key))) return current;
      await current.close();
      await this.#inner.remove(current.path);
      await Bun.sleep(FRESH_KEY_PAUSE_MS);
      current = await this.#inner.open(current.path, "create-new");
    }
    throw new InvariantError(`no new inode for ${file.path}`);
  }

  readFile(path: string): Promise<Uint8Array> {
    return this.#inner.readFile(path);
  }
  stat(path: string): Promise<FileStat> {
    return this.#inner.stat(path);
  }
  exists(path: string): Promise<boolean> {
    return this.#inner.exists(path);
  }
  list(path: string): Promise<string[]> {
    return this.#inner.list(path);
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#names.run("make directory", () => this.#makeDirectory(path));
  }

  async #makeDirectory(path: string): Promise<void> {
    const missing: string[] = [];
    for (let at = normalize(path).replace(/\/$/, ""); keyOf(at) === null && at !== "/" && at !== "."; at = dirname(at)) missing.unshift(at);
    await this.#inner.makeDirectory(path);
    for (const made of missing) {
      const root = this.#rootOf(made);
      // A root is taken as it is when it is first seen: with no names yet.
      if (this.#options.roots.includes(made)) continue;
      const key = keyOf(made);
      if (root !== null && key !== null) this.#change(root, [[made, key]]);
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#names.run("rename", () => this.#rename(from, to));
  }

  async #rename(from: string, to: string): Promise<void> {
    const roots = [this.#rootOf(from), this.#rootOf(to)];
    const key = keyOf(from);
    await this.#inner.rename(from, to);
    const [source, target] = roots;
    if (source === target && source !== null && source !== undefined) return this.#change(source, [[from, null], [to, key]]);
    if (source !== null && source !== undefined) this.#change(source, [[from, null]]);
    if (target !== null && target !== undefined) this.#change(target, [[to, key]]);
  }

  async remove(path: string): Promise<void> {
    await this.#names.run("remove", async () => {
      await this.#inner.remove(path);
      const root = this.#rootOf(path);
      if (root !== null) this.#change(root, [[path, null]]);
    });
  }

  /** Of what is below it nothing is told apart: after a loss of power the tree may be back whole. */
  async removeTree(path: string): Promise<void> {
    await this.#names.run("remove tree", async () => {
      const existed = keyOf(path) !== null;
      const root = this.#rootOf(path);
      await this.#inner.removeTree(path);
      if (root !== null && existed && !this.#options.roots.includes(normalize(path))) this.#change(root, [[path, null]]);
    });
  }

  async syncDirectory(path: string): Promise<void> {
    // Whole paths again: "a/.." is the directory above.
    const plain = normalize(path).replace(/\/$/, "");
    const root = this.#rootOf(plain);
    const key = keyOf(plain);
    const upTo = root?.shadow.tree.changes ?? 0;
    await this.#inner.syncDirectory(path);
    if (root !== null && key !== null && isDirectoryKey(key)) root.shadow.syncDirectory(key, upTo);
  }

  async lock(path: string): Promise<{ release(): Promise<void> }> {
    const root = this.#rootOf(path);
    const existed = keyOf(path) !== null;
    const lock = await this.#inner.lock(path);
    if (root !== null && !existed) this.#change(root, [[path, keyOf(path)]]);
    return lock;
  }

  #change(root: Root, edits: readonly (readonly [string, Key | null])[]): void {
    const known = edits.flatMap(([path, key]): NameEdit[] => {
      const plain = normalize(path);
      const directory = keyOf(dirname(plain));
      return directory === null ? [] : [{ directory, name: basename(plain), key }];
    });
    root.shadow.change(known);
  }

  /** The root that `path` is in, opened when it is first seen; null when it is in none. */
  #rootOf(path: string): Root | null {
    const plain = normalize(path);
    const at = this.#options.roots.find((root) => plain === root || plain.startsWith(`${root}/`));
    if (at === undefined) return null;
    const known = this.#roots.get(at);
    if (known !== undefined) return known;
    if (keyOf(at) === null) return null;
    const root = openRoot(at, shadowOf(this.#options.shadowDirectory, at));
    this.#roots.set(at, root);
    return root;
  }
}

/** What an earlier process wrote and did not sync is as dirty as it was. */
function openRoot(live: string, directory: string): Root {
  const shadow = new Shadow(live, directory);
  const dirty = new Map<Key, Dirty>();
  for (const [key, path] of walk(live).paths) {
    if (!isDirectoryKey(key) && !shadow.isClean(key, path)) dirty.set(key, { from: 0, to: EVERYTHING });
  }
  return { shadow, dirty, syncing: new Map() };
}

class ShadowedHandle implements FileHandle {
  readonly #inner: FileHandle;
  readonly #root: Root;
  readonly #key: Key;

  constructor(inner: FileHandle, of: { root: Root; key: Key }) {
    this.#inner = inner;
    this.#root = of.root;
    this.#key = of.key;
  }

  get path(): string {
    return this.#inner.path;
  }
  read(into: Uint8Array, position: number): Promise<number> {
    return this.#inner.read(into, position);
  }
  readSync(into: Uint8Array, position: number): number {
    return this.#inner.readSync(into, position);
  }
  sizeBytes(): Promise<number> {
    return this.#inner.sizeBytes();
  }
  close(): Promise<void> {
    return this.#inner.close();
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    this.#touch(position, position + bytes.length);
    await this.#inner.write(bytes, position);
    // A sync that ran beside it may have seen a part of it.
    this.#touch(position, position + bytes.length);
  }

  writeSync(bytes: Uint8Array, position: number): void {
    this.#touch(position, position + bytes.length);
    this.#inner.writeSync(bytes, position);
  }

  async truncate(sizeBytes: number): Promise<void> {
    this.#touch(sizeBytes, EVERYTHING);
    await this.#inner.truncate(sizeBytes);
  }

  sync(): Promise<void> {
    return this.#flush(() => this.#inner.sync());
  }

  dataSync(): Promise<void> {
    return this.#flush(() => this.#inner.dataSync());
  }

  #touch(from: number, to: number): void {
    const dirty = this.#root.dirty.get(this.#key);
    if (dirty === undefined) this.#root.dirty.set(this.#key, { from, to });
    else {
      dirty.from = Math.min(dirty.from, from);
      dirty.to = Math.max(dirty.to, to);
    }
  }

  /** Durable when it returns: what had been written when it was asked for, and nothing that came while it ran. */
  async #flush(sync: () => Promise<void>): Promise<void> {
    const { dirty, shadow, syncing } = this.#root;
    const sizeBytes = await this.#inner.sizeBytes();
    const part = dirty.get(this.#key);
    const queue = syncing.get(this.#key) ?? [];
    syncing.set(this.#key, queue);
    if (part !== undefined) {
      dirty.delete(this.#key);
      const bytes = new Uint8Array(Math.max(0, Math.min(part.to, sizeBytes) - part.from));
      const length = bytes.length === 0 ? 0 : this.#inner.readSync(bytes, part.from);
      queue.push({ bytes: bytes.subarray(0, length), position: part.from, sizeBytes });
    }
    const last = queue.at(-1);
    try {
      await sync();
    } catch (error) {
      if (part !== undefined) this.#touch(part.from, part.to);
      throw error;
    }
    // A sync covers what earlier ones that still run had begun with; and these must not write over it afterwards.
    if (last !== undefined) for (const done of queue.splice(0, queue.indexOf(last) + 1)) shadow.syncFile(this.#key, done);
    if (queue.length === 0) syncing.delete(this.#key);
  }
}
