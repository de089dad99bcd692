/**
 * A timeline's pages in the page cache. What makes a cached page right:
 *
 * - A page made at LSN L from a newest change at LSN F is the page at every LSN in [F, L]: readable history never changes.
 * - It is right up to a later LSN M as well if nothing changed it in (L, M]. All values above what layer files hold are in
 *   memory: when the files end at or below L, a look at the layers in memory tells, and the cache remembers M.
 * - Else it is still a base: what lies in (L, M] is read from layers and applied to it. Only with L at or above the GC
 *   cutoff, since below it changes may be gone that no layer needs any more.
 *
 * - A branch sees its ancestor as of the branch point: where it has no change itself, the ancestor's page is its page.
 *
 * Pages are kept of this life of the timeline only (`owner`), of LSNs that are readable, not below the GC cutoff or the
 * branch point. So nothing needs to be invalidated: not by ingest, flushes, compaction, GC or eviction of layers.
 */
import type { Lsn } from "../../kit/lsn.ts";
import type { Key } from "../../keyspace/key.ts";
import { CACHED_PAGE_SIZE, type CachedPage, type PageCache } from "../layers/page-cache.ts";
import type { CachedPages, LayerStack } from "./layer-stack.ts";

/** What this needs of a timeline. */
export interface CachedTimeline {
  readonly stack: LayerStack;
  readonly lastRecordLsn: Lsn;
  readonly diskConsistentLsn: Lsn;
  readonly gcCutoffLsn: Lsn;
  readonly ancestor: { readonly lsn: Lsn } | null;
}

export class PageReads implements CachedPages {
  readonly #cache: PageCache;
  readonly #timeline: CachedTimeline;
  readonly #owner: number;
  #ended = false;

  constructor(cache: PageCache, timeline: CachedTimeline) {
    this.#cache = cache;
    this.#timeline = timeline;
    this.#owner = cache.newOwner();
  }

  /** Copies the page as of `lsn`, if it is there. */
  copyInto(key: Key, lsn: Lsn, target: { readonly bytes: Uint8Array; readonly at: number }): boolean {
    const cache = this.#cache;
    cache.accesses++;
    const slot = this.#slotFrom(key, lsn);
    if (slot < 0 || lsn > cache.knownTo[slot]) return false;
    cache.hits++;
    cache.copyInto(slot, target.bytes, target.at);
    return true;
  }

  copyExact(key: Key, lsn: Lsn, into: Uint8Array): Lsn {
    const cache = this.#cache;
    const slot = this.#slotFrom(key, lsn);
    if (slot < 0 || lsn > cache.knownTo[slot]) return -1;
    // The access was counted where the read began.
    cache.hits++;
    cache.copyInto(slot, into, 0);
    return cache.fromLsn[slot];
  }

  /** As `base`, for who has not asked `copyInto` before. */
  lookUp(key: Key, lsn: Lsn): CachedPage | null {
    const cache = this.#cache;
    cache.accesses++;
    const found = this.base(key, lsn);
    if (found !== null && found.knownTo === lsn) cache.hits++;
    return found;
  }

  /** The page as of an LSN up to `lsn`, for what is above to be applied to it; a copy of the caller's own. */
  base(key: Key, lsn: Lsn): CachedPage | null {
    const cache = this.#cache;
    const slot = this.#slotFrom(key, lsn);
    if (slot < 0) return null;
    const knownTo = Math.min(lsn, cache.knownTo[slot]);
    if (knownTo < lsn && knownTo < this.#timeline.gcCutoffLsn) return null;
    if (knownTo < lsn) cache.bases++;
    const page = new Uint8Array(CACHED_PAGE_SIZE);
    cache.copyInto(slot, page, 0);
    return { page, fromLsn: cache.fromLsn[slot], knownTo };
  }

  /** The key's slot if it is right from `lsn` or before, with `knownTo` as high as can be told at once; or -1. */
  #slotFrom(key: Key, lsn: Lsn): number {
    const cache = this.#cache;
    if (this.#ended || lsn > this.#timeline.lastRecordLsn) return -1;
    const slot = cache.find(this.#owner, key);
    if (slot < 0 || lsn < cache.fromLsn[slot]) return -1;
    const knownTo = cache.knownTo[slot];
    if (lsn > knownTo && knownTo + 1 >= this.#filesEndLsn && !this.#timeline.stack.changesInMemory(key, knownTo, lsn)) cache.knownTo[slot] = lsn;
    return slot;
  }

  /** Whether GC has passed a base on which a read at `lsn` was built: changes between the two may be gone. */
  isOvertaken(base: CachedPage | null, lsn: Lsn): boolean {
    return base !== null && base.knownTo < lsn && base.knownTo < this.#timeline.gcCutoffLsn;
  }

  /** Every value in a file lies below. */
  get #filesEndLsn(): Lsn {
    return Math.max(this.#timeline.diskConsistentLsn + 1, this.#timeline.stack.flushedEndLsn);
  }

  keep(key: Key, read: { readonly page: Uint8Array; readonly fromLsn: Lsn; readonly lsn: Lsn }): boolean {
    const { lastRecordLsn, gcCutoffLsn, ancestor } = this.#timeline;
    const { page, fromLsn, lsn } = read;
    if (this.#ended || page.length !== CACHED_PAGE_SIZE || lsn > lastRecordLsn || lsn < gcCutoffLsn || (ancestor !== null && lsn < ancestor.lsn)) return false;
    this.#cache.put(this.#owner, key, { page, fromLsn, knownTo: lsn });
    return true;
  }

  /** The timeline ends. */
  end(): void {
    this.#ended = true;
    this.#cache.dropOwner(this.#owner);
  }
}
