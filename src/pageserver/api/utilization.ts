/** GET /v1/utilization and PUT /v1/disk_usage_eviction/run: the peer's JSON. */
import { z } from "zod";

export const utilizationSchema = z.object({
  disk_usage_bytes: z.number(),
  free_space_bytes: z.number(),
  /** What the tenants here would take with all their layers on disk. */
  disk_wanted_bytes: z.number(),
  disk_usable_pct: z.number(),
  shard_count: z.number(),
  max_shard_count: z.number(),
  /** Parts of a million: where to put the next shard, lower is better. */
  utilization_score: z.number().nullable(),
  captured_at: z.string(),
});

export const evictionOrderSchema = z.object({ type: z.literal("RelativeAccessed"), args: z.object({ highest_layer_count_loses_first: z.boolean() }) });
export const evictionRunSchema = z.object({ evict_bytes: z.number().int().nonnegative(), eviction_order: evictionOrderSchema.optional() });

const usage = z.object({ evict_bytes: z.number(), freed_bytes: z.number() });
export const evictionOutcomeSchema = z.union([
  z.literal("NoPressure"),
  z.object({
    Finished: z.object({
      before: usage,
      planned: z.object({ respecting_tenant_min_resident_size: usage, fallback_to_global_lru: usage.nullable() }),
      assumed: z.object({ projected_after: usage, failed: z.object({ file_sizes: z.number(), count: z.number() }) }),
    }),
  }),
]);
