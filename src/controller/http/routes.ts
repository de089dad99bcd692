/** The controller's HTTP routes, at the peer's paths: `/v1` (pageserver-compatible), `/control/v1`, `/debug/v1`, `/upcall/v1`. */
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import type { Permission, Scope } from "../../http/auth.ts";
import type { HttpApp } from "../../http/app.ts";
import { integerText, tenantIdText, timelineIdText } from "../../http/params.ts";
import { emptyReply, jsonReply } from "../../http/route.ts";
import { nodeConfigureRequestSchema, nodeDescribeResponseSchema } from "../api/nodes.ts";
import {
  tenantConfigRequestSchema, tenantCreateRequestSchema, tenantCreateResponseSchema, tenantDescribeResponseSchema,
  tenantLocateResponseSchema, tenantPolicyRequestSchema, timelineCreateRequestSchema,
} from "../api/tenants.ts";
import { nodeRegisterRequestSchema, reAttachRequestSchema, reAttachResponseSchema, validateRequestSchema, validateResponseSchema } from "../api/upcall.ts";
import type { ControllerState } from "../service/state.ts";
import type { NodeService } from "../service/node-service.ts";
import type { TenantService } from "../service/tenant-service.ts";
import type { TimelineService } from "../service/timeline-service.ts";

export interface ControllerServices {
  readonly state: ControllerState;
  readonly nodes: NodeService;
  readonly tenants: TenantService;
  readonly timelines: TimelineService;
  /** Whether start-up is over: until then the state is incomplete. */
  readonly ready: () => boolean;
  readonly checkConsistency: () => Promise<void>;
  readonly reconcileAll: () => number;
}

function scoped(...scopes: Scope[]): Permission {
  return { kind: "scope", scopes };
}

const tenantParams = z.object({ tenant_id: tenantIdText });
const nodeParams = z.object({ node_id: integerText });
const done = { 200: { description: "done" } };

export function addControllerRoutes(app: HttpApp, services: ControllerServices): void {
  addUpcallRoutes(app, services);
  addNodeRoutes(app, services);
  addTenantRoutes(app, services);
  addPageserverRoutes(app, services);
  app.route({ method: "get", path: "/ready", permission: { kind: "public" }, summary: "Whether start-up is over", responses: { 200: { description: "ready" }, 503: { description: "starting" } } }, () =>
    emptyReply(services.ready() ? 200 : 503),
  );
}

function addUpcallRoutes(app: HttpApp, services: ControllerServices): void {
  app.route(
    { method: "post", path: "/upcall/v1/re-attach", permission: scoped("generations_api"), summary: "A pageserver has started: its tenants and their new generations", body: reAttachRequestSchema, responses: { 200: { description: "what it shall attach", schema: reAttachResponseSchema } } },
    async ({ body }) => jsonReply(200, await services.nodes.reAttach(body)),
  );
  app.route(
    { method: "post", path: "/upcall/v1/validate", permission: scoped("generations_api"), summary: "Whether generations are still the newest", body: validateRequestSchema, responses: { 200: { description: "one answer a tenant", schema: validateResponseSchema } } },
    async ({ body }) => jsonReply(200, await services.nodes.validate(body)),
  );
}

function addNodeRoutes(app: HttpApp, { nodes, state }: ControllerServices): void {
  app.route({ method: "post", path: "/control/v1/node", permission: scoped("infra"), summary: "Register a pageserver", body: nodeRegisterRequestSchema, responses: done }, async ({ body }) => {
    await nodes.register(body);
    return jsonReply(200, null);
  });
  app.route({ method: "get", path: "/control/v1/node", permission: scoped("infra"), summary: "All pageservers", responses: { 200: { description: "nodes", schema: z.array(nodeDescribeResponseSchema) } } }, () =>
    jsonReply(200, nodes.list()),
  );
  app.route({ method: "get", path: "/control/v1/node/:node_id", permission: scoped("infra"), summary: "One pageserver", params: nodeParams, responses: { 200: { description: "node", schema: nodeDescribeResponseSchema } } }, ({ params }) =>
    jsonReply(200, nodes.describe(state.node(params.node_id))),
  );
  app.route({ method: "put", path: "/control/v1/node/:node_id/config", permission: scoped("admin"), summary: "Set availability or scheduling policy", params: nodeParams, body: nodeConfigureRequestSchema, responses: done }, async ({ params, body }) => {
    if (body.node_id !== params.node_id) throw new StrataError("fix-input", "bad-request", "the node ids of path and body differ");
    await nodes.configure(body);
    return jsonReply(200, null);
  });
  app.route({ method: "delete", path: "/control/v1/node/:node_id", permission: scoped("admin"), summary: "Forget a pageserver that holds nothing", params: nodeParams, responses: done }, async ({ params }) => {
    await nodes.delete(params.node_id);
    return jsonReply(200, null);
  });
}

