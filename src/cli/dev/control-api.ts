/** How the `dev` commands talk to the supervisor: a small HTTP API on loopback, and its client. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { HttpClient, urlPath } from "../../http/client.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { Clock } from "../../platform/clock.ts";
import { type Cluster, loadCluster } from "./cluster-file.ts";
import { type DevCluster, endpointUrl } from "./dev-cluster.ts";

const branchSchema = z.object({ name: z.string(), timelineId: z.string(), parent: z.string().nullable(), lsn: z.string().nullable() });
const endpointSchema = z.object({ name: z.string(), branch: z.string(), replica: z.boolean(), url: z.string(), running: z.boolean() });
const statusSchema = z.object({
  ready: z.boolean(),
  tenantId: z.string(),
  pgVersion: z.number(),
  branches: z.array(branchSchema),
  endpoints: z.array(endpointSchema),
  processes: z.record(z.string(), z.number().nullable()),
});
export type DevStatus = z.infer<typeof statusSchema>;

const branchRequestSchema = z.object({ name: z.string(), from: z.string(), at: z.string() });
const endpointRequestSchema = z.object({ name: z.string(), branch: z.string().nullable(), replica: z.boolean().default(false) });
const nameParams = z.object({ name: z.string() });

// On loopback only, and with no more power than the user's own files next to it.
const permission = { kind: "public" } as const;

/** A web page the user happens to look at must not be able to stop the cluster: browsers say where a request comes from. */
function refuseBrowsers(raw: Request): void {
  if (raw.headers.has("origin")) throw new StrataError("forbidden", "cross-origin", "requests from web pages are refused");
}

function statusOf(dev: DevCluster, ready: boolean): DevStatus {
  const { cluster } = dev;
  const processes = dev.processes();
  const endpoints = cluster.endpoints.map((one) => ({ name: one.name, branch: one.branch, replica: one.replica, url: endpointUrl(one), running: processes[`endpoint-${one.name}`] != null }));
  return { ready, tenantId: cluster.tenantId, pgVersion: cluster.pgVersion, branches: cluster.branches, endpoints, processes };
}

export function addControlRoutes(app: HttpApp, dev: DevCluster, actions: { ready: () => boolean; stop: () => void }): void {
  app.route({ method: "get", path: "/v1/dev", permission, summary: "The cluster", responses: { 200: { description: "status", schema: statusSchema } } }, () => jsonReply(200, statusOf(dev, actions.ready())));
  app.route({ method: "post", path: "/v1/dev/branch", permission, summary: "Create a branch", body: branchRequestSchema, responses: { 201: { description: "created", schema: branchSchema } } }, async ({ body, raw }) => {
    refuseBrowsers(raw);
    return jsonReply(201, await dev.createBranch(body));
  });
  app.route({ method: "post", path: "/v1/dev/endpoint", permission, summary: "Start an endpoint", body: endpointRequestSchema, responses: { 200: { description: "running", schema: endpointSchema } } }, async ({ body, raw }) => {
    refuseBrowsers(raw);
    const endpoint = await dev.startEndpoint(body);
    return jsonReply(200, { name: endpoint.name, branch: endpoint.branch, replica: endpoint.replica, url: endpointUrl(endpoint), running: true });
  });
  app.route({ method: "post", path: "/v1/dev/endpoint/:name/stop", permission, summary: "Stop an endpoint", params: nameParams, responses: { 200: { description: "stopped" } } }, async ({ params, raw }) => {
    refuseBrowsers(raw);
    await dev.stopEndpoint(params.name);
    return jsonReply(200, null);
  });
  app.route({ method: "post", path: "/v1/dev/stop", permission, summary: "Stop everything", responses: { 202: { description: "stopping" } } }, ({ raw }) => {
    refuseBrowsers(raw);
    actions.stop();
    return jsonReply(202, null);
  });
}

const START_ENDPOINT_TIMEOUT_MS = 900_000;

export class DevClient {
  readonly cluster: Cluster;
  readonly #http: HttpClient;

  constructor(cluster: Cluster, clock: Clock) {
    this.cluster = cluster;
    this.#http = new HttpClient({ baseUrl: `http://127.0.0.1:${cluster.ports.control}`, clock });
  }

  /** @throws StrataError not-found `no-cluster` when the directory has none */
  static async of(directory: string, deps: { files: FileSystem; clock: Clock }): Promise<DevClient> {
    const cluster = await loadCluster(deps.files, directory);
    if (cluster === null) throw new StrataError("not-found", "no-cluster", `${directory} holds no cluster: make one with "strata dev start"`);
    return new DevClient(cluster, deps.clock);
  }

  status(): Promise<DevStatus> {
    return this.#http.json({ method: "GET", path: "/v1/dev" }, statusSchema);
  }

  createBranch(request: z.infer<typeof branchRequestSchema>): Promise<z.infer<typeof branchSchema>> {
    return this.#http.json({ method: "POST", path: "/v1/dev/branch", json: request, timeoutMs: START_ENDPOINT_TIMEOUT_MS }, branchSchema);
  }

  startEndpoint(request: z.infer<typeof endpointRequestSchema>): Promise<z.infer<typeof endpointSchema>> {
    return this.#http.json({ method: "POST", path: "/v1/dev/endpoint", json: request, timeoutMs: START_ENDPOINT_TIMEOUT_MS }, endpointSchema);
  }

  stopEndpoint(name: string): Promise<void> {
    return this.#http.empty({ method: "POST", path: urlPath`/v1/dev/endpoint/${name}/stop`, timeoutMs: 120_000 });
  }

  stop(): Promise<void> {
    return this.#http.empty({ method: "POST", path: "/v1/dev/stop" });
  }
}
