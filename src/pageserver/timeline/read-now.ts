/**
 * One key's read without waiting: the way of most page reads, whose layers are local and whose blocks are in memory. It
 * gives up as soon as something would have to be waited for, or goes wrong: then the vectored read starts anew, and it alone
 * downloads, repairs and tells errors.
 */
import type { Lsn } from "../../kit/lsn.ts";
import { encodeKeyInto, type Key, KEY_SIZE } from "../../keyspace/key.ts";
import { isInheritedKey, isSparseKey } from "../../keyspace/mapping.ts";
import { readDeltaNow } from "../layers/delta-layer.ts";
import { FoundValues } from "../layers/found-values.ts";
import { readImageNow } from "../layers/image-layer.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import { CACHED_PAGE_SIZE, type CachedPage } from "../layers/page-cache.ts";
import type { CachedPages, ReadSource } from "./layer-stack.ts";

const NOW_MAX_DEPTH = 200;
/** An ancestor's page from the cache, for the read under way. */
const inherited = new Uint8Array(CACHED_PAGE_SIZE);

export interface NowReadStart {
  readonly lsn: Lsn;
  readonly cached: CachedPage | null;
  /** Whether cached pages of ancestors serve as well. */
  readonly usesCache: boolean;
}

class NowRead {
  readonly found = new FoundValues();
  /** What the values are applied to; shared memory. */
  base: Uint8Array | null = null;
  /** LSN of the newest change found. */
  newestLsn: Lsn = 0;
  depth = 0;
  /**
   * Whose page it is as well, and as of which LSN: an ancestor's, when no layer above it was there to be looked into. Kept there it
   * serves all branches.
   */
  keeper: CachedPages | null = null;
  keeperLsn: Lsn = 0;
  readonly keyBytes = new Uint8Array(KEY_SIZE);
  readonly #keyView = new DataView(this.keyBytes.buffer);
  /** LSNs in [floor, end) are to be read from the layer that is looked at; `end` falls to `floor` then. */
  floor: Lsn = 0;
  end: Lsn = 0;
  #cached: CachedPage | null = null;
  /** Nothing below it is needed: `#cached` has it. */
  #bottom: Lsn = 0;
  #hasKeyBytes = false;
  #usesCache = false;
  #done = false;

  /** True when everything was found that makes the value of `key` as of `lsn`. */
  run(source: ReadSource, key: Key, from: NowReadStart): boolean {
    this.found.clear();
    this.base = null;
    this.newestLsn = 0;
    this.depth = 0;
    this.keeper = null;
    this.end = from.lsn + 1;
    this.#usesCache = from.usesCache;
    this.#cached = from.cached;
    this.#bottom = from.cached === null ? 0 : from.cached.knownTo + 1;
    this.#hasKeyBytes = false;
    this.#done = false;
    try {
      let at: ReadSource | null = source;
      while (at !== null && !this.#done) {
        if (!this.#descend(at, key)) return false;
        at = this.#done ? null : this.#below(at, key);
      }
      if (!this.#done) return false;
      if (this.found.count > 0) this.newestLsn = this.found.lsns[0];
      return true;
    } catch {
      // Whatever it is, the vectored read meets it again.
      return false;
    }
  }

  #below(source: ReadSource, key: Key): ReadSource | null {
    const below = isInheritedKey(key) ? source.ancestorSourceNow() : null;
    if (below === null) return null;
    this.end = Math.min(this.end, below.lsn + 1);
    // With a cached page of its own the read ends at that.
    if (this.#usesCache && this.#cached === null && below.source.pages !== undefined) this.#lookInCache(below.source.pages, key);
    return below.source;
  }

  #lookInCache(pages: CachedPages, key: Key): void {
    const lsn = this.end - 1;
    if (this.depth === 0) {
      this.keeper = pages;
      this.keeperLsn = lsn;
    }
    const fromLsn = pages.copyExact(key, lsn, inherited);
    if (fromLsn < 0) return;
    this.base = inherited;
    this.newestLsn = fromLsn;
    this.#done = true;
  }

  /** Goes down one timeline; false when something has to be waited for. */
  #descend(source: ReadSource, key: Key): boolean {
    const { stack } = source;
    while (!this.#done && !this.#stopAtCached(this.end)) {
      const memory = stack.memoryLayerBelow(this.end);
      if (memory !== null) {
        this.floor = Math.max(memory.startLsn, this.#bottom);
        if (!memory.readNow(key, this, this.found)) return false;
      } else {
        const next = stack.map.search(key, this.end);
        if (next === null) return true;
        if (this.#stopAtCached(layerLsnRange(next.layer.name).end)) return true;
        this.floor = Math.max(next.lsnFloor, this.#bottom);
        if (!this.#visitFile(next.layer, key)) return false;
      }
      if (++this.depth > NOW_MAX_DEPTH) return false;
      if (this.found.isWhole) this.#done = true;
      this.end = this.floor;
    }
    return true;
  }

  #stopAtCached(nextEnd: Lsn): boolean {
    if (this.#cached === null || nextEnd > this.#bottom) return false;
    this.base = this.#cached.page;
    this.newestLsn = this.#cached.fromLsn;
    this.#done = true;
    return true;
  }

  #visitFile(layer: Layer, key: Key): boolean {
    const file = layer.fileNow();
    if (file === null) return false;
    if (!this.#hasKeyBytes) {
      encodeKeyInto(key, this.#keyView, 0);
      this.#hasKeyBytes = true;
    }
    if (layer.name.kind === "delta") return readDeltaNow(file, this, this.found);
    const image = readImageNow(file, this.keyBytes);
    if (image === null) return false;
    // What a sparse key lacks in an image was removed before: the vectored read says so.
    if (image === undefined) return !isSparseKey(key);
    this.base = image;
    this.newestLsn = layer.name.lsn;
    this.#done = true;
    return true;
  }
}

/** The one there is: it is run, and its result used, without waiting in between. */
export const nowRead = new NowRead();
