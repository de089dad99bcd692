/**
 * What makes an exploration fast: states of the parts (a node, a proposer, a connection) are few and get numbers; what a part does
 * from one of its states is computed once, by the shipping code, and looked up ever after.
 */

/** Values by their texts: equal text, equal number. 0 is no value. */
export class Interner<T> {
  readonly #ids = new Map<string, number>();
  readonly values: T[] = [];
  readonly keys: string[] = [""];
  /** Called with each new number, for what is to be known of it at once. */
  onNew: ((id: number, value: T) => void) | null = null;

  constructor(none: T) {
    this.values.push(none);
  }

  get size(): number {
    return this.values.length;
  }

  add(key: string, value: T): number {
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.values.length;
    this.#ids.set(key, id);
    this.values.push(value);
    this.keys.push(key);
    this.onNew?.(id, value);
    return id;
  }
}

/** Open addressing from pairs of numbers to a number; -1 is not there. */
export class PairTable {
  #a = new Int32Array(1 << 12).fill(-1);
  #b = new Int32Array(1 << 12);
  #value = new Int32Array(1 << 12);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(a: number, b: number): number {
    const mask = this.#a.length - 1;
    for (let at = mixPair(a, b) & mask; ; at = (at + 1) & mask) {
      const found = this.#a[at];
      if (found === a && this.#b[at] === b) return this.#value[at];
      if (found === -1) return -1;
    }
  }

  set(a: number, b: number, value: number): void {
    if (this.#size * 2 >= this.#a.length) this.#grow();
    const mask = this.#a.length - 1;
    let at = mixPair(a, b) & mask;
    while (this.#a[at] !== -1) at = (at + 1) & mask;
    this.#a[at] = a;
    this.#b[at] = b;
    this.#value[at] = value;
    this.#size++;
  }

  #grow(): void {
    const [as, bs, values] = [this.#a, this.#b, this.#value];
    this.#a = new Int32Array(as.length * 2).fill(-1);
    this.#b = new Int32Array(as.length * 2);
    this.#value = new Int32Array(as.length * 2);
    this.#size = 0;
    for (let at = 0; at < as.length; at++) if (as[at] !== -1) this.set(as[at], bs[at], values[at]);
  }
}

function mixPair(a: number, b: number): number {
  let h = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return h ^ (h >>> 13);
}

/** Numbers in a row that grow by doubling: frontier and stack. */
export class IntStack {
  #ints = new Int32Array(1 << 16);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(vector: Int32Array, count: number): void {
    if (this.#length + count > this.#ints.length) {
      const grown = new Int32Array(this.#ints.length * 2);
      grown.set(this.#ints);
      this.#ints = grown;
    }
    const ints = this.#ints;
    const base = this.#length;
    for (let at = 0; at < count; at++) ints[base + at] = vector[at];
    this.#length = base + count;
  }

  pop(vector: Int32Array, count: number): void {
    const base = this.#length - count;
    const ints = this.#ints;
    for (let at = 0; at < count; at++) vector[at] = ints[base + at];
    this.#length = base;
  }
}

/**
 * The states visited, each as 63 bits of hash (Wolper, Leroy, "Reliable hashing without collision detection", CAV 1993): of n states,
 * one is taken for another, and left out, with a probability of at most n² / 2^64.
 */
export class VisitedSet {
  /** Low and high half of a hash side by side: one miss of the cache a look. */
  #words = new Uint32Array(1 << 17);
  #capacity = 1 << 16;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#words.byteLength;
  }

  get omissionProbability(): number {
    return (this.#size * this.#size) / 2 ** 64;
  }

  /** False when it was there. */
  add(vector: Int32Array, count: number): boolean {
    if (this.#size >= this.#capacity * 0.8) this.#grow();
    let [a, b] = [0x243f6a88, 0x85a308d3];
    // Two streams of multiply-rotate (MurmurHash3's rounds) that feed each other.
    for (let at = 0; at < count; at++) {
      const word = vector[at];
      const k = Math.imul(word, 0xcc9e2d51);
      a ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593) ^ b;
      a = (Math.imul((a << 13) | (a >>> 19), 5) + 0xe6546b64) | 0;
      const m = Math.imul(word, 0x239b961b);
      b ^= Math.imul((m << 16) | (m >>> 16), 0xab0e9789) + a;
      b = (Math.imul((b << 17) | (b >>> 15), 5) + 0x561ccd1b) | 0;
    }
    // 0 marks a free slot.
    return this.#insert(finish(a) >>> 0, (finish(b ^ (a << 7)) | 1) >>> 0);
  }

  #insert(low: number, high: number): boolean {
    const words = this.#words;
    const end = this.#capacity * 2;
    // The low half chooses the place, whatever the capacity is: so the table grows by any factor.
    for (let at = Math.floor((low / 2 ** 32) * this.#capacity) * 2; ; at = at + 2 === end ? 0 : at + 2) {
      const found = words[at + 1];
      if (found === 0) {
        words[at] = low;
        words[at + 1] = high;
        this.#size++;
        return true;
      }
      if (found === high && words[at] === low) return false;
    }
  }

  #grow(): void {
    const old = this.#words;
    this.#capacity = Math.floor(this.#capacity * (this.#capacity < 2 ** 27 ? 2 : 1.4));
    this.#words = new Uint32Array(this.#capacity * 2);
    this.#size = 0;
    for (let at = 0; at < old.length; at += 2) if (old[at + 1] !== 0) this.#insert(old[at], old[at + 1]);
  }
}

function finish(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
