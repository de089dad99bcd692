/**
 * What a pageserver is told about a tenant shard: PUT /v1/tenant/:id/location_config, and its own copy of it on disk.
 *
 * Source: the peer's pageserver_api models module (LocationConfig).
 */
import { z } from "zod";

export const locationModeSchema = z.enum(["AttachedSingle", "AttachedMulti", "AttachedStale", "Secondary", "Detached"]);
export type LocationMode = z.infer<typeof locationModeSchema>;

export const DEFAULT_STRIPE_SIZE = 32_768;

export const locationConfigSchema = z.object({
  mode: locationModeSchema,
  generation: z.number().int().min(0).max(0xffff_ffff).nullable().default(null),
  secondary_conf: z.object({ warm: z.boolean() }).nullable().default(null),
  shard_number: z.number().int().min(0).max(255).default(0),
  shard_count: z.number().int().min(0).max(255).default(0),
  shard_stripe_size: z.number().int().min(0).max(0xffff_ffff).default(0),
  tenant_conf: z.record(z.string(), z.unknown()).default({}),
});
export type LocationConfig = z.infer<typeof locationConfigSchema>;

export const locationConfigListSchema = z.object({ tenant_shards: z.array(z.tuple([z.string(), locationConfigSchema.nullable()])) });

export function isAttached(mode: LocationMode): boolean {
  return mode === "AttachedSingle" || mode === "AttachedMulti" || mode === "AttachedStale";
}
