/**
 * Index of an in-memory layer: key → versions, newest first, in typed columns (millions of small objects would cost a
 * full garbage collection hundreds of milliseconds). Keys are found by open addressing; versions of a key are chained.
 */
import { allocateSharedBytes } from "../../kit/buffers.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ValueBatch } from "../../interpret/value-batch.ts";
import type { Key } from "../../keyspace/key.ts";
import type { Pacer } from "./pacer.ts";

const NONE = -1;
const FIRST_ROWS = 256;
const FIELDS = 6;

/** Positional parameters on purpose: six numbers in the order of the key's bytes, for every value put. */
function hashFields(field1: number, field2: number, field3: number, field4: number, field5: number, field6: number): number {
  let h = Math.imul(field6 ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ field4, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 13) ^ field3, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 16) ^ field2 ^ (field5 << 8) ^ field1, 0x165667b1);
  return (h ^ (h >>> 15)) >>> 0;
}

function hashKey(key: Key): number {
  return hashFields(key.field1, key.field2, key.field3, key.field4, key.field5, key.field6);
}

// In shared memory: a worker reads the columns of a frozen layer while reads here go on.
const u8Column = (length: number): Uint8Array => allocateSharedBytes(length);
const u32Column = (length: number): Uint32Array => new Uint32Array(allocateSharedBytes(length * 4).buffer);
const i32Column = (length: number): Int32Array => new Int32Array(allocateSharedBytes(length * 4).buffer);
const f64Column = (length: number): Float64Array => new Float64Array(allocateSharedBytes(length * 8).buffer);

function grown<T extends Uint8Array | Uint32Array | Int32Array | Float64Array>(column: T, make: (length: number) => T): T {
  const next = make(column.length * 2);
  next.set(column as never);
  return next;
}

/** The columns of an index that does not change any more: plain data that a worker can be given. */
export interface IndexColumns {
  readonly keyCount: number;
  readonly versionCount: number;
  /** Six numbers a key. */
  readonly fields: Uint32Array;
  /** Newest version of each key. */
  readonly heads: Int32Array;
  readonly lsns: Float64Array;
  readonly offsets: Uint32Array;
  readonly lengths: Uint32Array;
  readonly willInit: Uint8Array;
  /** Next older version of the same key, or -1. */
  readonly older: Int32Array;
}

export class KeyIndex {
  keyCount = 0;
  versionCount = 0;
  /** Six fields a key, side by side. */
  #fields = u32Column(FIRST_ROWS * FIELDS);
  /** Newest version of each key. */
  #heads = i32Column(FIRST_ROWS);
  #slots = new Int32Array(FIRST_ROWS * 2).fill(NONE);

  lsns = f64Column(FIRST_ROWS);
  offsets = u32Column(FIRST_ROWS);
  lengths = u32Column(FIRST_ROWS);
  willInit = u8Column(FIRST_ROWS);
  /** Next older version of the same key, or -1. */
  older = i32Column(FIRST_ROWS);

  get memoryBytes(): number {
    return this.#heads.length * (FIELDS * 4 + 4) + this.#slots.length * 4 + this.lsns.length * 21;
  }

  get columns(): IndexColumns {
    const { keyCount, versionCount, lsns, offsets, lengths, willInit, older } = this;
    return { keyCount, versionCount, fields: this.#fields, heads: this.#heads, lsns, offsets, lengths, willInit, older };
  }

  /**
   * Entries of a batch whose values were stored from `base` on. LSNs of one key rise, but for those that come again; the same LSN
   * again replaces the version.
   * `newKey` is told the row of each key not seen before.
   */
  addBatch(batch: ValueBatch, base: number, newKey: (row: number) => void): void {
    const { count, lsns, offsets, lengths, willInit } = batch;
    this.#makeRoom(count);
    for (let i = 0; i < count; i++) {
      const keys = this.keyCount;
      const row = this.#rowOf(batch.fields, i * FIELDS);
      if (row === keys) newKey(row);
      const head = this.#heads[row];
      const lsn = lsns[i];
      let at = head;
      if (head === NONE || this.lsns[head] < lsn) {
        at = this.versionCount++;
        this.older[at] = head;
        this.#heads[row] = at;
        this.lsns[at] = lsn;
      } else if (this.lsns[head] !== lsn) at = this.#placeBelow(head, lsn);
      this.offsets[at] = base + offsets[i];
      this.lengths[at] = lengths[i];
      this.willInit[at] = willInit[i];
    }
  }

  /**
   * A version below one that is there: records handed over in part, when the disk or the WAL's sender failed, come again from their
   * beginning. The same version is found again; one that had not come is put between.
   */
  #placeBelow(head: number, lsn: Lsn): number {
    let above = head;
    while (this.older[above] !== NONE && this.lsns[this.older[above]] > lsn) above = this.older[above];
    const below = this.older[above];
    if (below !== NONE && this.lsns[below] === lsn) return below;
    const at = this.versionCount++;
    this.older[at] = below;
    this.older[above] = at;
    this.lsns[at] = lsn;
    return at;
  }

