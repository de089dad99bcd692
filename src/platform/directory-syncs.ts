/**
 * Syncs of directories, shared: who asks while one runs waits for the next, which covers all who asked meanwhile. One that runs
 * already may have begun before the asker's change.
 */
import type { FileSystem } from "./files.ts";

interface Syncs {
  running: Promise<void>;
  /** Begins when `running` has ended; null while nobody has asked for it. */
  next: Promise<void> | null;
}

export class DirectorySyncs {
  readonly #files: Pick<FileSystem, "syncDirectory">;
  /** Directories of which a sync runs. */
  readonly #syncs = new Map<string, Syncs>();

  constructor(files: Pick<FileSystem, "syncDirectory">) {
    this.#files = files;
  }

  /** As `FileSystem.syncDirectory`: all names that were made, moved or removed in `path` before the call are durable. */
  sync(path: string): Promise<void> {
    const known = this.#syncs.get(path);
    if (known === undefined) return this.#start(path);
    known.next ??= known.running.then(
      () => this.#start(path),
      () => this.#start(path),
    );
    return known.next;
  }

  #start(path: string): Promise<void> {
    const running = this.#files.syncDirectory(path);
    const syncs: Syncs = { running, next: null };
    this.#syncs.set(path, syncs);
    const ended = (): void => {
      if (syncs.next === null) this.#syncs.delete(path);
    };
    running.then(ended, ended);
    return running;
  }
}
