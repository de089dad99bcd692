/** What the controller says to a pageserver. One instance a controller; nodes are addressed per call. */
import type { TenantShardId } from "../../kit/ids.ts";
import type { LocationMode } from "../api/upcall.ts";

export interface NodeAddress {
  readonly listenHttpAddr: string;
  readonly listenHttpPort: number;
  readonly listenHttpsPort: number | null;
}

/** The body of PUT /v1/tenant/:id/location_config. */
export interface LocationConfigBody {
  readonly mode: LocationMode;
  readonly generation: number | null;
  readonly secondary_conf: { readonly warm: boolean } | null;
  readonly shard_number: number;
  readonly shard_count: number;
  readonly shard_stripe_size: number;
  readonly tenant_conf: Readonly<Record<string, unknown>>;
}

export interface ObservedTenant {
  readonly id: TenantShardId;
  /** null: the node knows the tenant but cannot say in what state. */
  readonly config: LocationConfigBody | null;
}

export interface NodeClient {
  /** @throws StrataError of the node's answer, or unavailable when there was none */
  putLocationConfig(node: NodeAddress, id: TenantShardId, body: LocationConfigBody): Promise<void>;
  listLocations(node: NodeAddress, signal?: AbortSignal): Promise<ObservedTenant[]>;
  /** Any request below /v1; the node's reply as it is. */
  forward(node: NodeAddress, request: { method: string; path: string; body?: string | undefined; signal?: AbortSignal }): Promise<Response>;
  /** Null when GET /v1/status answers within the deadline, else why not. Never rejects. */
  ping(node: NodeAddress): Promise<string | null>;
}
