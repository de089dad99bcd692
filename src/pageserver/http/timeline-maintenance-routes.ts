/** Routes that make a timeline flush, compact or collect garbage now. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { booleanText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { NOTHING_COLLECTED } from "../maintenance/gc-planner.ts";
import type { CollectedGarbage } from "../maintenance/timeline-maintenance.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { ADMIN } from "./permissions.ts";
import { timelineParams } from "./timeline-routes.ts";

const gcRequestSchema = z.object({ gc_horizon: z.number().int().nonnegative().nullish() });
const gcResultSchema = z.object({
  layers_total: z.number(),
  layers_needed_by_cutoff: z.number(),
  layers_needed_by_pitr: z.number(),
  layers_needed_by_branches: z.number(),
  layers_needed_by_leases: z.number(),
  layers_not_updated: z.number(),
  layers_removed: z.number(),
  /** Milliseconds. */
  elapsed: z.number(),
  /** Beyond the peer's: history is gone below it; null when nothing was looked at. */
  gc_cutoff: z.number().nullable(),
});
const NOTHING = { ...NOTHING_COLLECTED, cutoff: null, elapsedMs: 0 };

const base = "/v1/tenant/:tenant_shard_id/timeline/:timeline_id";
const done = { 200: { description: "done", schema: z.null() } };

export function addTimelineMaintenanceRoutes(app: HttpApp, { tenants }: { readonly tenants: Tenants }): void {
  const find = async (params: z.output<typeof timelineParams>) => {
    const tenant = tenants.attached(params.tenant_shard_id);
    const { timeline } = await tenant.timeline(params.timeline_id);
    return { timeline, maintenance: tenant.manager.maintenanceOf(params.timeline_id) };
  };
  const flags = z.object({ force_l0_compaction: booleanText.optional(), force_image_layer_creation: booleanText.optional(), wait_until_uploaded: booleanText.optional(), compact: booleanText.optional() });
  app.route({ method: "put", path: `${base}/checkpoint`, permission: ADMIN, summary: "Flush to layers, and compact", params: timelineParams, query: flags, responses: done }, async ({ params, query, signal }) => {
    const { timeline, maintenance } = await find(params);
    await timeline.freezeAndFlush();
    if (query.compact !== false) await maintenance.compact({ forceL0: query.force_l0_compaction === true, forceImages: query.force_image_layer_creation === true });
    if (query.wait_until_uploaded === true) await timeline.waitUploaded(signal);
    return jsonReply(200, null);
  });
  app.route({ method: "put", path: `${base}/compact`, permission: ADMIN, summary: "Compact", params: timelineParams, query: flags, responses: done }, async ({ params, query, signal }) => {
    const { timeline, maintenance } = await find(params);
    await maintenance.compact({ forceL0: query.force_l0_compaction === true, forceImages: query.force_image_layer_creation === true });
    if (query.wait_until_uploaded === true) await timeline.waitUploaded(signal);
    return jsonReply(200, null);
  });
  app.route(
    { method: "put", path: `${base}/do_gc`, permission: ADMIN, summary: "Collect garbage", params: timelineParams, body: gcRequestSchema, responses: { 200: { description: "what went, and why the rest stays", schema: gcResultSchema } } },
    async ({ params, body, signal }) => {
      const { timeline, maintenance } = await find(params);
      await timeline.deps.failpoints?.hit("immediate_gc_task_pre", signal);
      const result = await maintenance.collectGarbage(body.gc_horizon == null ? {} : { gcHorizonBytes: body.gc_horizon });
      return jsonReply(200, gcResult(result ?? NOTHING));
    },
  );
}

function gcResult(collected: Omit<CollectedGarbage, "cutoff"> & { readonly cutoff: Lsn | null }): z.output<typeof gcResultSchema> {
  const { removed, keptByHorizon, keptByPitr, keptByBranches, keptByLeases, keptUncovered, cutoff, elapsedMs } = collected;
  return {
    layers_total: removed + keptByHorizon + keptByPitr + keptByBranches + keptByLeases + keptUncovered,
    layers_needed_by_cutoff: keptByHorizon,
    layers_needed_by_pitr: keptByPitr,
    layers_needed_by_branches: keptByBranches,
    layers_needed_by_leases: keptByLeases,
    layers_not_updated: keptUncovered,
    layers_removed: removed,
    elapsed: Math.round(elapsedMs),
    gc_cutoff: cutoff,
  };
}
