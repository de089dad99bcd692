/** Tenants and timelines as the controller's HTTP API speaks of them (the peer's JSON, field for field). */
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import { tenantShardIdSchema } from "./upcall.ts";

export const tenantIdSchema = z.string().regex(/^[0-9a-f]{32}$/);
export const timelineIdSchema = z.string().regex(/^[0-9a-f]{32}$/);

/** `{"Attached": secondaries}`, `"Secondary"` or `"Detached"`. */
export const placementPolicySchema = z.union([z.object({ Attached: z.number().int().min(0).max(8) }), z.literal("Secondary"), z.literal("Detached")]);
export type PlacementPolicy = z.infer<typeof placementPolicySchema>;

export const shardSchedulingPolicySchema = z.enum(["Active", "Essential", "Pause", "Stop"]);
export type ShardSchedulingPolicy = z.infer<typeof shardSchedulingPolicySchema>;

/** Tenant configuration: the pageserver checks names and values; the controller stores and hands on. */
export const tenantConfigSchema = z.record(z.string(), z.unknown());
export type TenantConfig = z.infer<typeof tenantConfigSchema>;

export const shardParametersSchema = z.object({ count: z.number().int().min(0).max(255), stripe_size: z.number().int().min(1) });
export const DEFAULT_STRIPE_SIZE_PAGES = 32_768;

export const tenantCreateRequestSchema = z
  .object({
    new_tenant_id: tenantShardIdSchema,
    generation: z.number().int().nonnegative().nullish(),
    shard_parameters: shardParametersSchema.nullish(),
    placement_policy: placementPolicySchema.nullish(),
  })
  // The peer flattens the tenant's configuration into the request.
  .catchall(z.unknown());
export type TenantCreateRequest = z.infer<typeof tenantCreateRequestSchema>;

export const tenantCreateResponseSchema = z.object({
  shards: z.array(z.object({ shard_id: tenantShardIdSchema, node_id: z.number().int(), generation: z.number().int() })),
});
export type TenantCreateResponse = z.infer<typeof tenantCreateResponseSchema>;

export const tenantLocateResponseSchema = z.object({
  shards: z.array(
    z.object({
      shard_id: tenantShardIdSchema,
      node_id: z.number().int(),
      listen_pg_addr: z.string(),
      listen_pg_port: z.number().int(),
      listen_http_addr: z.string(),
      listen_http_port: z.number().int(),
      listen_https_port: z.number().int().nullish(),
    }),
  ),
  shard_params: shardParametersSchema,
});
export type TenantLocateResponse = z.infer<typeof tenantLocateResponseSchema>;

export const tenantDescribeResponseSchema = z.object({
  tenant_id: tenantIdSchema,
  shards: z.array(
    z.object({
      tenant_shard_id: tenantShardIdSchema,
      node_attached: z.number().int().nullable(),
      node_secondary: z.array(z.number().int()),
      last_error: z.string(),
      is_reconciling: z.boolean(),
      is_pending_compute_notification: z.boolean(),
      is_splitting: z.boolean(),
      scheduling_policy: shardSchedulingPolicySchema,
      preferred_az_id: z.string().nullable(),
    }),
  ),
  stripe_size: z.number().int(),
  policy: placementPolicySchema,
  config: tenantConfigSchema,
});
export type TenantDescribeResponse = z.infer<typeof tenantDescribeResponseSchema>;

export const tenantPolicyRequestSchema = z.object({ placement: placementPolicySchema.nullish(), scheduling: shardSchedulingPolicySchema.nullish() });
export type TenantPolicyRequest = z.infer<typeof tenantPolicyRequestSchema>;

export const tenantConfigRequestSchema = z.object({ tenant_id: tenantIdSchema }).catchall(z.unknown());

/** One of: a branch (ancestor given), or a bootstrap from a fresh initdb. */
export const timelineCreateRequestSchema = z.object({
  new_timeline_id: timelineIdSchema,
  ancestor_timeline_id: timelineIdSchema.nullish(),
  ancestor_start_lsn: z.string().nullish(),
  existing_initdb_timeline_id: timelineIdSchema.nullish(),
  pg_version: z.number().int().nullish(),
});
export type TimelineCreateRequest = z.infer<typeof timelineCreateRequestSchema>;

/** How many secondaries a policy wants. */
export function wantedSecondaries(policy: PlacementPolicy): number {
  if (policy === "Detached") return 0;
  return policy === "Secondary" ? 1 : policy.Attached;
}

/** @throws StrataError corrupt `bad-stored-policy` */
export function parsePlacementPolicy(json: string): PlacementPolicy {
  const parsed = placementPolicySchema.safeParse(JSON.parse(json));
  if (!parsed.success) throw new StrataError("corrupt", "bad-stored-policy", `stored placement policy ${json} is not one`);
  return parsed.data;
}
