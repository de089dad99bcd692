/** Routes that make a timeline flush, compact or collect garbage now. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { booleanText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { ADMIN } from "./permissions.ts";
import { timelineParams } from "./timeline-routes.ts";

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
    { method: "put", path: `${base}/do_gc`, permission: ADMIN, summary: "Collect garbage", params: timelineParams, responses: { 200: { description: "what went", schema: z.object({ layers_removed: z.number(), gc_cutoff: z.number().nullable() }) } } },
    async ({ params, signal }) => {
      const { timeline, maintenance } = await find(params);
      await timeline.deps.failpoints?.hit("immediate_gc_task_pre", signal);
      const result = await maintenance.collectGarbage();
      return jsonReply(200, { layers_removed: result?.removed ?? 0, gc_cutoff: result?.cutoff ?? null });
    },
  );
}
