/** Routes of layers and keys: what there is; fetch a layer, or drop its local file. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { lsnText, tenantShardIdText, timelineIdText } from "../../http/params.ts";
import { jsonTextReply, listJson } from "../../http/long-reply.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import { keySpaceSchema, layerMapSchema } from "../api/layers.ts";
import type { Layer } from "../layers/layer.ts";
import { checkNotCollected } from "../page-service/effective-lsn.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { keySpaceInfo, layerMapInfo } from "./layer-info.ts";
import { ADMIN, TIMELINE_PERMISSION } from "./permissions.ts";
import { timelineParams } from "./timeline-routes.ts";

const params = z.object({ tenant_shard_id: tenantShardIdText, timeline_id: timelineIdText, layer_file_name: z.string() });
const timelinePath = "/v1/tenant/:tenant_shard_id/timeline/:timeline_id";
const path = `${timelinePath}/layer/:layer_file_name`;
/** 304: it is so already. */
const responses = { 200: { description: "done", schema: z.null() }, 304: { description: "nothing to do" } };

export function addLayerRoutes(app: HttpApp, { tenants }: { readonly tenants: Tenants }): void {
  const find = async (of: z.output<typeof params>): Promise<Layer> => {
    const { timeline } = await tenants.attached(of.tenant_shard_id).timeline(of.timeline_id);
    for (const layer of timeline.stack.map.layers()) if (layer.toString() === of.layer_file_name) return layer;
    throw new StrataError("not-found", "layer-not-found", `layer ${of.layer_file_name} is not in the timeline`);
  };
  app.route({ method: "get", path: `${timelinePath}/layer`, permission: TIMELINE_PERMISSION, summary: "The layer map", params: timelineParams, responses: { 200: { description: "layers", schema: layerMapSchema } } }, async (request) => {
    const { timeline } = await tenants.attached(request.params.tenant_shard_id).timeline(request.params.timeline_id);
    const { in_memory_layers: inMemory, layerOf } = layerMapInfo(timeline);
    const historic = await listJson(timeline.stack.map.layers(), layerOf, { clock: timeline.deps.platform.clock, signal: request.signal });
    return jsonTextReply(200, `{"in_memory_layers":${JSON.stringify(inMemory)},"historic_layers":${historic}}`);
  });
  app.route(
    { method: "get", path: `${timelinePath}/keyspace`, permission: TIMELINE_PERMISSION, summary: "Every key in use at an LSN", params: timelineParams, query: z.object({ at_lsn: lsnText.optional() }), responses: { 200: { description: "ranges of keys", schema: keySpaceSchema } } },
    async ({ params: of, query, signal }) => {
      const view = await tenants.attached(of.tenant_shard_id).timeline(of.timeline_id);
      const { timeline } = view;
      const lsn = query.at_lsn ?? timeline.lastRecordLsn;
      checkNotCollected(view, lsn);
      await timeline.waitLsn(lsn, { who: "keyspace over HTTP", signal });
      return jsonReply(200, keySpaceInfo(await timeline.deps.keyspaceAt(timeline, lsn, { task: "http", signal }), lsn));
    },
  );
  const outcome = (done: boolean) => (done ? jsonReply(200, null) : new Response(null, { status: 304 }));
  app.route({ method: "get", path, permission: ADMIN, summary: "Bring a layer to the local disk", params, responses }, async (request) => {
    const layer = await find(request.params);
    if (layer.isResident) return outcome(false);
    await layer.makeResident(request.signal);
    return outcome(true);
  });
  app.route({ method: "delete", path, permission: ADMIN, summary: "Drop the local file of a layer that object storage has", params, responses }, async (request) => outcome(await (await find(request.params)).evict()));
}
