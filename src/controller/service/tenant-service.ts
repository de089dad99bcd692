/** Tenants: create, delete, locate, describe, configure. Each change is in the database before anybody acts on it. */
import { StrataError } from "../../kit/errors.ts";
import { parseTenantShardId, type TenantId, type TenantShardId, tenantShardIdToString } from "../../kit/ids.ts";
import type { KeyedLock } from "../../kit/keyed-lock.ts";
import {
  DEFAULT_STRIPE_SIZE_PAGES, type TenantConfig, type TenantCreateRequest, type TenantCreateResponse, type TenantDescribeResponse,
  type TenantLocateResponse, type TenantPolicyRequest,
} from "../api/tenants.ts";
import type { Persistence } from "../persistence/persistence.ts";
import type { NodeClient } from "../reconciler/node-client.ts";
import type { Reconciler } from "../reconciler/reconciler.ts";
import { placeShard } from "./placement.ts";
import { type ControllerState, shardToRow, type TenantShard } from "./state.ts";

export interface TenantServiceDeps {
  readonly state: ControllerState;
  readonly persistence: Persistence;
  readonly nodes: NodeClient;
  readonly reconciler: Reconciler;
  readonly locks: KeyedLock;
}

/** Fields of a create request that are not configuration. */
const CREATE_FIELDS = new Set(["new_tenant_id", "generation", "shard_parameters", "placement_policy"]);

function newShards(request: TenantCreateRequest): TenantShard[] {
  const { tenantId, count: idCount } = parseTenantShardId(request.new_tenant_id);
  if (idCount > 1) throw new StrataError("fix-input", "bad-request", "create a tenant by its id without a shard suffix; shard_parameters says how many shards");
  const count = request.shard_parameters?.count ?? 0;
  const config = Object.fromEntries(Object.entries(request).filter(([name]) => !CREATE_FIELDS.has(name)));
  return Array.from({ length: Math.max(count, 1) }, (_, number) => ({
    id: { tenantId, number, count },
    stripeSizePages: request.shard_parameters?.stripe_size ?? DEFAULT_STRIPE_SIZE_PAGES,
    policy: request.placement_policy ?? { Attached: 0 },
    scheduling: "Active",
    config,
    preferredAz: null,
    generation: request.generation ?? null,
    generationNode: null,
    intentAttached: null,
    intentSecondary: [],
    observed: new Map(),
    reconciling: false,
    lastError: "",
    splitting: false,
  }));
}

export class TenantService {
  readonly #deps: TenantServiceDeps;

  constructor(deps: TenantServiceDeps) {
    this.#deps = deps;
  }

  /** Resolves when every shard is attached. A repeated request for the same shape answers the same.
   *  @throws StrataError conflict `tenant-exists` when it exists in another shape; unavailable `no-pageserver` */
  create(request: TenantCreateRequest): Promise<TenantCreateResponse> {
    const shards = newShards(request);
    const tenantId = (shards[0] as TenantShard).id.tenantId;
    return this.#deps.locks.run({ key: tenantId, operation: "tenant create" }, async () => {
      const existing = await this.#createOnce(tenantId, shards);
      if (existing[0]?.policy !== "Detached") await Promise.all(existing.map((shard) => this.#deps.reconciler.reconcile(shard)));
      return {
        shards: existing.flatMap((shard) => (shard.intentAttached === null ? [] : [{ shard_id: tenantShardIdToString(shard.id), node_id: shard.intentAttached, generation: shard.generation ?? 0 }])),
      };
    });
  }

