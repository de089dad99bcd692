/**
 * A disk that keeps exactly what it was told to keep. `files(lifeline)` is the file system of one process; `crash()` cuts the
 * power, after which a new file system sees what survived. Faults are injected by a hook that sees every operation.
 */
import { InvariantError, StrataError } from "../../kit/errors.ts";
import type { Clock } from "../clock.ts";
import type { FileHandle, FileStat, FileSystem, OpenMode } from "../files.ts";
import type { Lifeline } from "./lifeline.ts";
import type { SeededRandom } from "./seeded-random.ts";
import { VirtualFile } from "./virtual-file.ts";
import { segments, VirtualDirectory, VirtualTree } from "./virtual-tree.ts";

export type DiskOperationKind = "open" | "read" | "write" | "truncate" | "sync" | "sync-directory" | "rename" | "remove" | "make-directory" | "list" | "stat";

export interface DiskOperation {
  readonly kind: DiskOperationKind;
  readonly path: string;
  readonly position?: number;
  readonly lengthBytes?: number;
}

export interface DiskFaults {
  /** Asked before every operation; an answer makes it fail so. A failing write leaves a random prefix behind. */
  fail?(operation: DiskOperation): "io-error" | "disk-full" | undefined;
  /** How long an asynchronous operation takes; 0 unless given. */
  latencyMs?(operation: DiskOperation): number;
}

export interface VirtualDiskOptions {
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly faults?: DiskFaults;
  /** `disk-full` beyond this. */
  readonly capacityBytes?: number;
}

export class VirtualDisk {
  readonly #options: VirtualDiskOptions;
  readonly #tree = new VirtualTree();
  readonly #locks = new Set<string>();
  /** May be replaced while running. */
  faults: DiskFaults;
  #usedBytes = 0;

  constructor(options: VirtualDiskOptions) {
    this.#options = options;
    this.faults = options.faults ?? {};
  }

  files(lifeline: Lifeline): FileSystem {
    return new VirtualFiles(this, lifeline);
  }

  /** Power is cut and comes back. File systems given out before must have had their lifelines cut. */
  crash(): void {
    this.#tree.crash(this.#options.random);
    this.#locks.clear();
    this.#usedBytes = usedBytes(this.#tree.root);
  }

  /** An empty disk in its place. The processes that used it must be dead. */
  erase(): void {
    this.#tree.erase();
    this.#locks.clear();
    this.#usedBytes = 0;
  }

  /** The process alone died: the page cache stays, its locks go. */
  releaseLocks(): void {
    this.#locks.clear();
  }

  /** Flips a random bit of the file. */
  flipBit(path: string): { readonly position: number; readonly bit: number } {
    const file = this.fileAt(path);
    const position = this.#options.random.below(file.sizeBytes);
    const bit = this.#options.random.below(8);
    file.flipBit(position, bit);
    return { position, bit };
  }

  get tree(): VirtualTree {
    return this.#tree;
  }
  get locks(): Set<string> {
    return this.#locks;
  }
  get random(): SeededRandom {
    return this.#options.random;
  }
  get clock(): Clock {
    return this.#options.clock;
  }

  fileAt(path: string): VirtualFile {
    const node = this.#tree.find(path);
    if (node === undefined) throw new StrataError("not-found", "file-not-found", `${path} does not exist`, { details: { path } });
    if (node instanceof VirtualDirectory) throw ioError(`${path} is a directory`, path);
    return node;
  }

  /** @throws StrataError unavailable `io-error`, `disk-full` when the hook says so */
  check(operation: DiskOperation): void {
    const fault = this.faults.fail?.(operation);
    if (fault === "io-error") throw ioError(`injected error on ${operation.kind} of ${operation.path}`, operation.path);
    if (fault === "disk-full") throw diskFull(operation.path);
  }

  async pace(operation: DiskOperation): Promise<void> {
    const latencyMs = this.faults.latencyMs?.(operation) ?? 0;
    if (latencyMs > 0) await this.#options.clock.sleep(latencyMs);
  }

  /** Accounts for growth. */
  charge(growthBytes: number, path: string): void {
    const capacityBytes = this.#options.capacityBytes ?? Number.POSITIVE_INFINITY;
    if (growthBytes > 0 && this.#usedBytes + growthBytes > capacityBytes) throw diskFull(path);
    this.#usedBytes += growthBytes;
  }
}

class VirtualFiles implements FileSystem {
  readonly #disk: VirtualDisk;
  readonly #lifeline: Lifeline;

  constructor(disk: VirtualDisk, lifeline: Lifeline) {
    this.#disk = disk;
    this.#lifeline = lifeline;
  }

