/**
 * How a pageserver's memory limit divides. Pure.
 *
 * | part | share | when it is full |
 * | --- | --- | --- |
 * | runtime, code, threads | fixed | – |
 * | page cache (pages, blocks of layers) | as configured, at most a quarter of the rest | the oldest goes |
 * | in-memory layers, indexes included | 28 % of the rest | values are spilled to disk; layers freeze early; ingest waits (layer-memory.ts) |
 * | queues, jobs, what is collected later | what is left | each is bounded by itself |
 */
import { StrataError } from "../kit/errors.ts";

export interface MemoryPlan {
  readonly layerMemoryBytes: number;
  readonly pageCacheBytes: number;
}

const MIB = 1024 * 1024;
const FIXED_BYTES = 200 * MIB;
/** Below it nothing useful is left. */
export const MEMORY_LIMIT_MIN_BYTES = 320 * MIB;
const LAYER_SHARE = 0.28;
const CACHE_SHARE_MAX = 0.25;
/** Without a limit. */
const DEFAULT_LAYER_MEMORY_BYTES = 256 * MIB;

/** @param limitBytes null for none. @throws StrataError fix-input `memory-limit-too-low` */
export function planMemory(limitBytes: number | null, configured: { readonly pageCacheBytes: number }): MemoryPlan {
  if (limitBytes === null) return { layerMemoryBytes: DEFAULT_LAYER_MEMORY_BYTES, pageCacheBytes: configured.pageCacheBytes };
  if (limitBytes < MEMORY_LIMIT_MIN_BYTES) throw new StrataError("fix-input", "memory-limit-too-low", `a pageserver needs ${MEMORY_LIMIT_MIN_BYTES / MIB} MB, not ${Math.floor(limitBytes / MIB)}`);
  const rest = limitBytes - FIXED_BYTES;
  return { layerMemoryBytes: Math.floor(rest * LAYER_SHARE), pageCacheBytes: Math.floor(Math.min(configured.pageCacheBytes, rest * CACHE_SHARE_MAX)) };
}
