/** Time and bytes of file operations: in all by operation, bytes by timeline. `CountedFiles` tells it what passes. */
import { Histogram, type HistogramData } from "../../observability/metric-values.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileHandle, FileSystem, OpenMode } from "../../platform/files.ts";
import { IO_SECONDS } from "./bounds.ts";

export const IO_OPERATIONS = ["open", "close", "read", "write", "fsync", "metadata"] as const;
export type IoOperation = (typeof IO_OPERATIONS)[number];

export interface IoBytes {
  read: number;
  written: number;
}

/** What a job has counted, as plain data. */
export interface IoData {
  readonly seconds: Readonly<Record<IoOperation, HistogramData>>;
  readonly bytes: ReadonlyMap<string, IoBytes>;
}

const TIMELINE_PATH = /\/tenants\/([0-9a-f]{32}(?:-[0-9a-f]{4})?)\/timelines\/([0-9a-f]{32})\//;
/** Of files that are no timeline's. */
export const NO_TIMELINE = "*";

export class IoCounts {
  readonly seconds: Readonly<Record<IoOperation, Histogram>> = {
    open: new Histogram(IO_SECONDS), close: new Histogram(IO_SECONDS), read: new Histogram(IO_SECONDS), write: new Histogram(IO_SECONDS), fsync: new Histogram(IO_SECONDS), metadata: new Histogram(IO_SECONDS),
  };
  /** By shard and timeline, "<tenant shard>/<timeline>". */
  readonly bytes = new Map<string, IoBytes>();

  bytesAt(path: string): IoBytes {
    const found = TIMELINE_PATH.exec(path);
    return this.#bytesOf(found === null ? NO_TIMELINE : `${found[1]}/${found[2]}`);
  }

  #bytesOf(name: string): IoBytes {
    let known = this.bytes.get(name);
    if (known === undefined) {
      known = { read: 0, written: 0 };
      this.bytes.set(name, known);
    }
    return known;
  }

  add({ seconds, bytes }: IoData): void {
    for (const operation of IO_OPERATIONS) this.seconds[operation].add(seconds[operation]);
    for (const [name, { read, written }] of bytes) {
      const known = this.#bytesOf(name);
      known.read += read;
      known.written += written;
    }
  }

  toData(): IoData {
    return { seconds: this.seconds, bytes: this.bytes };
  }

  /** Forgets timelines that are not there any more. */
  keepOnly(isThere: (name: string) => boolean): void {
    for (const name of this.bytes.keys()) if (name !== NO_TIMELINE && !isThere(name)) this.bytes.delete(name);
  }
}

interface Counting {
  readonly clock: Clock;
  readonly counts: IoCounts;
}

async function timed<T>({ clock, counts }: Counting, operation: IoOperation, work: () => Promise<T>): Promise<T> {
  const startMs = clock.monotonicMs();
  try {
    return await work();
  } finally {
    counts.seconds[operation].recordMs(clock.monotonicMs() - startMs);
  }
}

/** A file system that counts what is done through it. */
export function countedFiles(files: FileSystem, counting: Counting): FileSystem {
  const metadata = <T>(work: () => Promise<T>): Promise<T> => timed(counting, "metadata", work);
  return {
    open: async (path: string, mode: OpenMode) => new CountedHandle(await timed(counting, "open", () => files.open(path, mode)), counting),
    readFile: async (path) => {
      const bytes = await timed(counting, "read", () => files.readFile(path));
      counting.counts.bytesAt(path).read += bytes.length;
      return bytes;
    },
    stat: (path) => metadata(() => files.stat(path)),
    exists: (path) => metadata(() => files.exists(path)),
    list: (path) => files.list(path),
    makeDirectory: (path) => files.makeDirectory(path),
    rename: (from, to) => files.rename(from, to),
    remove: (path) => files.remove(path),
    removeTree: (path) => files.removeTree(path),
    syncDirectory: (path) => timed(counting, "fsync", () => files.syncDirectory(path)),
    lock: (path) => files.lock(path),
  };
}

class CountedHandle implements FileHandle {
  readonly #handle: FileHandle;
  readonly #counting: Counting;
  readonly #bytes: IoBytes;

  constructor(handle: FileHandle, counting: Counting) {
    this.#handle = handle;
    this.#counting = counting;
    this.#bytes = counting.counts.bytesAt(handle.path);
  }

  get path(): string {
    return this.#handle.path;
  }
  async read(into: Uint8Array, position: number): Promise<number> {
    const count = await timed(this.#counting, "read", () => this.#handle.read(into, position));
    this.#bytes.read += count;
    return count;
  }
  readSync(into: Uint8Array, position: number): number {
    const { clock, counts } = this.#counting;
    const startMs = clock.monotonicMs();
    const count = this.#handle.readSync(into, position);
    counts.seconds.read.recordMs(clock.monotonicMs() - startMs);
    this.#bytes.read += count;
    return count;
  }
  async write(bytes: Uint8Array, position: number): Promise<void> {
    await timed(this.#counting, "write", () => this.#handle.write(bytes, position));
    this.#bytes.written += bytes.length;
  }
  writeSync(bytes: Uint8Array, position: number): void {
    const { clock, counts } = this.#counting;
    const startMs = clock.monotonicMs();
    this.#handle.writeSync(bytes, position);
    counts.seconds.write.recordMs(clock.monotonicMs() - startMs);
    this.#bytes.written += bytes.length;
  }
  truncate(sizeBytes: number): Promise<void> {
    return this.#handle.truncate(sizeBytes);
  }
  sizeBytes(): Promise<number> {
    return timed(this.#counting, "metadata", () => this.#handle.sizeBytes());
  }
  sync(): Promise<void> {
    return timed(this.#counting, "fsync", () => this.#handle.sync());
  }
  dataSync(): Promise<void> {
    return timed(this.#counting, "fsync", () => this.#handle.dataSync());
  }
  close(): Promise<void> {
    return timed(this.#counting, "close", () => this.#handle.close());
  }
}
