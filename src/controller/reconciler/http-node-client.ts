/** `NodeClient` over HTTP. */
import { z } from "zod";
import { describeError, StrataError } from "../../kit/errors.ts";
import { parseTenantShardId, type TenantShardId, tenantShardIdToString } from "../../kit/ids.ts";
import { HttpClient, urlPath } from "../../http/client.ts";
import type { Clock } from "../../platform/clock.ts";
import { tenantConfigSchema } from "../api/tenants.ts";
import { locationModeSchema } from "../api/upcall.ts";
import type { LocationConfigBody, NodeAddress, NodeClient, ObservedTenant } from "./node-client.ts";

const PING_TIMEOUT_MS = 5_000;
/** Attaching loads the tenant's index from object storage. */
const LOCATION_TIMEOUT_MS = 60_000;
/** Timeline creation may run initdb. */
const FORWARD_TIMEOUT_MS = 120_000;

const locationConfigSchema = z.object({
  mode: locationModeSchema,
  generation: z.number().int().nullable().default(null),
  secondary_conf: z.object({ warm: z.boolean() }).nullable().default(null),
  shard_number: z.number().int().default(0),
  shard_count: z.number().int().default(0),
  shard_stripe_size: z.number().int().default(0),
  tenant_conf: tenantConfigSchema,
});

const locationListSchema = z.object({ tenant_shards: z.array(z.tuple([z.string(), locationConfigSchema.nullable()])) });

export interface HttpNodeClientOptions {
  readonly clock: Clock;
  readonly token: string | undefined;
  /** `--use-https-pageserver-api` */
  readonly useHttps: boolean;
  /** Certificate authorities to trust instead of the system's. */
  readonly caPem: string | undefined;
}

export class HttpNodeClient implements NodeClient {
  readonly #options: HttpNodeClientOptions;

  constructor(options: HttpNodeClientOptions) {
    this.#options = options;
  }

  #client(node: NodeAddress, timeoutMs: number): HttpClient {
    const { clock, token, caPem } = this.#options;
    return new HttpClient({ baseUrl: this.#baseUrl(node), clock, timeoutMs, ...(token === undefined ? {} : { token }), ...(caPem === undefined ? {} : { caPem }) });
  }

  /** A node from before --use-https-pageserver-api may have told no port for it: it is not spoken to in plain text. */
  #baseUrl(node: NodeAddress): string {
    if (!this.#options.useHttps) return `http://${node.listenHttpAddr}:${node.listenHttpPort}`;
    if (node.listenHttpsPort === null) throw new StrataError("unavailable", "https-port-missing", `the node at ${node.listenHttpAddr} has told no HTTPS port`);
    return `https://${node.listenHttpAddr}:${node.listenHttpsPort}`;
  }

  async putLocationConfig(node: NodeAddress, id: TenantShardId, body: LocationConfigBody): Promise<void> {
    await this.#client(node, LOCATION_TIMEOUT_MS).empty({ method: "PUT", path: urlPath`/v1/tenant/${tenantShardIdToString(id)}/location_config`, json: body });
  }

  async listLocations(node: NodeAddress, signal?: AbortSignal): Promise<ObservedTenant[]> {
    const reply = await this.#client(node, LOCATION_TIMEOUT_MS).json({ method: "GET", path: "/v1/location_config", ...(signal === undefined ? {} : { signal }) }, locationListSchema);
    return reply.tenant_shards.map(([id, config]) => ({ id: parseTenantShardId(id), config }));
  }

  forward(node: NodeAddress, request: { method: string; path: string; body?: string | undefined; signal?: AbortSignal }): Promise<Response> {
    return this.#client(node, FORWARD_TIMEOUT_MS).raw({
      method: request.method as "GET" | "POST" | "PUT" | "PATCH" | "DELETE",
      path: request.path,
      ...(request.body === undefined ? {} : { bytes: new TextEncoder().encode(request.body), headers: { "content-type": "application/json" } }),
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    });
  }

  async ping(node: NodeAddress): Promise<string | null> {
    try {
      await this.#client(node, PING_TIMEOUT_MS).empty({ method: "GET", path: "/v1/status" });
      return null;
    } catch (error) {
      return describeError(error);
    }
  }
}
