/** Pageserver nodes as the controller's HTTP API speaks of them (the peer's JSON, field for field). */
import { z } from "zod";

export const nodeSchedulingSchema = z.enum(["active", "filling", "pause", "pause_for_restart", "draining"]);
export type NodeScheduling = z.infer<typeof nodeSchedulingSchema>;

export const nodeAvailabilitySchema = z.enum(["Active", "WarmingUp", "Offline"]);
export type NodeAvailability = z.infer<typeof nodeAvailabilitySchema>;

export const nodeConfigureRequestSchema = z.object({
  node_id: z.number().int().nonnegative(),
  availability: nodeAvailabilitySchema.nullish(),
  scheduling: z.enum(["Active", "Filling", "Pause", "PauseForRestart", "Draining"]).nullish(),
});
export type NodeConfigureRequest = z.infer<typeof nodeConfigureRequestSchema>;

export const nodeDescribeResponseSchema = z.object({
  id: z.number().int(),
  availability: nodeAvailabilitySchema,
  scheduling: z.enum(["Active", "Filling", "Pause", "PauseForRestart", "Draining"]),
  availability_zone_id: z.string(),
  listen_http_addr: z.string(),
  listen_http_port: z.number().int(),
  listen_https_port: z.number().int().nullish(),
  listen_pg_addr: z.string(),
  listen_pg_port: z.number().int(),
});
export type NodeDescribeResponse = z.infer<typeof nodeDescribeResponseSchema>;

const JSON_NAMES = { active: "Active", filling: "Filling", pause: "Pause", pause_for_restart: "PauseForRestart", draining: "Draining" } as const;

/** The JSON form of a stored scheduling policy. */
export function schedulingToJson(policy: NodeScheduling): (typeof JSON_NAMES)[NodeScheduling] {
  return JSON_NAMES[policy];
}

/** The stored form of a JSON scheduling policy. */
export function schedulingFromJson(name: (typeof JSON_NAMES)[NodeScheduling]): NodeScheduling {
  const found = nodeSchedulingSchema.options.find((policy) => JSON_NAMES[policy] === name);
  return found ?? "active";
}
