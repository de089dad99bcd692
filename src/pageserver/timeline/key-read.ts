/**
 * The state of one key's read: how far down it has come (`end`: LSNs below it are still to be looked at), what it has
 * found, and where it may stop (`floor`: at a page of the cache that is right up to there).
 */
import { invariant } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { type Key, keyToBytes } from "../../keyspace/key.ts";
import type { StoredValue } from "../layers/delta-layer.ts";
import { InMemoryLayer } from "../layers/in-memory-layer.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import type { CachedPage } from "../layers/page-cache.ts";
import type { ReadSource } from "./layer-stack.ts";

/** Layers named in a missing-key error. */
const VISITED_TOLD = 16;

export class KeyRead {
  readonly key: Key;
  source: ReadSource;
  /** Exclusive. */
  end: Lsn;
  /** Nothing below it is needed: `cached` has it. 0 without. */
  readonly floor: Lsn;
  readonly cached: CachedPage | null;
  /** Newest first. */
  readonly values: StoredValue[] = [];
  base: Uint8Array | null = null;
  /** LSN of the image layer that `base` is from, or the LSN from which the cached page is right. */
  baseLsn: Lsn = 0;
  error: unknown = null;
  done = false;
  depth = 0;
  vanished = 0;
  /** The first ones. */
  readonly #visited: (Layer | InMemoryLayer)[] = [];
  #keyBytes: Uint8Array | null = null;

  constructor(key: Key, source: ReadSource, from: { readonly end: Lsn; readonly cached: CachedPage | null }) {
    this.key = key;
    this.source = source;
    this.end = from.end;
    this.cached = from.cached;
    this.floor = from.cached === null ? 0 : from.cached.knownTo + 1;
  }

  fail(error: unknown): void {
    this.error = error;
    this.done = true;
  }

  visit(layer: Layer | InMemoryLayer): void {
    this.depth++;
    if (this.#visited.length < VISITED_TOLD) this.#visited.push(layer);
  }

  get visited(): string {
    return this.#visited.map((layer) => (layer instanceof InMemoryLayer ? `in-memory ${lsnToString(layer.startLsn)}` : layer.toString())).join(", ");
  }

  /** As layer indexes have it. */
  get keyBytes(): Uint8Array {
    return (this.#keyBytes ??= keyToBytes(this.key));
  }

  /** LSN of the newest thing found. */
  get newestLsn(): Lsn {
    return this.values.length > 0 ? this.values[0].lsn : this.baseLsn;
  }

  takeImage(image: Uint8Array, lsn: Lsn): void {
    this.base = image;
    this.baseLsn = lsn;
    this.done = true;
  }

  /** Ends the search at the cached page when all above it has been looked at. */
  stopAtCached(nextEnd: Lsn): boolean {
    if (this.cached === null || nextEnd > this.floor) return false;
    this.takeImage(this.cached.page, this.cached.fromLsn);
    return true;
  }
}

export interface Step {
  readonly layer: Layer | InMemoryLayer;
  readonly floor: Lsn;
}

/** The layer a key is to be read from next in its timeline; null when there is none, or the read is done. */
export function nextLayer(read: KeyRead): Step | null {
  if (read.stopAtCached(read.end)) return null;
  const { stack } = read.source;
  const memory = stack.memoryLayerBelow(read.end);
  if (memory !== null) return { layer: memory, floor: Math.max(memory.startLsn, read.floor) };
  const found = stack.map.search(read.key, read.end);
  if (found === null) return null;
  invariant(found.lsnFloor < read.end, "every step goes down");
  if (read.stopAtCached(layerLsnRange(found.layer.name).end)) return null;
  return { layer: found.layer, floor: Math.max(found.lsnFloor, read.floor) };
}