  async open(path: string, mode: OpenMode): Promise<FileHandle> {
    await this.#begin({ kind: "open", path });
    const existing = this.#disk.tree.find(path);
    if (existing === undefined && (mode === "read" || mode === "read-write")) throw notFound(path);
    if (existing !== undefined && mode === "create-new") throw new StrataError("conflict", "file-exists", `${path} exists`, { details: { path } });
    if (existing instanceof VirtualDirectory) throw ioError(`${path} is a directory`, path);
    const file = existing ?? this.#create(path);
    if (mode === "truncate" && file.sizeBytes > 0) {
      this.#disk.charge(-file.sizeBytes, path);
      file.truncate(0);
    }
    return new VirtualFileHandle(this.#disk, { path, file, lifeline: this.#lifeline, writable: mode !== "read" });
  }

  async readFile(path: string): Promise<Uint8Array> {
    await this.#begin({ kind: "read", path });
    return this.#disk.fileAt(path).content.slice();
  }

  async stat(path: string): Promise<FileStat> {
    await this.#begin({ kind: "stat", path });
    const node = this.#disk.tree.find(path);
    if (node === undefined) throw notFound(path);
    return { sizeBytes: node.sizeBytes, isDirectory: node.isDirectory, modifiedMs: node.modifiedMs };
  }

  async exists(path: string): Promise<boolean> {
    await this.#begin({ kind: "stat", path });
    return this.#disk.tree.find(path) !== undefined;
  }

  async list(path: string): Promise<string[]> {
    await this.#begin({ kind: "list", path });
    return [...this.#directory(path).entries.keys()].sort();
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#begin({ kind: "make-directory", path });
    let at = "";
    for (const name of segments(path)) {
      at += `/${name}`;
      if (this.#disk.tree.find(at) === undefined) this.#link(at, new VirtualDirectory());
    }
    this.#directory(path);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#begin({ kind: "rename", path: from });
    const source = this.#disk.tree.parentOf(from);
    const target = this.#disk.tree.parentOf(to);
    const node = source?.directory.entries.get(source.name);
    if (source === undefined || node === undefined) throw notFound(from);
    if (target === undefined) throw notFound(to);
    const replaced = target.directory.entries.get(target.name);
    if (replaced === node) return;
    if (replaced instanceof VirtualDirectory && replaced.entries.size > 0) throw new StrataError("conflict", "file-exists", `${to} is not empty`, { details: { path: to } });
    if (replaced !== undefined && replaced.isDirectory !== node.isDirectory) throw ioError(`${from} cannot replace ${to}`, to);
    if (replaced !== undefined) this.#disk.charge(-replaced.sizeBytes, to);
    this.#disk.tree.change({ directory: source.directory, name: source.name, node: null }, { directory: target.directory, name: target.name, node });
  }

  async remove(path: string): Promise<void> {
    await this.#begin({ kind: "remove", path });
    const file = this.#disk.fileAt(path);
    this.#unlink(path);
    this.#disk.charge(-file.sizeBytes, path);
  }

  async removeTree(path: string): Promise<void> {
    await this.#begin({ kind: "remove", path });
    this.#removeTree(path);
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#begin({ kind: "sync-directory", path });
    this.#disk.tree.syncDirectory(this.#directory(path));
  }

  async lock(path: string): Promise<{ release(): Promise<void> }> {
    await this.#begin({ kind: "open", path });
    if (this.#disk.tree.find(path) === undefined) this.#create(path);
    const { locks } = this.#disk;
    if (locks.has(path)) throw new StrataError("conflict", "directory-locked", `${path} is locked by another process`, { details: { path } });
    locks.add(path);
    let held = true;
    return {
      release: async () => {
        if (held && this.#lifeline.alive) locks.delete(path);
        held = false;
      },
    };
  }

  async #begin(operation: DiskOperation): Promise<void> {
    await this.#lifeline.guard();
    await this.#disk.pace(operation);
    await this.#lifeline.guard();
    this.#disk.check(operation);
  }

  #directory(path: string): VirtualDirectory {
    const node = this.#disk.tree.find(path);
    if (node === undefined) throw notFound(path);
    if (node instanceof VirtualDirectory) return node;
    throw ioError(`${path} is not a directory`, path);
  }

  #create(path: string): VirtualFile {
    const file = new VirtualFile();
    file.modifiedMs = this.#disk.clock.wallMs();
    this.#link(path, file);
    return file;
  }

  #link(path: string, node: VirtualFile | VirtualDirectory): void {
    const parent = this.#disk.tree.parentOf(path);
    if (parent === undefined) throw notFound(path);
    this.#disk.tree.change({ ...parent, node });
  }

  #unlink(path: string): void {
    const parent = this.#disk.tree.parentOf(path);
    if (parent === undefined) throw notFound(path);
    this.#disk.tree.change({ ...parent, node: null });
  }

