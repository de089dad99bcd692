/** Routes of locations and tenants. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { tenantShardIdText } from "../../http/params.ts";
import { emptyReply, jsonReply } from "../../http/route.ts";
import { parseTenantId, tenantShardIdToString } from "../../kit/ids.ts";
import { locationConfigListSchema, locationConfigSchema } from "../api/location.ts";
import { tenantDetailsSchema, tenantInfoSchema } from "../api/timelines.ts";
import { effectiveConf } from "../tenant/effective-conf.ts";
import { checkTenantConfNames, patchTenantConf } from "../tenant/tenant-config.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { physicalSize, tenantInfo } from "./present.ts";
import { ADMIN } from "./permissions.ts";

export const shardParams = z.object({ tenant_shard_id: tenantShardIdText });
const attachResult = z.object({ shards: z.array(z.unknown()), stripe_size: z.number().nullable() });
const configBody = z.object({ tenant_id: z.string() }).catchall(z.unknown());
const confSchema = z.record(z.string(), z.unknown());
const done = { 200: { description: "done", schema: z.null() } };

export function addTenantRoutes(app: HttpApp, { tenants }: { readonly tenants: Tenants }): void {
  addLocationRoutes(app, tenants);
  addConfigRoutes(app, tenants);
  app.route({ method: "get", path: "/v1/tenant", permission: ADMIN, summary: "All tenant shards here", responses: { 200: { description: "tenants", schema: z.array(tenantInfoSchema) } } }, () =>
    jsonReply(200, tenants.list().map(tenantInfo)),
  );
  app.route(
    {
      method: "get", path: "/v1/tenant/:tenant_shard_id", summary: "One tenant shard", params: shardParams,
      permission: { kind: "scope", scopes: ["tenant", "pageserverapi"], tenantParam: "tenant_shard_id" },
      responses: { 200: { description: "tenant", schema: tenantDetailsSchema } },
    },
    ({ params }) => {
      const view = tenants.view(params.tenant_shard_id);
      return jsonReply(200, { ...tenantInfo(view), current_physical_size: physicalSize(view), timelines: view.tenant?.manager.timelineIds ?? [] });
    },
  );
  app.route({ method: "delete", path: "/v1/tenant/:tenant_shard_id", permission: ADMIN, summary: "Delete a tenant shard and its data", params: shardParams, responses: { 200: { description: "gone" } } }, async ({ params }) => {
    await tenants.deleteTenant(params.tenant_shard_id);
    return emptyReply(200);
  });
}

function addLocationRoutes(app: HttpApp, tenants: Tenants): void {
  app.route(
    { method: "put", path: "/v1/tenant/:tenant_shard_id/location_config", permission: ADMIN, summary: "What this pageserver is to be for a tenant shard", params: shardParams, body: locationConfigSchema, responses: { 200: { description: "done", schema: attachResult } } },
    async ({ params, body }) => {
      await tenants.applyLocation(params.tenant_shard_id, body);
      return jsonReply(200, { shards: [], stripe_size: null });
    },
  );
  app.route({ method: "get", path: "/v1/location_config", permission: ADMIN, summary: "All locations", responses: { 200: { description: "locations", schema: locationConfigListSchema } } }, () =>
    jsonReply(200, { tenant_shards: tenants.list().map((view) => [tenantShardIdToString(view.id), view.location]) }),
  );
  app.route({ method: "get", path: "/v1/location_config/:tenant_shard_id", permission: ADMIN, summary: "One location", params: shardParams, responses: { 200: { description: "location", schema: locationConfigSchema } } }, ({ params }) =>
    jsonReply(200, tenants.view(params.tenant_shard_id).location),
  );
}

function addConfigRoutes(app: HttpApp, tenants: Tenants): void {
  app.route({ method: "put", path: "/v1/tenant/config", permission: ADMIN, summary: "Replace a tenant's configuration", body: configBody, responses: done }, async ({ body }) => {
    const { tenant_id: tenantId, ...conf } = body;
    checkTenantConfNames(conf);
    await tenants.configure(parseTenantId(tenantId), () => patchTenantConf({}, conf));
    return jsonReply(200, null);
  });
  app.route({ method: "patch", path: "/v1/tenant/config", permission: ADMIN, summary: "Change parts of a tenant's configuration: null removes, absent stays", body: configBody, responses: done }, async ({ body }) => {
    const { tenant_id: tenantId, ...patch } = body;
    checkTenantConfNames(patch);
    await tenants.configure(parseTenantId(tenantId), (conf) => patchTenantConf(conf, patch));
    return jsonReply(200, null);
  });
  app.route(
    {
      method: "get", path: "/v1/tenant/:tenant_shard_id/config", permission: ADMIN, summary: "A tenant's configuration", params: shardParams,
      responses: { 200: { description: "what was set, and what is in effect", schema: z.object({ tenant_specific_overrides: confSchema, effective_config: confSchema }) } },
    },
    ({ params }) => {
      const view = tenants.view(params.tenant_shard_id);
      return jsonReply(200, { tenant_specific_overrides: view.location.tenant_conf, effective_config: effectiveConf(tenants.settingsOf(params.tenant_shard_id), view.location.tenant_conf) });
    },
  );
}

