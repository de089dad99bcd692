/**
 * Sizes of relation forks, kept by ingest as it changes them and filled by reads.
 *
 * Invariant: for every fork with an entry, the entry's newest size holds from its LSN on, as far as ingested; for a
 * fork without one, no change above `completeAsOf` was forgotten. So a size read from storage at an LSN may be cached
 * only when that LSN is at or above `completeAsOf`, and dropping an entry raises it. The size before the last change
 * is kept too, so that reads at the last committed LSN still hit while later records wait to be committed.
 */
import type { Lsn } from "../../kit/lsn.ts";
import type { RelTag } from "../../keyspace/relation.ts";

/** Stands for "no such fork" where a size is expected. */
export const NO_RELATION = -1;

/** Entries found last, by the low bits of their relation's number: ingest asks for each block of the log. */
const RECENT = 32;

interface Entry {
  readonly relNumber: number;
  readonly spcOid: number;
  readonly dbOid: number;
  readonly fork: number;
  lsn: Lsn;
  blocks: number;
  olderLsn: Lsn;
  olderBlocks: number;
}

/** How lookups ended; may be shared by many caches. */
export interface SizeLookups {
  hits: number;
  misses: number;
  /** Misses of forks that were known, but only of later LSNs. */
  missesOld: number;
}

export class RelationSizeCache {
  readonly #entries = new Map<number, Entry[]>();
  readonly #recent: (Entry | null)[] = Array.from({ length: RECENT }, () => null);
  readonly #maxRelations: number;
  readonly #counts: SizeLookups;
  #completeAsOf: Lsn;

  /** @param completeAsOf nothing was ingested above it yet */
  constructor(completeAsOf: Lsn, { maxRelations = 200_000, counts }: { readonly maxRelations?: number; readonly counts?: SizeLookups | undefined } = {}) {
    this.#completeAsOf = completeAsOf;
    this.#maxRelations = maxRelations;
    this.#counts = counts ?? { hits: 0, misses: 0, missesOld: 0 };
  }

  get relationCount(): number {
    return this.#entries.size;
  }

  #find(rel: RelTag): Entry | undefined {
    const recent = this.#recent[rel.relNumber % RECENT];
    if (recent !== null && recent.relNumber === rel.relNumber && recent.fork === rel.fork && recent.dbOid === rel.dbOid && recent.spcOid === rel.spcOid) return recent;
    const found = this.#search(rel);
    if (found !== undefined) this.#recent[rel.relNumber % RECENT] = found;
    return found;
  }

  #search(rel: RelTag): Entry | undefined {
    const entries = this.#entries.get(rel.relNumber);
    if (entries === undefined) return undefined;
    for (const entry of entries) {
      if (entry.fork === rel.fork && entry.dbOid === rel.dbOid && entry.spcOid === rel.spcOid) return entry;
    }
    return undefined;
  }

  /** Blocks as of `lsn`, NO_RELATION when the fork is known not to exist then, undefined when not known. */
  get(rel: RelTag, lsn: Lsn): number | undefined {
    const entry = this.#find(rel);
    const counts = this.#counts;
    if (entry !== undefined && lsn >= entry.olderLsn) {
      counts.hits++;
      return lsn >= entry.lsn ? entry.blocks : entry.olderBlocks;
    }
    counts.misses++;
    if (entry !== undefined) counts.missesOld++;
    return undefined;
  }

  /** The newest size, committed or not. */
  latest(rel: RelTag): number | undefined {
    return this.#find(rel)?.blocks;
  }

  /** Ingest changed (or, with NO_RELATION, dropped) the fork at `lsn`. */
  setByIngest(rel: RelTag, lsn: Lsn, blocks: number): void {
    const entry = this.#find(rel);
    if (entry === undefined) {
      this.#insert(rel, lsn, blocks);
      return;
    }
    if (lsn > entry.lsn) {
      entry.olderLsn = entry.lsn;
      entry.olderBlocks = entry.blocks;
      entry.lsn = lsn;
    }
    entry.blocks = blocks;
  }

  /** A read found `blocks` in storage as of `lsn`. */
  setByRead(rel: RelTag, lsn: Lsn, blocks: number): void {
    if (lsn < this.#completeAsOf) return;
    const entry = this.#find(rel);
    if (entry === undefined) this.#insert(rel, lsn, blocks);
    else if (lsn < entry.olderLsn && blocks === entry.olderBlocks) entry.olderLsn = lsn;
  }

  /** Forgets everything: what was put above `lsn` will be put again. */
  reset(lsn: Lsn): void {
    this.#entries.clear();
    this.#recent.fill(null);
    this.#completeAsOf = Math.max(this.#completeAsOf, lsn);
  }

  #insert(rel: RelTag, lsn: Lsn, blocks: number): void {
    const entry: Entry = { relNumber: rel.relNumber, spcOid: rel.spcOid, dbOid: rel.dbOid, fork: rel.fork, lsn, blocks, olderLsn: lsn, olderBlocks: blocks };
    const entries = this.#entries.get(rel.relNumber);
    if (entries !== undefined) {
      entries.push(entry);
      return;
    }
    if (this.#entries.size >= this.#maxRelations) this.#evictOldest();
    this.#entries.set(rel.relNumber, [entry]);
  }

  #evictOldest(): void {
    const oldest = this.#entries.entries().next().value;
    if (oldest === undefined) return;
    for (const entry of oldest[1]) this.#completeAsOf = Math.max(this.#completeAsOf, entry.lsn);
    this.#entries.delete(oldest[0]);
    this.#recent.fill(null);
  }
}
