/**
 * Which shard of a tenant holds a key. Relation pages are spread in stripes of consecutive blocks; everything else,
 * and the init forks of unlogged relations, is on shard 0, so that it alone can make a base backup. Metadata that
 * ingest needs everywhere is kept on every shard ("global").
 *
 * The hash must equal that of the clients' (patched PostgreSQL smgr), which route page requests by it: the
 * finalizer of MurmurHash3 over relation number and stripe number, joined with PostgreSQL's hash_combine
 * (common/hashfn.h). Source: the peer's pageserver_api shard module.
 */
import { StrataError } from "../kit/errors.ts";
import type { ShardIndex } from "../kit/ids.ts";
import type { Key } from "./key.ts";
import { AUX_KEY_PREFIX, isInitForkKey, isRelBlockKey, isSlruKey } from "./mapping.ts";

/** 256 MiB in blocks: the default stripe. */
export const DEFAULT_STRIPE_BLOCKS = 32768;

export interface ShardIdentity extends ShardIndex {
  readonly stripeBlocks: number;
}

export const UNSHARDED_IDENTITY: ShardIdentity = { number: 0, count: 0, stripeBlocks: DEFAULT_STRIPE_BLOCKS };

/** @throws StrataError fix-input `bad-shard` */
export function makeShardIdentity(index: ShardIndex, stripeBlocks: number): ShardIdentity {
  const valid = index.count === 0 ? index.number === 0 : index.number < index.count && index.count <= 255;
  if (!valid || stripeBlocks <= 0) {
    throw new StrataError("fix-input", "bad-shard", `shard ${index.number} of ${index.count} with stripes of ${stripeBlocks} blocks makes no sense`);
  }
  return { number: index.number, count: index.count, stripeBlocks };
}

function murmurFinalize(input: number): number {
  let h = input | 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return h;
}

function hashCombine(a: number, b: number): number {
  return (a ^ (b + 0x9e3779b9 + (a << 6) + (a >>> 2))) | 0;
}

/** The shard that serves reads of `key`. */
export function keyToShardNumber(key: Key, shard: { readonly count: number; readonly stripeBlocks: number }): number {
  if (shard.count < 2 || !isRelBlockKey(key) || isInitForkKey(key)) return 0;
  const stripe = Math.floor(key.field6 / shard.stripeBlocks);
  const hash = hashCombine(murmurFinalize(key.field4), murmurFinalize(stripe));
  return (hash >>> 0) % shard.count;
}

export function isKeyLocal(key: Key, shard: ShardIdentity): boolean {
  return shard.count < 2 || keyToShardNumber(key, shard) === shard.number;
}

/** Kept on every shard: directories, relation sizes, maps, checkpoint … */
export function isKeyGlobal(key: Key): boolean {
  return !isRelBlockKey(key) && !isSlruKey(key) && key.field1 !== AUX_KEY_PREFIX;
}

/** True when the shard may drop the key, as after a split. */
export function isKeyDisposable(key: Key, shard: ShardIdentity): boolean {
  return shard.count >= 2 && !isKeyGlobal(key) && !isKeyLocal(key, shard);
}
