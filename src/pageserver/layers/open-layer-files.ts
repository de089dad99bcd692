/** Open layer files of a whole pageserver: a bounded number of handles, least recently used closed first. */
import type { LayerFile } from "./layer-file.ts";

interface Entry {
  readonly file: Promise<LayerFile>;
  /** Set once it is open. */
  opened: LayerFile | null;
  users: number;
  /** To be closed by its last user. */
  forgotten: boolean;
}

export class OpenLayerFiles {
  readonly #maxOpen: number;
  readonly #entries = new Map<object, Entry>();

  constructor(options: { readonly maxOpen: number }) {
    this.#maxOpen = options.maxOpen;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** The file of `owner` if it is open: good until the caller waits for anything. */
  peek(owner: object): LayerFile | null {
    const entry = this.#entries.get(owner);
    if (entry === undefined || entry.opened === null) return null;
    if (this.#entries.size >= this.#maxOpen) {
      this.#entries.delete(owner);
      this.#entries.set(owner, entry);
    }
    return entry.opened;
  }

  /** Runs `work` with the file of `owner`, opened by `open` if it is not open yet; it stays open meanwhile. */
  async use<T>(owner: object, open: () => Promise<LayerFile>, work: (file: LayerFile) => Promise<T>): Promise<T> {
    const entry = this.#entries.get(owner) ?? { file: open(), opened: null, users: 0, forgotten: false };
    // To the young end of the queue.
    this.#entries.delete(owner);
    this.#entries.set(owner, entry);
    entry.users++;
    try {
      entry.opened ??= await entry.file;
      return await work(entry.opened);
    } catch (error) {
      // A file that failed to open must not be served from here; one that failed a check is opened anew.
      this.#drop(owner, entry);
      throw error;
    } finally {
      entry.users--;
      if (entry.users === 0 && entry.forgotten) await close(entry);
      if (this.#entries.size > this.#maxOpen) await this.#closeIdle();
    }
  }

  /** Closes the file of `owner`, now or when its last user is done. */
  async forget(owner: object): Promise<void> {
    const entry = this.#entries.get(owner);
    if (entry === undefined) return;
    this.#drop(owner, entry);
    if (entry.users === 0) await close(entry);
  }

  #drop(owner: object, entry: Entry): void {
    entry.forgotten = true;
    if (this.#entries.get(owner) === entry) this.#entries.delete(owner);
  }

  async #closeIdle(): Promise<void> {
    for (const [owner, entry] of this.#entries) {
      if (this.#entries.size <= this.#maxOpen) return;
      if (entry.users > 0) continue;
      this.#drop(owner, entry);
      await close(entry);
    }
  }
}

async function close(entry: Entry): Promise<void> {
  const file = await entry.file.catch(() => null);
  await file?.close().catch(() => {});
}
