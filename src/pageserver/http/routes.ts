/** The pageserver's HTTP application, at the peer's paths. */
import { z } from "zod";
import { createHttpApp, type HttpApp, type HttpAppOptions } from "../../http/app.ts";
import type { JwtAuth } from "../../http/auth.ts";
import { jsonReply } from "../../http/route.ts";
import type { Clock } from "../../platform/clock.ts";
import type { DeletionQueue } from "../remote-timeline/deletion-queue.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { addArchivalRoutes } from "./archival-routes.ts";
import type { Imports } from "../import/imports.ts";
import { addImportRoutes } from "./import-routes.ts";
import { addLayerRoutes } from "./layer-routes.ts";
import { addNodeRoutes, type NodeRouteOptions } from "./node-routes.ts";
import { ADMIN } from "./permissions.ts";
import { addSizeRoutes } from "./size-routes.ts";
import { addTenantRoutes } from "./tenant-routes.ts";
import { addTimeTravelRoutes } from "./time-travel-routes.ts";
import { addTimelineMaintenanceRoutes } from "./timeline-maintenance-routes.ts";
import { addTimelineRoutes } from "./timeline-routes.ts";

export interface PageserverHttpOptions extends HttpAppOptions, NodeRouteOptions {
  readonly nodeId: number;
  readonly tenants: Tenants;
  readonly deletionQueue: DeletionQueue;
  readonly imports: Imports;
  readonly clock: Clock;
  /** PostgreSQL version of a new root timeline when the request names none. */
  readonly defaultPgVersion: number;
  readonly jwt: JwtAuth | null;
}

export function pageserverHttpApp(options: PageserverHttpOptions): HttpApp {
  const app = createHttpApp(options);
  app.route(
    { method: "get", path: "/v1/status", permission: { kind: "public" }, summary: "Which node this is", responses: { 200: { description: "up", schema: z.object({ id: z.number() }) } } },
    () => jsonReply(200, { id: options.nodeId }),
  );
  app.route(
    { method: "put", path: "/v1/deletion_queue/flush", permission: ADMIN, summary: "Carry out all pending deletions of objects", responses: { 200: { description: "done", schema: z.null() } } },
    async () => {
      await options.deletionQueue.flush();
      return jsonReply(200, null);
    },
  );
  app.route(
    { method: "post", path: "/v1/reload_auth_validation_keys", permission: ADMIN, summary: "Read the public keys again", responses: { 200: { description: "done", schema: z.null() } } },
    async () => {
      await options.jwt?.reload();
      return jsonReply(200, null);
    },
  );
  addTenantRoutes(app, options);
  addTimeTravelRoutes(app, options);
  addNodeRoutes(app, options);
  addImportRoutes(app, options);
  addLayerRoutes(app, options);
  addArchivalRoutes(app, options);
  addSizeRoutes(app, options);
  addTimelineRoutes(app, options);
  addTimelineMaintenanceRoutes(app, options);
  return app;
}
