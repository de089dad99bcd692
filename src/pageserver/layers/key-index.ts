/**
 * Index of an in-memory layer: key → versions, newest first, in typed columns (millions of small objects would cost a
 * full garbage collection hundreds of milliseconds). Keys are found by open addressing; versions of a key are chained.
 */
import { invariant } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Key } from "../../keyspace/key.ts";
import type { Pacer } from "./pacer.ts";

const NONE = -1;
const FIRST_ROWS = 256;
const FIELDS = 6;

function hashKey(key: Key): number {
  let h = Math.imul(key.field6 ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ key.field4, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 13) ^ key.field3, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 16) ^ key.field2 ^ (key.field5 << 8) ^ key.field1, 0x165667b1);
  return (h ^ (h >>> 15)) >>> 0;
}

function grown<T extends Uint8Array | Uint32Array | Int32Array | Float64Array>(column: T, make: (length: number) => T): T {
  const next = make(column.length * 2);
  next.set(column as never);
  return next;
}

export class KeyIndex {
  keyCount = 0;
  versionCount = 0;
  /** Six fields a key, side by side. */
  #fields = new Uint32Array(FIRST_ROWS * FIELDS);
  /** Newest version of each key. */
  #heads = new Int32Array(FIRST_ROWS);
  #slots = new Int32Array(FIRST_ROWS * 2).fill(NONE);

  lsns = new Float64Array(FIRST_ROWS);
  offsets = new Uint32Array(FIRST_ROWS);
  lengths = new Uint32Array(FIRST_ROWS);
  willInit = new Uint8Array(FIRST_ROWS);
  /** Next older version of the same key, or -1. */
  older = new Int32Array(FIRST_ROWS);

  get memoryBytes(): number {
    return this.#heads.length * (FIELDS * 4 + 4) + this.#slots.length * 4 + this.lsns.length * 21;
  }

  /** LSNs of one key rise; the same LSN again replaces the version. */
  add(key: Key, version: { readonly lsn: Lsn; readonly offset: number; readonly length: number; readonly willInit: boolean }): void {
    const row = this.#keyRow(key);
    const head = this.#heads[row];
    invariant(head === NONE || this.lsns[head] <= version.lsn, "versions of a key come in rising LSN order");
    const at = head !== NONE && this.lsns[head] === version.lsn ? head : this.#newVersion(row, head);
    this.lsns[at] = version.lsn;
    this.offsets[at] = version.offset;
    this.lengths[at] = version.length;
    this.willInit[at] = version.willInit ? 1 : 0;
  }

  #newVersion(row: number, older: number): number {
    if (this.versionCount === this.lsns.length) {
      this.lsns = grown(this.lsns, (n) => new Float64Array(n));
      this.offsets = grown(this.offsets, (n) => new Uint32Array(n));
      this.lengths = grown(this.lengths, (n) => new Uint32Array(n));
      this.willInit = grown(this.willInit, (n) => new Uint8Array(n));
      this.older = grown(this.older, (n) => new Int32Array(n));
    }
    const at = this.versionCount++;
    this.older[at] = older;
    this.#heads[row] = at;
    return at;
  }

  #keyRow(key: Key): number {
    const mask = this.#slots.length - 1;
    let slot = hashKey(key) & mask;
    for (; this.#slots[slot] !== NONE; slot = (slot + 1) & mask) {
      if (this.#rowIs(this.#slots[slot], key)) return this.#slots[slot];
    }
    const row = this.keyCount++;
    if (row === this.#heads.length) {
      this.#fields = grown(this.#fields, (n) => new Uint32Array(n));
      this.#heads = grown(this.#heads, (n) => new Int32Array(n));
    }
    this.#fields.set([key.field1, key.field2, key.field3, key.field4, key.field5, key.field6], row * FIELDS);
    this.#heads[row] = NONE;
    this.#slots[slot] = row;
    if (this.keyCount * 2 > this.#slots.length) this.#rehash();
    return row;
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(NONE);
    const mask = slots.length - 1;
    for (let row = 0; row < this.keyCount; row++) {
      let slot = hashKey(this.keyAt(row)) & mask;
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

  /** Key rows in key order: radix sort, least significant byte first, skipping bytes that are the same everywhere. */
  async sortedRows(pacer: Pacer): Promise<Uint32Array> {
    const count = this.keyCount;
    let from: Uint32Array = Uint32Array.from({ length: count }, (_, i) => i);
    let to: Uint32Array = new Uint32Array(count);
    for (let field = FIELDS - 1; field >= 0; field--) {
      const differing = this.#differingBits(field);
      for (let shift = 0; shift < 32; shift += 8) {
        if (((differing >>> shift) & 0xff) === 0) continue;
        this.#sortPass({ from, to, field, shift });
        [from, to] = [to, from];
        await pacer.pause();
      }
    }
    return from;
  }

  #differingBits(field: number): number {
    let bits = 0;
    const first = this.#fields[field];
    for (let row = 1; row < this.keyCount; row++) bits |= first ^ this.#fields[row * FIELDS + field];
    return bits;
  }

  #sortPass({ from, to, field, shift }: { from: Uint32Array; to: Uint32Array; field: number; shift: number }): void {
    const starts = new Uint32Array(257);
    for (let i = 0; i < from.length; i++) starts[((this.#fields[from[i] * FIELDS + field] >>> shift) & 0xff) + 1]++;
    for (let i = 1; i < 257; i++) starts[i] += starts[i - 1];
    for (let i = 0; i < from.length; i++) to[starts[(this.#fields[from[i] * FIELDS + field] >>> shift) & 0xff]++] = from[i];
  }
}
