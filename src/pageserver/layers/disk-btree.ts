/**
 * The index of a layer file: a B-tree of fixed-width keys, built in one pass, one node a block.
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 2 | number of children n, big-endian |
 * | 2 | 1 | level, 0 for leaves |
 * | 3 | 1 | prefix length p |
 * | 4 | 1 | suffix length s; p + s is the key length |
 * | 5 | p | prefix that all keys share |
 * | 5+p | n × s | suffixes in rising order |
 * | … | n × 5 | values, big-endian: in leaves 39 bits; else 0x80 and the child's block, counted from the first index block |
 *
 * Nodes appear in the order they fill up, the root last. An inner node's key is the first key of its child.
 * Source: the peer's disk_btree module.
 */
import { invariant, StrataError } from "../../kit/errors.ts";
import { BLOCK_SIZE } from "./summary.ts";

const HEADER_SIZE = 5;
const VALUE_SIZE = 5;
const CHILD_MARK = 0x80;
export const BTREE_VALUE_MAX = 0x7f_ffff_ffff;
/** A tree over 2^31 entries of the widest keys has 5 levels. */
const DEPTH_MAX = 10;

class NodeBuilder {
  readonly level: number;
  readonly #keySize: number;
  #count = 0;
  /** Whole keys, one after the other; compression is decided by `#prefix`, not by copying. */
  readonly #keys: Uint8Array;
  readonly #values: Uint8Array;
  #prefix = 0;

  constructor(level: number, keySize: number) {
    this.level = level;
    this.#keySize = keySize;
    const most = Math.floor(BLOCK_SIZE / VALUE_SIZE);
    this.#keys = new Uint8Array(most * keySize);
    this.#values = new Uint8Array(most * VALUE_SIZE);
  }