  #removeTree(path: string): void {
    const node = this.#disk.tree.find(path);
    if (node === undefined) return;
    if (node instanceof VirtualDirectory) for (const name of [...node.entries.keys()]) this.#removeTree(`${path}/${name}`);
    else this.#disk.charge(-node.sizeBytes, path);
    this.#unlink(path);
  }
}

interface OpenFile {
  readonly path: string;
  readonly file: VirtualFile;
  readonly lifeline: Lifeline;
  readonly writable: boolean;
}

class VirtualFileHandle implements FileHandle {
  readonly path: string;
  readonly #disk: VirtualDisk;
  readonly #opened: OpenFile;
  #open = true;

  constructor(disk: VirtualDisk, opened: OpenFile) {
    this.#disk = disk;
    this.#opened = opened;
    this.path = opened.path;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    await this.#begin({ kind: "read", path: this.path, position, lengthBytes: into.length });
    return this.#read(into, position);
  }

  readSync(into: Uint8Array, position: number): number {
    this.#beginSync({ kind: "read", path: this.path, position, lengthBytes: into.length });
    return this.#read(into, position);
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    const operation: DiskOperation = { kind: "write", path: this.path, position, lengthBytes: bytes.length };
    await this.#opened.lifeline.guard();
    await this.#disk.pace(operation);
    await this.#opened.lifeline.guard();
    this.#write(bytes, position, operation);
  }

  writeSync(bytes: Uint8Array, position: number): void {
    this.#opened.lifeline.assertAlive();
    this.#write(bytes, position, { kind: "write", path: this.path, position, lengthBytes: bytes.length });
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#begin({ kind: "truncate", path: this.path });
    this.#disk.charge(sizeBytes - this.#opened.file.sizeBytes, this.path);
    this.#opened.file.truncate(sizeBytes);
  }

  async sizeBytes(): Promise<number> {
    await this.#begin({ kind: "stat", path: this.path });
    return this.#opened.file.sizeBytes;
  }

  async sync(): Promise<void> {
    const operation: DiskOperation = { kind: "sync", path: this.path };
    this.#assertOpen();
    await this.#opened.lifeline.guard();
    await this.#disk.pace(operation);
    await this.#opened.lifeline.guard();
    try {
      this.#disk.check(operation);
    } catch (error) {
      this.#opened.file.failSync(this.#disk.random);
      throw error;
    }
    this.#opened.file.sync();
  }

  async dataSync(): Promise<void> {
    await this.sync();
  }

  async close(): Promise<void> {
    await this.#opened.lifeline.guard();
    this.#open = false;
  }

  #read(into: Uint8Array, position: number): number {
    const { content } = this.#opened.file;
    if (position >= content.length) return 0;
    const found = content.subarray(position, position + into.length);
    into.set(found);
    return found.length;
  }

  #write(bytes: Uint8Array, position: number, operation: DiskOperation): void {
    this.#assertOpen();
    const { file, writable } = this.#opened;
    if (!writable) throw ioError(`cannot write ${this.path}: it is open for reading`, this.path);
    let accepted = bytes;
    try {
      this.#disk.check(operation);
      this.#disk.charge(Math.max(0, position + bytes.length - file.sizeBytes), this.path);
    } catch (error) {
      // What fails in the middle leaves its beginning, inside the file's present size so that the accounts stay right.
      accepted = bytes.subarray(0, Math.min(this.#disk.random.below(bytes.length + 1), Math.max(0, file.sizeBytes - position)));
      throw error;
    } finally {
      if (accepted.length > 0) file.write(accepted, position);
      file.modifiedMs = this.#disk.clock.wallMs();
    }
  }

  async #begin(operation: DiskOperation): Promise<void> {
    this.#assertOpen();
    await this.#opened.lifeline.guard();
    await this.#disk.pace(operation);
    await this.#opened.lifeline.guard();
    this.#disk.check(operation);
  }

  #beginSync(operation: DiskOperation): void {
    this.#opened.lifeline.assertAlive();
    this.#assertOpen();
    this.#disk.check(operation);
  }

  #assertOpen(): void {
    if (!this.#open) throw new InvariantError(`${this.path} is used after it was closed`);
  }
}

function usedBytes(directory: VirtualDirectory): number {
  let total = 0;
  for (const node of directory.entries.values()) total += node instanceof VirtualDirectory ? usedBytes(node) : node.sizeBytes;
  return total;
}

function notFound(path: string): StrataError {
  return new StrataError("not-found", "file-not-found", `${path} does not exist`, { details: { path } });
}

function ioError(message: string, path: string): StrataError {
  return new StrataError("unavailable", "io-error", message, { details: { path } });
}

function diskFull(path: string): StrataError {
  return new StrataError("unavailable", "disk-full", `no space left for ${path}`, { details: { path } });
}
