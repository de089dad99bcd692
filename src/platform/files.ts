/**
 * Files, passed in. Durability is explicit: written bytes survive a crash only after `sync`/`dataSync` on the file,
 * and a create, rename or unlink only after `syncDirectory` on its directory. The virtual disk enforces both.
 *
 * Errors: StrataError with code `file-not-found` (not-found), `file-exists` (conflict), `disk-full` (unavailable),
 * `io-error` (unavailable), each with the path in `details.path` and the system error as cause.
 */
export type OpenMode =
  /** existing file, reads only */
  | "read"
  /** existing file, reads and writes */
  | "read-write"
  /** created if missing, kept if present, reads and writes */
  | "create"
  /** must not exist */
  | "create-new"
  /** created or emptied */
  | "truncate";

export interface FileStat {
  readonly sizeBytes: number;
  readonly isDirectory: boolean;
  readonly modifiedMs: number;
}

export interface FileHandle {
  readonly path: string;
  /** Reads up to `into.length` bytes at `position`; returns the count, short only at end of file. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** The same without a promise: for cached reads on hot paths. */
  readSync(into: Uint8Array, position: number): number;
  /** Writes all of `bytes` at `position`, extending the file as needed; or throws, leaving any prefix written. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  writeSync(bytes: Uint8Array, position: number): void;
  truncate(sizeBytes: number): Promise<void>;
  sizeBytes(): Promise<number>;
  /** fsync: data and metadata. */
  sync(): Promise<void>;
  /** fdatasync: data, and the size where it changed. */
  dataSync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileSystem {
  open(path: string, mode: OpenMode): Promise<FileHandle>;
  readFile(path: string): Promise<Uint8Array>;
  stat(path: string): Promise<FileStat>;
  exists(path: string): Promise<boolean>;
  /** Names (not paths) in the directory, sorted. */
  list(path: string): Promise<string[]>;
  /** Creates the directory and its missing parents. */
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Removes a directory and all it holds; a missing one is no error. */
  removeTree(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  /** Takes an exclusive advisory lock on `path` (created if missing) until released or the process ends.
   *  @throws StrataError conflict `directory-locked` naming the path when another process holds it */
  lock(path: string): Promise<{ release(): Promise<void> }>;
}