function addTenantRoutes(app: HttpApp, services: ControllerServices): void {
  const { tenants } = services;
  app.route({ method: "get", path: "/control/v1/tenant", permission: scoped("admin"), summary: "All tenants", responses: { 200: { description: "tenants", schema: z.array(tenantDescribeResponseSchema) } } }, () => jsonReply(200, tenants.list()));
  app.route({ method: "get", path: "/control/v1/tenant/:tenant_id", permission: scoped("admin", "scrubber"), summary: "One tenant", params: tenantParams, responses: { 200: { description: "tenant", schema: tenantDescribeResponseSchema } } }, ({ params }) =>
    jsonReply(200, tenants.describe(params.tenant_id)),
  );
  app.route({ method: "put", path: "/control/v1/tenant/:tenant_id/policy", permission: scoped("admin"), summary: "Set placement or scheduling policy", params: tenantParams, body: tenantPolicyRequestSchema, responses: done }, async ({ params, body }) => {
    await tenants.updatePolicy(params.tenant_id, body);
    return jsonReply(200, null);
  });
  app.route({ method: "get", path: "/debug/v1/tenant/:tenant_id/locate", permission: scoped("admin"), summary: "Where the tenant's shards are", params: tenantParams, responses: { 200: { description: "locations", schema: tenantLocateResponseSchema } } }, ({ params }) =>
    jsonReply(200, tenants.locate(params.tenant_id)),
  );
  app.route({ method: "post", path: "/debug/v1/consistency_check", permission: scoped("admin"), summary: "Compare memory and database", responses: done }, async () => {
    await services.checkConsistency();
    return jsonReply(200, null);
  });
  app.route({ method: "post", path: "/debug/v1/reconcile_all", permission: scoped("admin"), summary: "Start every reconcile that is due", responses: { 200: { description: "how many were started", schema: z.number() } } }, () =>
    jsonReply(200, services.reconcileAll()),
  );
}

function addPageserverRoutes(app: HttpApp, { tenants, timelines }: ControllerServices): void {
  const permission = scoped("pageserverapi");
  app.route({ method: "post", path: "/v1/tenant", permission, summary: "Create a tenant", body: tenantCreateRequestSchema, responses: { 201: { description: "created", schema: tenantCreateResponseSchema } } }, async ({ body }) =>
    jsonReply(201, await tenants.create(body)),
  );
  app.route({ method: "delete", path: "/v1/tenant/:tenant_id", permission, summary: "Delete a tenant and its data", params: tenantParams, responses: { 404: { description: "deleted: it is not there any more" } } }, async ({ params }) => {
    await tenants.delete(params.tenant_id);
    return jsonReply(404, { msg: "deleted" });
  });
  for (const [method, how] of [["put", "replace"], ["patch", "patch"]] as const) {
    app.route({ method, path: "/v1/tenant/config", permission, summary: `Tenant configuration: ${how}`, body: tenantConfigRequestSchema, responses: done }, async ({ body }) => {
      const { tenant_id, ...config } = body;
      await tenants.updateConfig(tenant_id, config, how);
      return jsonReply(200, null);
    });
  }
  const timelineParams = z.object({ tenant_id: tenantIdText, timeline_id: timelineIdText });
  app.route({ method: "post", path: "/v1/tenant/:tenant_id/timeline", permission, summary: "Create a timeline: a branch, or from a fresh initdb", params: tenantParams, body: timelineCreateRequestSchema, responses: { 201: { description: "the pageserver's timeline info", contentType: "application/json" } } }, ({ params, body }) =>
    timelines.create(params.tenant_id, body),
  );
  app.route({ method: "delete", path: "/v1/tenant/:tenant_id/timeline/:timeline_id", permission, summary: "Delete a timeline", params: timelineParams, responses: { 202: { description: "under way" }, 404: { description: "gone" } } }, ({ params }) =>
    timelines.delete(params.tenant_id, params.timeline_id),
  );
  app.route(
    {
      method: "put", path: "/v1/tenant/:tenant_id/time_travel_remote_storage", permission, params: tenantParams, body: z.object({ shard_counts: z.array(z.number().int().min(0).max(255)).max(256) }),
      summary: "A detached tenant's objects become what they were, for each number of shards it has had", query: z.object({ travel_to: z.string(), done_if_after: z.string() }), responses: done,
    },
    async ({ params, query, body, signal }) => {
      await timelines.timeTravel(params.tenant_id, { shardCounts: body.shard_counts, query: `?${new URLSearchParams(query)}`, signal });
      return jsonReply(200, null);
    },
  );
  for (const path of ["/v1/tenant/:tenant_id", "/v1/tenant/:tenant_id/*"]) {
    app.route({ method: "get", path, permission, summary: "Pass-through to shard 0's pageserver", params: tenantParams, responses: { 200: { description: "its answer", contentType: "application/json" } } }, ({ params, raw, signal }) => {
      const url = new URL(raw.url);
      const rest = url.pathname.slice(`/v1/tenant/${params.tenant_id}`.length) + url.search;
      return timelines.passThrough(params.tenant_id, { method: "GET", rest, signal });
    });
  }
}
