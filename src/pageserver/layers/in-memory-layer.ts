/**
 * The newest changes, before they become an L0 delta layer. Open: takes values in rising LSN order. Frozen: covers
 * [startLsn, endLsn), is only read, and is written out by the flush loop.
 */
import { invariant, StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { type Key, KEY_MAX, KEY_MIN, type KeyRange, rangeContains } from "../../keyspace/key.ts";
import { isSparseKey } from "../../keyspace/mapping.ts";
import type { KeyQuery, StoredValue } from "./delta-layer.ts";
import type { EphemeralFile, EphemeralPlace } from "./ephemeral-file.ts";
import { KeyIndex } from "./key-index.ts";
import { DeltaLayerWriter, type LayerTarget, type WrittenLayer } from "./layer-writer.ts";
import type { Pacer } from "./pacer.ts";

/** Offsets are u32. */
export const IN_MEMORY_LAYER_MAX_BYTES = 0xf000_0000;

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

  /** @param bytes the encoded value, copied */
  put(entry: { readonly key: Key; readonly lsn: Lsn; readonly willInit: boolean; readonly bytes: Uint8Array }): void {
    invariant(this.#endLsn === null && entry.lsn >= this.startLsn, "values go to the open layer, at or above its start");
    const offset = this.#file.append(entry.bytes);
    if (isSparseKey(entry.key) && this.#index.head(entry.key) < 0) this.#sparseKeys.push(entry.key);
    this.#index.add(entry.key, { lsn: entry.lsn, offset, length: entry.bytes.length, willInit: entry.willInit });
    this.#maxLsn = Math.max(this.#maxLsn, entry.lsn);
  }

  /** Undefined while there is room; else resolves when the disk has caught up. */
  drained(): Promise<void> | undefined {
    return this.#file.drained();
  }

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

  /** Writes everything as an L0 delta layer. The caller syncs the directory. */
  async writeTo(target: LayerTarget, pacer: Pacer): Promise<WrittenLayer> {
    const endLsn = this.#endLsn;
    invariant(endLsn !== null && this.#index.versionCount > 0, "a frozen layer with content is flushed");
    const writer = await DeltaLayerWriter.create(target);
    try {
      const values = await this.#file.read(0, this.#file.sizeBytes);
      const rows = await this.#index.sortedRows(pacer);
      for (let i = 0; i < rows.length; i++) {
        const wait = this.#writeKey(rows[i], values, writer) ?? pacer.pause();
        if (wait !== undefined) await wait;
      }
      return await writer.finish({ start: KEY_MIN, end: KEY_MAX }, { start: this.startLsn, end: endLsn });
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  #writeKey(row: number, values: Uint8Array, writer: DeltaLayerWriter): Promise<void> | undefined {
    const index = this.#index;
    const versions: number[] = [];
    for (let at = index.headOfRow(row); at >= 0; at = index.older[at]) if (index.lsns[at] <= this.#maxLsn) versions.push(at);
    const key = index.keyAt(row);
    const entryOf = (at: number) => ({
      key,
      lsn: index.lsns[at],
      willInit: index.willInit[at] === 1,
      bytes: values.subarray(index.offsets[at], index.offsets[at] + index.lengths[at]),
    });
    for (let i = versions.length - 1; i >= 0; i--) {
      const wait = writer.put(entryOf(versions[i]));
      if (wait !== undefined) return writeRest(versions.slice(0, i).reverse(), wait, (at) => writer.put(entryOf(at)));
    }
    return undefined;
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

async function writeRest(versions: readonly number[], first: Promise<void>, put: (at: number) => Promise<void> | undefined): Promise<void> {
  await first;
  for (const at of versions) await put(at);
}