  async #createOnce(tenantId: TenantId, shards: TenantShard[]): Promise<TenantShard[]> {
    const { state, persistence } = this.#deps;
    if (state.hasTenant(tenantId)) {
      const existing = state.tenant(tenantId);
      if (existing.length !== shards.length) throw new StrataError("conflict", "tenant-exists", `tenant ${tenantId} exists with ${existing.length} shards`);
      return existing;
    }
    // Placed before it is stored: a fleet that cannot take the tenant refuses it whole.
    state.setTenant(tenantId, shards);
    try {
      for (const shard of shards) placeShard(state, shard);
      await persistence.insertTenantShards(shards.map(shardToRow));
    } catch (error) {
      state.removeTenant(tenantId);
      throw error;
    }
    return shards;
  }

  locate(tenantId: TenantId): TenantLocateResponse {
    const { state } = this.#deps;
    const shards = state.tenant(tenantId);
    const located = shards.map((shard) => {
      if (shard.intentAttached === null) throw new StrataError("unavailable", "tenant-not-attached", `tenant shard ${tenantShardIdToString(shard.id)} is not attached to a pageserver`);
      const node = state.node(shard.intentAttached);
      return {
        shard_id: tenantShardIdToString(shard.id),
        node_id: node.id,
        listen_pg_addr: node.listenPgAddr,
        listen_pg_port: node.listenPgPort,
        listen_http_addr: node.listenHttpAddr,
        listen_http_port: node.listenHttpPort,
        listen_https_port: node.listenHttpsPort,
      };
    });
    const first = shards[0] as TenantShard;
    return { shards: located, shard_params: { count: first.id.count, stripe_size: first.stripeSizePages } };
  }

  describe(tenantId: TenantId): TenantDescribeResponse {
    const shards = this.#deps.state.tenant(tenantId);
    const first = shards[0] as TenantShard;
    return {
      tenant_id: tenantId,
      shards: shards.map((shard) => ({
        tenant_shard_id: tenantShardIdToString(shard.id),
        node_attached: shard.intentAttached,
        node_secondary: [...shard.intentSecondary],
        last_error: shard.lastError,
        is_reconciling: shard.reconciling,
        is_pending_compute_notification: false,
        is_splitting: shard.splitting,
        scheduling_policy: shard.scheduling,
        preferred_az_id: shard.preferredAz,
      })),
      stripe_size: first.stripeSizePages,
      policy: first.policy,
      config: first.config,
    };
  }

  list(): TenantDescribeResponse[] {
    return this.#deps.state.tenantIds().map((id) => this.describe(id));
  }

  /** PUT replaces the configuration; PATCH sets what is given, null unsetting. */
  updateConfig(tenantId: TenantId, change: TenantConfig, how: "replace" | "patch"): Promise<void> {
    return this.#deps.locks.run({ key: tenantId, operation: "tenant config" }, async () => {
      const shards = this.#deps.state.tenant(tenantId);
      const merged = how === "replace" ? change : { ...(shards[0] as TenantShard).config, ...change };
      const config = Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
      await this.#deps.persistence.updateTenant(tenantId, { config: JSON.stringify(config) });
      for (const shard of shards) shard.config = config;
      await Promise.all(shards.map((shard) => this.#deps.reconciler.reconcile(shard)));
    });
  }

  updatePolicy(tenantId: TenantId, request: TenantPolicyRequest): Promise<void> {
    return this.#deps.locks.run({ key: tenantId, operation: "tenant policy" }, async () => {
      const { state, persistence, reconciler } = this.#deps;
      const shards = state.tenant(tenantId);
      const first = shards[0] as TenantShard;
      const policy = request.placement ?? first.policy;
      // Paused scheduling would keep a tenant where it is being sent away from.
      const scheduling = policy === "Detached" || policy === "Secondary" ? "Active" : (request.scheduling ?? first.scheduling);
      await persistence.updateTenant(tenantId, { placementPolicy: JSON.stringify(policy), schedulingPolicy: JSON.stringify(scheduling) });
      for (const shard of shards) {
        Object.assign(shard, { policy, scheduling });
        placeShard(state, shard);
        if (shard.intentAttached === null && shard.generationNode !== null) await this.#clearGenerationNode(shard);
        reconciler.reconcileInBackground(shard);
      }
    });
  }

  async #clearGenerationNode(shard: TenantShard): Promise<void> {
    await this.#deps.persistence.detach(shard.id);
    shard.generationNode = null;
  }

  /** Deletes the tenant's data through shard 0's pageserver and every other, then forgets it. Resumable: a failed call may be repeated. */
  delete(tenantId: TenantId): Promise<void> {
    return this.#deps.locks.run({ key: tenantId, operation: "tenant delete" }, async () => {
      const { state, persistence, nodes } = this.#deps;
      for (const shard of state.tenant(tenantId)) {
        if (shard.intentAttached === null) continue;
        const reply = await nodes.forward(state.node(shard.intentAttached), { method: "DELETE", path: `/v1/tenant/${tenantShardIdToString(shard.id)}` });
        await reply.arrayBuffer();
        if (reply.status >= 400 && reply.status !== 404) {
          throw new StrataError("unavailable", "tenant-delete-failed", `deleting ${tenantShardIdToString(shard.id)}: the pageserver answered ${reply.status}`);
        }
      }
      await persistence.deleteTenant(tenantId);
      state.removeTenant(tenantId);
    });
  }

  shard(id: TenantShardId): TenantShard {
    return this.#deps.state.shard(id);
  }
}
