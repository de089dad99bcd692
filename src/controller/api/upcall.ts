/**
 * What pageservers ask of the control plane: which tenants are theirs and under which generation (re-attach, at
 * start), and whether the generation under which they queued deletions is still the newest (validate).
 *
 * Source: the peer's upcall API (libs/pageserver_api, RFC 025 generation numbers).
 */
import { z } from "zod";

export const LOCATION_MODES = ["AttachedSingle", "AttachedMulti", "AttachedStale", "Secondary", "Detached"] as const;
export const locationModeSchema = z.enum(LOCATION_MODES);
export type LocationMode = z.infer<typeof locationModeSchema>;

/** Text of a TenantShardId: 32 hex digits, `-NNCC` when sharded. */
export const tenantShardIdSchema = z.string().regex(/^[0-9a-f]{32}(-[0-9a-f]{4})?$/);

export const nodeRegisterRequestSchema = z.object({
  node_id: z.number().int().nonnegative(),
  listen_pg_addr: z.string().min(1),
  listen_pg_port: z.number().int().min(1).max(65_535),
  listen_http_addr: z.string().min(1),
  listen_http_port: z.number().int().min(1).max(65_535),
  listen_https_port: z.number().int().min(1).max(65_535).nullish(),
  availability_zone_id: z.string(),
});
export type NodeRegisterRequest = z.infer<typeof nodeRegisterRequestSchema>;

export const reAttachRequestSchema = z.object({
  node_id: z.number().int().nonnegative(),
  /** Lets a pageserver register itself in the same call. */
  register: nodeRegisterRequestSchema.nullish(),
});
export type ReAttachRequest = z.infer<typeof reAttachRequestSchema>;

export const reAttachResponseSchema = z.object({
  tenants: z.array(z.object({ id: tenantShardIdSchema, gen: z.number().int().nullish(), mode: locationModeSchema.default("AttachedSingle") })),
});
export type ReAttachResponse = z.infer<typeof reAttachResponseSchema>;

export const validateRequestSchema = z.object({
  tenants: z.array(z.object({ id: tenantShardIdSchema, gen: z.number().int() })),
});
export type ValidateRequest = z.infer<typeof validateRequestSchema>;

export const validateResponseSchema = z.object({
  tenants: z.array(z.object({ id: tenantShardIdSchema, valid: z.boolean() })),
});
export type ValidateResponse = z.infer<typeof validateResponseSchema>;
