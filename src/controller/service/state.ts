/** What the controller knows while it runs: nodes, tenant shards, and where each shard is and should be. */
import { StrataError } from "../../kit/errors.ts";
import { type NodeId, type TenantId, type TenantShardId, tenantShardIdToString } from "../../kit/ids.ts";
import type { NodeAvailability, NodeScheduling } from "../api/nodes.ts";
import { type PlacementPolicy, parsePlacementPolicy, type ShardSchedulingPolicy, shardSchedulingPolicySchema, type TenantConfig, tenantConfigSchema } from "../api/tenants.ts";
import type { NodeRow, TenantShardRow } from "../persistence/persistence.ts";
import type { ObservedLocation } from "../reconciler/plan.ts";
import type { NodeView } from "../scheduler/scheduler.ts";

export interface Node {
  readonly id: NodeId;
  scheduling: NodeScheduling;
  availability: NodeAvailability;
  /** Monotonic time of the last good heartbeat. */
  lastSeenMs: number;
  /** Why it did not answer the latest heartbeat; null when it did. */
  silence: string | null;
  listenHttpAddr: string;
  listenHttpPort: number;
  listenHttpsPort: number | null;
  listenPgAddr: string;
  listenPgPort: number;
  availabilityZone: string;
}

export interface TenantShard {
  readonly id: TenantShardId;
  readonly stripeSizePages: number;
  policy: PlacementPolicy;
  scheduling: ShardSchedulingPolicy;
  config: TenantConfig;
  preferredAz: string | null;
  generation: number | null;
  generationNode: NodeId | null;
  intentAttached: NodeId | null;
  intentSecondary: NodeId[];
  /** Node → what it has; null when a request to it failed midway, so that only asking again will tell. */
  readonly observed: Map<NodeId, ObservedLocation | null>;
  reconciling: boolean;
  lastError: string;
  splitting: boolean;
}

function parseConfig(json: string): TenantConfig {
  const parsed = tenantConfigSchema.safeParse(JSON.parse(json));
  if (!parsed.success) throw new StrataError("corrupt", "bad-stored-config", "a stored tenant configuration is not a JSON object");
  return parsed.data;
}

export function nodeFromRow(row: NodeRow): Node {
  return {
    id: row.nodeId,
    scheduling: row.schedulingPolicy as NodeScheduling,
    availability: "Offline",
    lastSeenMs: Number.NEGATIVE_INFINITY,
    silence: null,
    listenHttpAddr: row.listenHttpAddr,
    listenHttpPort: row.listenHttpPort,
    listenHttpsPort: row.listenHttpsPort,
    listenPgAddr: row.listenPgAddr,
    listenPgPort: row.listenPgPort,
    availabilityZone: row.availabilityZoneId,
  };
}

export function shardFromRow(row: TenantShardRow): TenantShard {
  return {
    id: { tenantId: row.tenantId, number: row.shardNumber, count: row.shardCount },
    stripeSizePages: row.shardStripeSize,
    policy: parsePlacementPolicy(row.placementPolicy),
    scheduling: shardSchedulingPolicySchema.parse(JSON.parse(row.schedulingPolicy)),
    config: parseConfig(row.config),
    preferredAz: row.preferredAzId,
    generation: row.generation,
    generationNode: row.generationPageserver,
    intentAttached: row.generationPageserver,
    intentSecondary: [],
    observed: new Map(),
    reconciling: false,
    lastError: "",
    splitting: row.splitting !== 0,
  };
}

export function shardToRow(shard: TenantShard): TenantShardRow {
  return {
    tenantId: shard.id.tenantId,
    shardNumber: shard.id.number,
    shardCount: shard.id.count,
    shardStripeSize: shard.stripeSizePages,
    generation: shard.generation,
    generationPageserver: shard.generationNode,
    placementPolicy: JSON.stringify(shard.policy),
    splitting: shard.splitting ? 1 : 0,
    config: JSON.stringify(shard.config),
    schedulingPolicy: JSON.stringify(shard.scheduling),
    preferredAzId: shard.preferredAz,
  };
}

/** All mutable state of the role, with the look-ups that many need. */
export class ControllerState {
  readonly nodes = new Map<NodeId, Node>();
  readonly #tenants = new Map<TenantId, TenantShard[]>();

  /** @throws StrataError not-found `node-not-found` */
  node(id: NodeId): Node {
    const node = this.nodes.get(id);
    if (node === undefined) throw new StrataError("not-found", "node-not-found", `node ${id} is not registered`);
    return node;
  }

  /** Shards of a tenant by number. @throws StrataError not-found `tenant-not-found` */
  tenant(id: TenantId): TenantShard[] {
    const shards = this.#tenants.get(id);
    if (shards === undefined) throw new StrataError("not-found", "tenant-not-found", `tenant ${id} not found`);
    return shards;
  }

  hasTenant(id: TenantId): boolean {
    return this.#tenants.has(id);
  }

  /** @throws StrataError not-found `tenant-not-found` */
  shard(id: TenantShardId): TenantShard {
    const shard = this.tenant(id.tenantId).find((one) => one.id.number === id.number && one.id.count === id.count);
    if (shard === undefined) throw new StrataError("not-found", "tenant-not-found", `tenant shard ${tenantShardIdToString(id)} not found`);
    return shard;
  }

  setTenant(id: TenantId, shards: TenantShard[]): void {
    this.#tenants.set(id, shards);
  }

  addShard(shard: TenantShard): void {
    const shards = this.#tenants.get(shard.id.tenantId) ?? [];
    shards.push(shard);
    shards.sort((a, b) => a.id.number - b.id.number);
    this.#tenants.set(shard.id.tenantId, shards);
  }

  removeTenant(id: TenantId): void {
    this.#tenants.delete(id);
  }

  tenantIds(): TenantId[] {
    return [...this.#tenants.keys()];
  }

  *allShards(): Generator<TenantShard> {
    for (const shards of this.#tenants.values()) yield* shards;
  }

  /** The fleet as the scheduler sees it. */
  nodeViews(): NodeView[] {
    const attached = new Map<NodeId, number>();
    const locations = new Map<NodeId, number>();
    const add = (counts: Map<NodeId, number>, id: NodeId): void => void counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const shard of this.allShards()) {
      if (shard.intentAttached !== null) {
        add(attached, shard.intentAttached);
        add(locations, shard.intentAttached);
      }
      for (const node of shard.intentSecondary) add(locations, node);
    }
    return [...this.nodes.values()].map((node) => ({
      id: node.id,
      availability: node.availability,
      scheduling: node.scheduling,
      availabilityZone: node.availabilityZone,
      attachedCount: attached.get(node.id) ?? 0,
      locationCount: locations.get(node.id) ?? 0,
    }));
  }
}

