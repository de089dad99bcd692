/**
 * The newest changes, before they become an L0 delta layer. Open: takes values in rising LSN order. Frozen: covers
 * [startLsn, endLsn), is only read, and is written out by the flush loop.
 */
import { copyBytes } from "../../kit/copy.ts";
import { invariant, StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ValueBatch } from "../../interpret/value-batch.ts";
import { type Key, type KeyRange, rangeContains } from "../../keyspace/key.ts";
import { isSparseKey } from "../../keyspace/mapping.ts";
import type { KeyQuery, StoredValue } from "./delta-layer.ts";
import type { EphemeralFile, EphemeralPlace } from "./ephemeral-file.ts";
import type { FoundValues } from "./found-values.ts";
import type { FrozenContent } from "./frozen-content.ts";
import { KeyIndex } from "./key-index.ts";

/** Offsets are u32. */
export const IN_MEMORY_LAYER_MAX_BYTES = 0xf000_0000;

/** More are read in runs, by `read`. */
const READ_NOW_MAX_VALUES = 24;

export class InMemoryLayer {
  readonly startLsn: Lsn;
  /** When the first value came, for the checkpoint timeout. */
  readonly openedMs: number;
  readonly #file: EphemeralFile;
  readonly #index = new KeyIndex();
  #endLsn: Lsn | null = null;
  #maxLsn: Lsn = 0;
  /** Few among millions: found without a look at all keys. */
  readonly #sparseKeys: Key[] = [];
  #readers = 0;
  #discarded = false;
  /** Set while `discard` waits for the last reader. */
  #idle: (() => void) | null = null;

