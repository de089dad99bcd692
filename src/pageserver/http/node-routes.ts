/** Routes of the node as a whole: how full it is, eviction, failpoints. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { tenantShardIdText } from "../../http/params.ts";
import { emptyReply, jsonReply } from "../../http/route.ts";
import { InvariantError, StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { Clock } from "../../platform/clock.ts";
import type { DiskSpace } from "../../platform/real/disk-space.ts";
import { evictionOutcomeSchema, evictionRunSchema, utilizationSchema } from "../api/utilization.ts";
import type { DiskUsageEvictionConfig, Eviction } from "../eviction/eviction.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { ADMIN } from "./permissions.ts";

export interface NodeRouteOptions {
  readonly tenants: Tenants;
  readonly clock: Clock;
  readonly eviction: Eviction;
  readonly evictionConfig: DiskUsageEvictionConfig;
  readonly diskSpace: () => DiskSpace;
  /** Null unless in testing mode. */
  readonly failpoints: Failpoints | null;
}

const MAX_SHARDS = 2500;
const FULL = 1_000_000;

export function addNodeRoutes(app: HttpApp, options: NodeRouteOptions): void {
  const { failpoints } = options;
  app.route(
    { method: "get", path: "/v1/utilization", permission: ADMIN, summary: "How full this node is", responses: { 200: { description: "utilization", schema: utilizationSchema } } },
    async ({ signal }) => {
      await failpoints?.hit("get-utilization-http-handler", signal);
      return jsonReply(200, utilization(options));
    },
  );
  app.route(
    { method: "put", path: "/v1/disk_usage_eviction/run", permission: ADMIN, summary: "Evict local layers until so many bytes are free", body: evictionRunSchema, responses: { 200: { description: "what was done", schema: evictionOutcomeSchema } } },
    async ({ body, signal }) => {
      if (body.evict_bytes === 0) return jsonReply(200, "NoPressure");
      const order = body.eviction_order === undefined ? options.evictionConfig.order : { highestLayerCountLosesFirst: body.eviction_order.args.highest_layer_count_loses_first };
      const outcome = await options.eviction.evictBytes(body.evict_bytes, { order, signal });
      const usage = (freedBytes: number) => ({ evict_bytes: body.evict_bytes, freed_bytes: freedBytes });
      const { plannedBytes, beyondResidentBytes: beyond } = outcome;
      return jsonReply(200, {
        Finished: {
          before: usage(0),
          planned: { respecting_tenant_min_resident_size: usage(plannedBytes - (beyond ?? 0)), fallback_to_global_lru: beyond === null ? null : usage(plannedBytes) },
          assumed: { projected_after: usage(outcome.evictedBytes), failed: { file_sizes: outcome.failedBytes, count: outcome.failedLayers } },
        },
      });
    },
  );
  addTestingRoutes(app, options);
}

/** The disk as this node may use it, and what its tenants want of it. */
export function utilization({ tenants, clock, diskSpace, evictionConfig }: Pick<NodeRouteOptions, "tenants" | "clock" | "diskSpace" | "evictionConfig">): z.output<typeof utilizationSchema> {
  const { totalBytes, freeBytes, availableBytes } = diskSpace();
  const views = tenants.list();
  let wantedBytes = 0;
  for (const { tenant } of views) {
    if (tenant?.state !== "active") continue;
    for (const { timeline } of tenant.listTimelines()) for (const layer of timeline.stack.map.layers()) wantedBytes += layer.metadata.sizeBytes;
  }
  const usablePercent = evictionConfig.enabled ? evictionConfig.maxUsagePercent : 100;
  const usableBytes = Math.max(1, totalBytes * (usablePercent / 100));
  const score = Math.round(Math.max((FULL * wantedBytes) / usableBytes, (FULL * views.length) / MAX_SHARDS));
  return {
    disk_usage_bytes: totalBytes - freeBytes,
    free_space_bytes: availableBytes,
    disk_wanted_bytes: wantedBytes,
    disk_usable_pct: usablePercent,
    shard_count: views.length,
    max_shard_count: MAX_SHARDS,
    utilization_score: score,
    captured_at: new Date(clock.wallMs()).toISOString(),
  };
}

/** Refused unless the node was started in testing mode. */
function addTestingRoutes(app: HttpApp, { tenants, failpoints }: NodeRouteOptions): void {
  const testing = (what: string): Failpoints => {
    if (failpoints === null) throw new StrataError("fix-input", "not-testing", `cannot ${what}: this pageserver is not in testing mode`);
    return failpoints;
  };
  app.route(
    { method: "put", path: "/v1/failpoints", permission: ADMIN, summary: "Make something happen at named places (testing mode only)", body: z.array(z.object({ name: z.string(), actions: z.string() })).max(1000), responses: { 200: { description: "done", schema: z.null() } } },
    ({ body, log }) => {
      const points = testing("manage failpoints");
      for (const { name, actions } of body) {
        log.info("failpoint configured", { failpoint: name, actions });
        points.configure(name, actions);
      }
      return jsonReply(200, null);
    },
  );
  app.route(
    { method: "put", path: "/v1/tenant/:tenant_shard_id/break", permission: ADMIN, summary: "Make a tenant broken (testing mode only)", params: z.object({ tenant_shard_id: tenantShardIdText }), responses: { 200: { description: "done" } } },
    ({ params }) => {
      testing("break a tenant");
      tenants.attached(params.tenant_shard_id).markBroken(new InvariantError("broken from test"));
      return emptyReply(200);
    },
  );
}
