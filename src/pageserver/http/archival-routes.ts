/** Routes of timelines that nobody needs for now, and of the hint for secondaries. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { jsonReply } from "../../http/route.ts";
import { tenantShardIdToString } from "../../kit/ids.ts";
import { lsnToString } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";
import { archivalConfigSchema, type OffloadedTimelineInfo, timelinesAndOffloadedSchema } from "../api/timelines.ts";
import type { OffloadedTimeline } from "../remote-timeline/tenant-manifest.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { ADMIN, TENANT_PERMISSION, TIMELINE_PERMISSION } from "./permissions.ts";
import { knownTimelineInfo } from "./present.ts";
import { shardParams } from "./tenant-routes.ts";
import { timelineParams } from "./timeline-routes.ts";

const done = { 200: { description: "done", schema: z.null() } };
const timelinePath = "/v1/tenant/:tenant_shard_id/timeline/:timeline_id";

export function addArchivalRoutes(app: HttpApp, { tenants, clock }: { readonly tenants: Tenants; readonly clock: Clock }): void {
  app.route(
    { method: "put", path: `${timelinePath}/archival_config`, permission: TIMELINE_PERMISSION, summary: "Archive a timeline, or take it up again", params: timelineParams, body: archivalConfigSchema, responses: done },
    async ({ params, body, signal }) => {
      const tenant = tenants.attached(params.tenant_shard_id);
      await tenant.load();
      await tenant.configureArchival(params.timeline_id, body.state, signal);
      return jsonReply(200, null);
    },
  );
  app.route({ method: "put", path: `${timelinePath}/offload`, permission: ADMIN, summary: "Take an archived timeline out of memory now", params: timelineParams, responses: done }, async ({ params }) => {
    const tenant = tenants.attached(params.tenant_shard_id);
    await tenant.load();
    await tenant.offloadTimeline(params.timeline_id);
    return jsonReply(200, null);
  });
  app.route(
    { method: "get", path: "/v1/tenant/:tenant_shard_id/timeline_and_offloaded", permission: TENANT_PERMISSION, summary: "All timelines, the offloaded ones too", params: shardParams, responses: { 200: { description: "timelines", schema: timelinesAndOffloadedSchema } } },
    async ({ params }) => {
      const tenant = tenants.attached(params.tenant_shard_id);
      await tenant.load();
      const id = tenantShardIdToString(params.tenant_shard_id);
      return jsonReply(200, { timelines: tenant.listTimelines().map(knownTimelineInfo), offloaded: tenant.manager.offloaded.map((timeline) => offloadedInfo(id, timeline)) });
    },
  );
  app.route({ method: "post", path: "/v1/tenant/:tenant_shard_id/heatmap_upload", permission: ADMIN, summary: "Upload the heatmap now", params: shardParams, responses: done }, async ({ params, signal }) => {
    const tenant = tenants.attached(params.tenant_shard_id);
    await tenant.load();
    await tenant.heatmap.upload({ uploadPeriodMs: tenant.settings.heatmapPeriodMs, nowMs: clock.monotonicMs(), force: true, signal });
    return jsonReply(200, null);
  });
}

function offloadedInfo(tenantId: string, { timelineId, ancestor, archivedAt }: OffloadedTimeline): OffloadedTimelineInfo {
  return {
    tenant_id: tenantId,
    timeline_id: timelineId,
    ancestor_timeline_id: ancestor?.timelineId ?? null,
    ancestor_retain_lsn: ancestor === null ? null : lsnToString(ancestor.lsn),
    archived_at: `${archivedAt}Z`,
  };
}