  /** Takes out versions above `lsn`: looks at every key. */
  forgetAbove(lsn: Lsn): void {
    for (let row = 0; row < this.keyCount; row++) {
      let at = this.#heads[row];
      while (at !== NONE && this.lsns[at] > lsn) at = this.older[at];
      this.#heads[row] = at;
    }
  }

  /** For `count` more versions. */
  #makeRoom(count: number): void {
    while (this.versionCount + count > this.lsns.length) {
      this.lsns = grown(this.lsns, f64Column);
      this.offsets = grown(this.offsets, u32Column);
      this.lengths = grown(this.lengths, u32Column);
      this.willInit = grown(this.willInit, u8Column);
      this.older = grown(this.older, i32Column);
    }
  }

  /** The row of the key at `at` in `fields`; a new one when it is not known. */
  #rowOf(fields: Uint32Array, at: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hashFields(fields[at], fields[at + 1], fields[at + 2], fields[at + 3], fields[at + 4], fields[at + 5]) & mask;
    const known = this.#fields;
    for (let row = slots[slot]; row !== NONE; row = slots[slot]) {
      const r = row * FIELDS;
      if (known[r + 5] === fields[at + 5] && known[r + 3] === fields[at + 3] && known[r + 4] === fields[at + 4] && known[r + 2] === fields[at + 2] && known[r + 1] === fields[at + 1] && known[r] === fields[at]) return row;
      slot = (slot + 1) & mask;
    }
    const row = this.keyCount++;
    if (row === this.#heads.length) {
      this.#fields = grown(this.#fields, u32Column);
      this.#heads = grown(this.#heads, i32Column);
    }
    for (let i = 0; i < FIELDS; i++) this.#fields[row * FIELDS + i] = fields[at + i];
    this.#heads[row] = NONE;
    slots[slot] = row;
    if (this.keyCount * 2 > slots.length) this.#rehash();
    return row;
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(NONE);
    const mask = slots.length - 1;
    for (let row = 0; row < this.keyCount; row++) {
      const f = this.#fields;
      const at = row * FIELDS;
      let slot = hashFields(f[at], f[at + 1], f[at + 2], f[at + 3], f[at + 4], f[at + 5]) & mask;
      while (slots[slot] !== NONE) slot = (slot + 1) & mask;
      slots[slot] = row;
    }
    this.#slots = slots;
  }

  #rowIs(row: number, key: Key): boolean {
    const f = this.#fields;
    const at = row * FIELDS;
    return f[at + 5] === key.field6 && f[at + 3] === key.field4 && f[at + 4] === key.field5 && f[at + 2] === key.field3 && f[at + 1] === key.field2 && f[at] === key.field1;
  }

  /** Newest version of `key`, or -1. */
  head(key: Key): number {
    const mask = this.#slots.length - 1;
    for (let slot = hashKey(key) & mask; this.#slots[slot] !== NONE; slot = (slot + 1) & mask) {
      if (this.#rowIs(this.#slots[slot], key)) return this.#heads[this.#slots[slot]];
    }
    return NONE;
  }

  headOfRow(row: number): number {
    return this.#heads[row];
  }

  keyAt(row: number): Key {
    const f = this.#fields;
    const at = row * FIELDS;
    return { field1: f[at], field2: f[at + 1], field3: f[at + 2], field4: f[at + 3], field5: f[at + 4], field6: f[at + 5] };
  }
}

/** Key rows in key order: radix sort, least significant byte first, skipping bytes that are the same everywhere. */
export async function sortedRows(columns: Pick<IndexColumns, "keyCount" | "fields">, pacer: Pacer): Promise<Uint32Array> {
  const count = columns.keyCount;
  let from = new Uint32Array(count);
  for (let row = 0; row < count; row++) from[row] = row;
  let to = new Uint32Array(count);
  for (let field = FIELDS - 1; field >= 0; field--) {
    const differing = differingBits(columns, field);
    for (let shift = 0; shift < 32; shift += 8) {
      if (((differing >>> shift) & 0xff) === 0) continue;
      sortPass(columns.fields, { from, to, field, shift });
      [from, to] = [to, from];
      await pacer.pause();
    }
  }
  return from;
}

function differingBits({ keyCount, fields }: Pick<IndexColumns, "keyCount" | "fields">, field: number): number {
  let bits = 0;
  const first = fields[field];
  for (let row = 1; row < keyCount; row++) bits |= first ^ fields[row * FIELDS + field];
  return bits;
}

function sortPass(fields: Uint32Array, { from, to, field, shift }: { from: Uint32Array; to: Uint32Array; field: number; shift: number }): void {
  const starts = new Uint32Array(257);
  for (let i = 0; i < from.length; i++) starts[((fields[from[i] * FIELDS + field] >>> shift) & 0xff) + 1]++;
  for (let i = 1; i < 257; i++) starts[i] += starts[i - 1];
  for (let i = 0; i < from.length; i++) to[starts[(fields[from[i] * FIELDS + field] >>> shift) & 0xff]++] = from[i];
}
