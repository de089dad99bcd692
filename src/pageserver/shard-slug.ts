/** How metrics name a shard. */
import type { ShardIndex } from "../kit/ids.ts";

/** Number and count as in a sharded tenant's id; 0000 without shards. */
export function shardSlug({ number, count }: ShardIndex): string {
  return [number, count].map((part) => part.toString(16).padStart(2, "0")).join("");
}