  get #size(): number {
    return HEADER_SIZE + this.#prefix + this.#count * (this.#keySize - this.#prefix + VALUE_SIZE);
  }

  /** False when full, or when the key does not share the prefix already cut. */
  push(key: Uint8Array, high: number, low: number): boolean {
    for (let i = 0; i < this.#prefix; i++) if (key[i] !== this.#keys[i]) return false;
    // The limit is exclusive, as in the peer's writer: the same input gives the same bytes.
    if (this.#size + this.#keySize - this.#prefix + VALUE_SIZE >= BLOCK_SIZE) return false;
    // A loop: views for keys this short cost more than copying them.
    for (let i = 0, to = this.#count * this.#keySize; i < key.length; i++) this.#keys[to + i] = key[i];
    const at = this.#count * VALUE_SIZE;
    this.#values[at] = high;
    this.#values[at + 1] = low >>> 24;
    this.#values[at + 2] = low >>> 16;
    this.#values[at + 3] = low >>> 8;
    this.#values[at + 4] = low;
    this.#count++;
    return true;
  }

  /** Cuts what the first and the last key, and so all between, have in common. False when that is nothing more. */
  compress(): boolean {
    const last = (this.#count - 1) * this.#keySize;
    let common = this.#prefix;
    while (common < this.#keySize && this.#keys[common] === this.#keys[last + common]) common++;
    if (common === this.#prefix) return false;
    this.#prefix = common;
    return true;
  }

  /** As new: the memory is kept, for the next node of its level. */
  clear(): void {
    this.#count = 0;
    this.#prefix = 0;
  }

  firstKey(): Uint8Array {
    return this.#keys.slice(0, this.#keySize);
  }

  pack(): Uint8Array {
    invariant(this.#count > 0 || this.level === 0, "an inner node has children");
    const block = new Uint8Array(BLOCK_SIZE);
    const suffix = this.#keySize - this.#prefix;
    block[0] = this.#count >>> 8;
    block[1] = this.#count;
    block[2] = this.level;
    block[3] = this.#prefix;
    block[4] = suffix;
    block.set(this.#keys.subarray(0, this.#prefix), HEADER_SIZE);
    let at = HEADER_SIZE + this.#prefix;
    const keys = this.#keys;
    for (let i = 0; i < this.#count; i++) {
      const start = i * this.#keySize + this.#prefix;
      // A loop, as above.
      for (let k = 0; k < suffix; k++) block[at++] = keys[start + k];
    }
    block.set(this.#values.subarray(0, this.#count * VALUE_SIZE), at);
    return block;
  }
}

/** Takes entries in strictly rising key order, then gives the index blocks. */
export class BtreeBuilder {
  readonly #keySize: number;
  readonly #blocks: Uint8Array[] = [];
  /** The root first, the open leaf last; never empty. */
  #stack: NodeBuilder[];
  readonly #lastKey: Uint8Array;
  #empty = true;

  constructor(keySize: number) {
    this.#keySize = keySize;
    this.#lastKey = new Uint8Array(keySize);
    this.#stack = [new NodeBuilder(0, keySize)];
  }

  /** Bytes of the finished index, roughly. */
  get sizeBytes(): number {
    return (this.#blocks.length + this.#stack.length) * BLOCK_SIZE;
  }

  append(key: Uint8Array, value: number): void {
    invariant(key.length === this.#keySize, "an index key of the tree's size");
    invariant(value >= 0 && value <= BTREE_VALUE_MAX, "index value out of range");
    invariant(this.#empty || this.#rises(key), "index keys must rise");
    this.#empty = false;
    for (let i = 0; i < key.length; i++) this.#lastKey[i] = key[i];
    this.#append(key, Math.floor(value / 0x1_0000_0000), value >>> 0);
  }

  #rises(key: Uint8Array): boolean {
    const last = this.#lastKey;
    let i = 0;
    while (i < key.length && last[i] === key[i]) i++;
    return i < key.length && last[i] < key[i];
  }

  #append(key: Uint8Array, high: number, low: number): void {
    const node = this.#stack[this.#stack.length - 1];
    if (node.push(key, high, low)) return;
    if (node.compress() && node.push(key, high, low)) return;
    this.#flush();
    node.clear();
    invariant(node.push(key, high, low), "an empty node takes any key");
    this.#stack.push(node);
  }

  /** Writes out the last node of the stack and enters it in its parent, which may split in turn. */
  #flush(): void {
    const node = this.#stack.pop();
    invariant(node !== undefined, "the stack is never empty");
    const block = this.#blocks.push(node.pack()) - 1;
    if (this.#stack.length === 0) this.#stack.push(new NodeBuilder(node.level + 1, this.#keySize));
    this.#append(node.firstKey(), CHILD_MARK, block);
  }

  /** The builder is used up. `rootBlock` counts from the first of `blocks`. */
  finish(): { blocks: Uint8Array[]; rootBlock: number } {
    while (this.#stack.length > 1) this.#flush();
    const rootBlock = this.#blocks.push(this.#stack[0].pack()) - 1;
    return { blocks: this.#blocks, rootBlock };
  }
}

/** One node, decoded in place over a block that it borrows. */
export class BtreeNode {
  readonly level: number;
  readonly count: number;
  readonly #block: Uint8Array;
  readonly #prefixSize: number;
  readonly #suffixSize: number;
  readonly #keysAt: number;
  readonly #valuesAt: number;

  /** @throws StrataError corrupt `bad-layer-index` */
  constructor(block: Uint8Array, keySize: number) {
    this.#block = block;
    this.count = (block[0] << 8) | block[1];
    this.level = block[2];
    this.#prefixSize = block[3];
    this.#suffixSize = block[4];
    this.#keysAt = HEADER_SIZE + this.#prefixSize;
    this.#valuesAt = this.#keysAt + this.count * this.#suffixSize;
    const fits = this.#valuesAt + this.count * VALUE_SIZE <= BLOCK_SIZE;
    if (this.#prefixSize + this.#suffixSize !== keySize || !fits || this.level >= DEPTH_MAX) throw badIndex(`node with ${this.count} children, level ${this.level}, key ${this.#prefixSize}+${this.#suffixSize}`);
  }

  keyInto(index: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.keyByte(index, i);
  }

  /** Four bytes of an entry's key, big-endian. */
  u32(index: number, at: number): number {
    const within = at - this.#prefixSize;
    // Mostly in one part of the key.
    const block = this.#block;
    const start = within >= 0 ? this.#keysAt + index * this.#suffixSize + within : HEADER_SIZE + at;
    if (within >= 0 || within <= -4) return ((block[start] << 24) | (block[start + 1] << 16) | (block[start + 2] << 8) | block[start + 3]) >>> 0;
    return ((this.keyByte(index, at) << 24) | (this.keyByte(index, at + 1) << 16) | (this.keyByte(index, at + 2) << 8) | this.keyByte(index, at + 3)) >>> 0;
  }

  keyByte(index: number, at: number): number {
    const prefix = this.#prefixSize;
    return at < prefix ? this.#block[HEADER_SIZE + at] : this.#block[this.#keysAt + index * this.#suffixSize + at - prefix];
  }

  value(index: number): number {
    const at = this.#valuesAt + index * VALUE_SIZE;
    const b = this.#block;
    return b[at] * 0x1_0000_0000 + ((b[at + 1] << 24) >>> 0) + (b[at + 2] << 16) + (b[at + 3] << 8) + b[at + 4];
  }

  child(index: number): number {
    const value = this.value(index);
    const block = value - CHILD_MARK * 0x1_0000_0000;
    if (block < 0 || block >= 0x1_0000_0000) throw badIndex(`child pointer ${value.toString(16)}`);
    return block;
  }

  /** First entry at or above `key`. */
  lowerBound(key: Uint8Array): number {
    const prefix = this.#comparePrefix(key);
    if (prefix !== 0) return prefix < 0 ? this.count : 0;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compareSuffix(middle, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Of an inner node: the child that may hold `key`. */
  childFor(key: Uint8Array): number {
    const at = this.lowerBound(key);
    if (at < this.count && this.compare(at, key) === 0) return at;
    return Math.max(0, at - 1);
  }

  /** Order of an entry's key and `key`. */
  compare(index: number, key: Uint8Array): number {
    return this.#comparePrefix(key) || this.#compareSuffix(index, key);
  }

  #comparePrefix(key: Uint8Array): number {
    const block = this.#block;
    for (let i = 0; i < this.#prefixSize; i++) {
      const difference = block[HEADER_SIZE + i] - key[i];
      if (difference !== 0) return difference;
    }
    return 0;
  }

  #compareSuffix(index: number, key: Uint8Array): number {
    const block = this.#block;
    const prefix = this.#prefixSize;
    const size = this.#suffixSize;
    const at = this.#keysAt + index * size;
    for (let i = 0; i < size; i++) {
      const difference = block[at + i] - key[prefix + i];
      if (difference !== 0) return difference;
    }
    return 0;
  }
}

/** Gives an index block, counted from the first one; at once when it is cached. */
export type IndexBlockSource = (block: number) => Uint8Array | Promise<Uint8Array>;

/** Called with each entry in order; the key buffer is reused. Returns false to stop. */
export type EntryVisitor = (key: Uint8Array, value: number) => boolean;

/**
 * Visits entries from `from` upwards. The visitor says when to stop.
 * @throws StrataError corrupt `bad-layer-index`
 */
export async function visitBtree(options: { source: IndexBlockSource; rootBlock: number; from: Uint8Array }, visit: EntryVisitor): Promise<void> {
  const { source, rootBlock, from } = options;
  const key = new Uint8Array(from.length);
  const path: { node: BtreeNode; next: number }[] = [];
  let block: number | null = rootBlock;
  let level: number | null = null;
  let descending = true;
  while (block !== null || path.length > 0) {
    if (block !== null) {
      const loaded = source(block);
      const node = new BtreeNode(loaded instanceof Promise ? await loaded : loaded, from.length);
      // Levels fall by one on the way down, so a damaged pointer cannot make a loop.
      if (level !== null && node.level !== level) throw badIndex(`node of level ${node.level} where ${level} belongs`);
      path.push({ node, next: !descending ? 0 : node.level === 0 ? node.lowerBound(from) : node.childFor(from) });
    }
    const top = path[path.length - 1];
    block = null;
    if (top.node.level === 0) {
      descending = false;
      for (let i = top.next; i < top.node.count; i++) {
        top.node.keyInto(i, key);
        if (!visit(key, top.node.value(i))) return;
      }
      path.pop();
    } else if (top.next < top.node.count) {
      block = top.node.child(top.next++);
      level = top.node.level - 1;
    } else {
      path.pop();
    }
  }
}

/** Gives an index node when it can without waiting. */
export interface IndexNodesNow {
  indexNodeNow(block: number): BtreeNode | null;
}

/**
 * Visits the entries with from ≤ key < end in order, without waiting. False when a block is not at hand: then some entries
 * may have been visited, and the same must be asked again in another way.
 * @throws StrataError corrupt `bad-layer-index`
 */
export function visitRangeNow(rootBlock: number, walk: RangeVisit): boolean {
  return visitNodeNow(walk, rootBlock, -1);
}

export interface RangeVisit {
  readonly source: IndexNodesNow;
  readonly range: { readonly from: Uint8Array; readonly end: Uint8Array };
  readonly visit: (node: BtreeNode, index: number) => void;
}

/** @param level where the node belongs; -1 for the root */
function visitNodeNow(walk: RangeVisit, block: number, level: number): boolean {
  const { from, end } = walk.range;
  const node = walk.source.indexNodeNow(block);
  if (node === null) return false;
  if (level >= 0 && node.level !== level) throw badIndex(`node of level ${node.level} where ${level} belongs`);
  if (node.level === 0) {
    for (let i = node.lowerBound(from); i < node.count && node.compare(i, end) < 0; i++) walk.visit(node, i);
    return true;
  }
  const first = node.childFor(from);
  for (let i = first; i < node.count; i++) {
    // A child's key is the first it holds.
    if (i > first && node.compare(i, end) >= 0) break;
    if (!visitNodeNow(walk, node.child(i), node.level - 1)) return false;
  }
  return true;
}

function badIndex(what: string): StrataError {
  return new StrataError("corrupt", "bad-layer-index", `layer index: ${what}`);
}