  constructor(options: { readonly startLsn: Lsn; readonly file: EphemeralFile; readonly openedMs: number }) {
    this.startLsn = options.startLsn;
    this.#file = options.file;
    this.openedMs = options.openedMs;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  get memoryBytes(): number {
    return this.#file.memoryBytes + this.#index.memoryBytes;
  }

  /** Of the index alone, which stays in memory until the layer is flushed. */
  get indexBytes(): number {
    return this.#index.memoryBytes;
  }

  get versionCount(): number {
    return this.#index.versionCount;
  }

  /** Exclusive; null while open. */
  get endLsn(): Lsn | null {
    return this.#endLsn;
  }

  /** Highest LSN put so far. */
  get maxLsn(): Lsn {
    return this.#maxLsn;
  }

  /**
   * Takes a copy of all of it. LSNs rise, from batch to batch too, except that what lies above `readableLsn` may come again: after an
   * error whoever put it begins anew there.
   */
  putBatch(batch: ValueBatch, readableLsn: Lsn): void {
    invariant(this.#endLsn === null && batch.lsns[0] >= this.startLsn, "values go to the open layer, at or above its start");
    if (batch.lsns[0] < this.#maxLsn) {
      this.#index.forgetAbove(readableLsn);
      this.#maxLsn = Math.min(this.#maxLsn, readableLsn);
    }
    const base = this.#file.append(batch.bytes, batch.byteLength);
    this.#index.addBatch(batch, base, this.#newKey);
    this.#file.setBesideBytes(this.#index.memoryBytes);
    this.#maxLsn = Math.max(this.#maxLsn, batch.lsns[batch.count - 1]);
  }

  readonly #newKey = (row: number): void => {
    const key = this.#index.keyAt(row);
    if (isSparseKey(key)) this.#sparseKeys.push(key);
  };

  /**
   * Forgets values above `lsn`, which were never readable: when the timeline ends in the middle of a record, which will
   * come again. Something must be left.
   */
  truncateTo(lsn: Lsn): void {
    invariant(this.#endLsn === null && this.startLsn <= lsn, "an open layer keeps its first value");
    this.#maxLsn = Math.min(this.#maxLsn, lsn);
  }

  freeze(endLsn: Lsn): void {
    invariant(this.#endLsn === null && endLsn > this.#maxLsn, "an open layer is frozen above its last value");
    this.#endLsn = endLsn;
  }

  /**
   * Newest first, down to the first value that needs nothing below; an array for each query.
   * @throws StrataError not-found `layer-deleted`: look again, its content is in a layer file now
   */
  async read(queries: readonly KeyQuery[]): Promise<StoredValue[][]> {
    if (this.#discarded) throw new StrataError("not-found", "layer-deleted", "the in-memory layer was flushed and discarded");
    this.#readers++;
    try {
      return await this.#read(queries);
    } finally {
      this.#readers--;
      if (this.#readers === 0) this.#idle?.();
    }
  }

  /** Whether the key changed at an LSN above one and up to another. */
  hasChange(key: Key, above: Lsn, upTo: Lsn): boolean {
    if (this.#maxLsn <= above || this.startLsn > upTo) return false;
    const { lsns, older } = this.#index;
    for (let at = this.#index.head(key); at >= 0 && lsns[at] > above; at = older[at]) if (lsns[at] <= upTo) return true;
    return false;
  }

  /**
   * `read` for one key, without waiting; values are added to `into`. False when that cannot be (many values, or some in more than
   * one place): then `into` is not to be used.
   */
  readNow(key: Key, { floor, end }: { readonly floor: Lsn; readonly end: Lsn }, into: FoundValues): boolean {
    if (this.#discarded) return false;
    const { lsns, older, offsets, lengths, willInit } = this.#index;
    let values = 0;
    for (let at = this.#index.head(key); at >= 0 && lsns[at] >= floor; at = older[at]) {
      if (lsns[at] >= end) continue;
      if (into.isFull || values++ === READ_NOW_MAX_VALUES) return false;
      const bytes = this.#file.readNow(offsets[at], lengths[at]);
      if (bytes === null) return false;
      const to = into.add(lsns[at], willInit[at] === 1, bytes.length);
      copyBytes(bytes, 0, into.bytes, to, bytes.length);
      if (willInit[at] === 1) break;
    }
    return true;
  }

  async #read(queries: readonly KeyQuery[]): Promise<StoredValue[][]> {
    const index = this.#index;
    const places: (EphemeralPlace & { readonly query: number; readonly lsn: Lsn; readonly willInit: boolean })[] = [];
    for (let query = 0; query < queries.length; query++) {
      const { key, lsnFloor, lsnEnd } = queries[query];
      for (let at = index.head(key); at >= 0 && index.lsns[at] >= lsnFloor; at = index.older[at]) {
        if (index.lsns[at] >= lsnEnd) continue;
        const willInit = index.willInit[at] === 1;
        places.push({ query, lsn: index.lsns[at], willInit, offset: index.offsets[at], length: index.lengths[at] });
        if (willInit) break;
      }
    }
    const values = await this.#file.readMany(places);
    const results: StoredValue[][] = queries.map(() => []);
    for (let i = 0; i < places.length; i++) {
      const { query, lsn, willInit } = places[i];
      results[query].push({ lsn, willInit, bytes: values[i] });
    }
    return results;
  }

  /** Sparse keys in `range` that have a version below `endLsn`, in no order. */
  sparseKeysIn(range: KeyRange, endLsn: Lsn): Key[] {
    return this.#sparseKeys.filter((key) => {
      if (!rangeContains(range, key)) return false;
      let at = this.#index.head(key);
      while (at >= 0 && this.#index.lsns[at] >= endLsn) at = this.#index.older[at];
      return at >= 0;
    });
  }

  /** Runs `work` over everything in it as plain data, for a worker too. */
  withContent<T>(work: (content: FrozenContent) => Promise<T>): Promise<T> {
    const endLsn = this.#endLsn;
    invariant(endLsn !== null && this.#index.versionCount > 0, "a frozen layer with content is flushed");
    const lsnRange = { start: this.startLsn, end: endLsn };
    return this.#file.withContent((values) => work({ columns: this.#index.columns, values, lsnRange, maxLsn: this.#maxLsn }));
  }

  /** Gives the disk space back once nobody reads any more; reads that begin after this fail. */
  async discard(): Promise<void> {
    this.#discarded = true;
    if (this.#readers > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#file.discard();
  }
}
