/**
 * Cache of whole pages, as reads made them: bounded in bytes, the least used out first (by a clock hand). One serves a whole
 * pageserver. Everything lies in typed columns: a slot is a row of them and 8 KiB of a chunk, so a million pages cost the
 * garbage collector nothing.
 *
 * A slot says: the page of `key`, of timeline `owner`, is these bytes at every LSN in [fromLsn, knownTo]. History below an
 * LSN that is readable never changes, so a slot never becomes wrong; it becomes old, when `knownTo` is less than what is
 * asked for. What is needed to go on from there is the reader's business (see timeline/page-reads.ts).
 */
import { allocateBytes } from "../../kit/buffers.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { copyBytes } from "../../kit/copy.ts";
import type { Key } from "../../keyspace/key.ts";

export const CACHED_PAGE_SIZE = 8192;
/** Four key words, the fields 1 and 5 in one, the owner. */
const WORDS = 6;
/** Columns of a slot, and its share of the buckets. */
const SLOT_OVERHEAD_BYTES = WORDS * 4 + 8 + 8 + 1 + 4 + 8;
const CHUNK_SLOTS = 256;
const NONE = -1;
const OWNER_NOBODY = 0;

export interface CachedPage {
  readonly page: Uint8Array;
  readonly fromLsn: Lsn;
  readonly knownTo: Lsn;
}

export class PageCache {
  readonly slotCount: number;
  /** First LSN at which a slot's page is known to be right. */
  readonly fromLsn: Float64Array;
  /** Last such LSN. */
  readonly knownTo: Float64Array;
  readonly #words: Uint32Array;
  /** Set by a hit, cleared by the hand. */
  readonly #used: Uint8Array;
  /** First slot of each chain, by hash; chained by `#next`. */
  readonly #buckets: Int32Array;
  readonly #next: Int32Array;
  /** Pages; made when their first slot is taken. */
  readonly #chunks: Uint8Array[] = [];
  #filled = 0;
  #hand = 0;
  #nextOwner = OWNER_NOBODY + 1;
  accesses = 0;
  hits = 0;
  /** Accesses that found a page of an earlier LSN, to which what came after was applied. */
  bases = 0;

  constructor(options: { readonly capacityBytes: number }) {
    const slots = Math.max(16, Math.floor(options.capacityBytes / (CACHED_PAGE_SIZE + SLOT_OVERHEAD_BYTES)));
    this.slotCount = slots;
    this.fromLsn = new Float64Array(slots);
    this.knownTo = new Float64Array(slots);
    this.#words = new Uint32Array(slots * WORDS);
    this.#used = new Uint8Array(slots);
    this.#next = new Int32Array(slots).fill(NONE);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(slots + 1))).fill(NONE);
  }

  get maxBytes(): number {
    return this.slotCount * CACHED_PAGE_SIZE;
  }

  get sizeBytes(): number {
    return this.#filled * CACHED_PAGE_SIZE;
  }

  /** A name for one life of a timeline: pages of an earlier one, whose tail may have come again differently, are never found. */
  newOwner(): number {
    return this.#nextOwner++;
  }

  #bucketOf(owner: number, key: Key): number {
    let h = Math.imul(key.field6 ^ 0x9e3779b9, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15) ^ key.field4, 0xc2b2ae35);
    h = Math.imul(h ^ (h >>> 13) ^ owner ^ (key.field3 << 7), 0x27d4eb2f);
    return (h ^ (h >>> 15)) & (this.#buckets.length - 1);
  }

  #holds(slot: number, owner: number, key: Key): boolean {
    const w = this.#words;
    const at = slot * WORDS;
    return w[at] === key.field6 && w[at + 1] === key.field4 && w[at + 5] === owner && w[at + 4] === kindAndFork(key) && w[at + 3] === key.field2 && w[at + 2] === key.field3;
  }

  /** The slot of a key, whatever LSNs it is good for; -1 when there is none. */
  find(owner: number, key: Key): number {
    for (let slot = this.#buckets[this.#bucketOf(owner, key)]; slot !== NONE; slot = this.#next[slot]) if (this.#holds(slot, owner, key)) return slot;
    return NONE;
  }

  /** Copies a slot's page; it counts as used. */
  copyInto(slot: number, into: Uint8Array, at: number): void {
    this.#used[slot] = 1;
    copyBytes(this.#chunks[Math.floor(slot / CHUNK_SLOTS)], (slot % CHUNK_SLOTS) * CACHED_PAGE_SIZE, into, at, CACHED_PAGE_SIZE);
  }

  /** Keeps a copy of a page. A slot that knows of a later LSN stays as it is. */
  put(owner: number, key: Key, { page, fromLsn, knownTo }: CachedPage): void {
    const known = this.find(owner, key);
    if (known !== NONE && this.knownTo[known] >= knownTo) return;
    const slot = known === NONE ? this.#newSlot(owner, key) : known;
    this.fromLsn[slot] = fromLsn;
    this.knownTo[slot] = knownTo;
    copyBytes(page, 0, this.#chunks[Math.floor(slot / CHUNK_SLOTS)], (slot % CHUNK_SLOTS) * CACHED_PAGE_SIZE, CACHED_PAGE_SIZE);
  }

  #newSlot(owner: number, key: Key): number {
    const slot = this.#filled < this.slotCount ? this.#filled++ : this.#victim();
    const chunk = Math.floor(slot / CHUNK_SLOTS);
    if (chunk === this.#chunks.length) this.#chunks.push(allocateBytes(Math.min(CHUNK_SLOTS, this.slotCount - slot) * CACHED_PAGE_SIZE));
    this.#words.set([key.field6, key.field4, key.field3, key.field2, kindAndFork(key), owner], slot * WORDS);
    const bucket = this.#bucketOf(owner, key);
    this.#next[slot] = this.#buckets[bucket];
    this.#buckets[bucket] = slot;
    return slot;
  }

  /** Where the hand stops: a slot not used since it last came by. */
  #victim(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.slotCount ? 0 : slot + 1;
      if (this.#used[slot] === 1) {
        this.#used[slot] = 0;
        continue;
      }
      this.#unlink(slot);
      return slot;
    }
  }

  #unlink(slot: number): void {
    const w = this.#words;
    const at = slot * WORDS;
    if (w[at + 5] === OWNER_NOBODY) return;
    const key: Key = { field6: w[at], field4: w[at + 1], field3: w[at + 2], field2: w[at + 3], field1: w[at + 4] >>> 8, field5: w[at + 4] & 0xff };
    const bucket = this.#bucketOf(w[at + 5], key);
    if (this.#buckets[bucket] === slot) this.#buckets[bucket] = this.#next[slot];
    else {
      let before = this.#buckets[bucket];
      while (this.#next[before] !== slot) before = this.#next[before];
      this.#next[before] = this.#next[slot];
    }
    w[at + 5] = OWNER_NOBODY;
  }

  /** A timeline has ended: its slots are found no more, and each is taken when the hand comes by next. */
  dropOwner(owner: number): void {
    for (let slot = 0; slot < this.#filled; slot++) {
      if (this.#words[slot * WORDS + 5] !== owner) continue;
      this.#unlink(slot);
      this.#used[slot] = 0;
    }
  }
}

function kindAndFork(key: Key): number {
  return (key.field1 << 8) | key.field5;
}
