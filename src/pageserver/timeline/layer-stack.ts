/**
 * All layers of a timeline: the open one, frozen ones on their way to disk, and those with files. Changes here are
 * synchronous, so a reader between two steps sees each change whole.
 */
import { invariant } from "../../kit/errors.ts";
import type { TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Key } from "../../keyspace/key.ts";
import type { InMemoryLayer } from "../layers/in-memory-layer.ts";
import type { Layer } from "../layers/layer.ts";
import { LayerMap } from "../layers/layer-map.ts";

/** Pages of a timeline in the page cache, for branches that read through it. */
export interface CachedPages {
  /** Copies the page as of `lsn`, if it is there; returns the LSN of its newest change, or -1. */
  copyExact(key: Key, lsn: Lsn, into: Uint8Array): Lsn;
  /** Keeps a page; false when it is none to be kept. @param read.fromLsn LSN of the newest change that is in the page */
  keep(key: Key, read: { readonly page: Uint8Array; readonly fromLsn: Lsn; readonly lsn: Lsn }): boolean;
}

/** What reads see of a timeline. */
export interface ReadSource {
  readonly timelineId: TimelineId;
  readonly stack: LayerStack;
  /** Absent: nothing of it is cached. */
  readonly pages?: CachedPages;
  /** The timeline below, ready for reads at its branch LSN; null at a root. @throws StrataError retry, unavailable */
  ancestorSource(signal?: AbortSignal): Promise<{ readonly source: ReadSource; readonly lsn: Lsn }> | null;
  /** The same when there is one and no waiting is needed; else null. */
  ancestorSourceNow(): { readonly source: ReadSource; readonly lsn: Lsn } | null;
}

export class LayerStack {
  readonly map = new LayerMap<Layer>();
  #open: InMemoryLayer | null = null;
  /** Oldest first. */
  readonly #frozen: InMemoryLayer[] = [];
  #flushedEndLsn: Lsn = 0;

  get open(): InMemoryLayer | null {
    return this.#open;
  }

  get frozen(): readonly InMemoryLayer[] {
    return this.#frozen;
  }

  /** Values that were in memory since the start and are in files now lie below it. */
  get flushedEndLsn(): Lsn {
    return this.#flushedEndLsn;
  }

  setOpen(layer: InMemoryLayer): void {
    invariant(this.#open === null, "one open layer at a time");
    this.#open = layer;
  }

  /** Takes the open layer away, for a timeline that ends. */
  takeOpen(): InMemoryLayer | null {
    const layer = this.#open;
    this.#open = null;
    return layer;
  }

  /** The open layer becomes the youngest frozen one. */
  freeze(endLsn: Lsn): void {
    const layer = this.#open;
    invariant(layer !== null, "there is an open layer to freeze");
    layer.freeze(endLsn);
    this.#frozen.push(layer);
    this.#open = null;
  }

  /** The oldest frozen layer is now `layer`. */
  replaceFrozen(frozen: InMemoryLayer, layer: Layer): void {
    invariant(this.#frozen[0] === frozen, "frozen layers are flushed in order");
    this.#frozen.shift();
    this.#flushedEndLsn = Math.max(this.#flushedEndLsn, frozen.endLsn ?? 0);
    this.map.add(layer);
  }

  replaceLayers(removed: readonly Layer[], added: readonly Layer[]): void {
    for (const layer of removed) this.map.remove(layer);
    for (const layer of added) this.map.add(layer);
  }

  /** The youngest in-memory layer that holds LSNs below `endLsn`. */
  memoryLayerBelow(endLsn: Lsn): InMemoryLayer | null {
    if (this.#open !== null && this.#open.startLsn < endLsn) return this.#open;
    for (let i = this.#frozen.length - 1; i >= 0; i--) if (this.#frozen[i].startLsn < endLsn) return this.#frozen[i];
    return null;
  }

  /** Whether a layer in memory has a change of the key at an LSN above one and up to another. */
  changesInMemory(key: Key, above: Lsn, upTo: Lsn): boolean {
    if (this.#open !== null && this.#open.hasChange(key, above, upTo)) return true;
    for (const layer of this.#frozen) if (layer.hasChange(key, above, upTo)) return true;
    return false;
  }

  get memoryBytes(): number {
    return (this.#open?.memoryBytes ?? 0) + this.#frozen.reduce((sum, layer) => sum + layer.memoryBytes, 0);
  }
}
