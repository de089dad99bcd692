/**
 * Nodes: registration, re-attach, validation, heartbeats, configuration. What makes a node's availability change
 * lives here; what follows from it for the shards is `placeShard` and the reconciler.
 */
import { StrataError } from "../../kit/errors.ts";
import { type NodeId, parseTenantShardId, tenantShardIdToString } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { type NodeAvailability, type NodeConfigureRequest, type NodeDescribeResponse, schedulingFromJson, schedulingToJson } from "../api/nodes.ts";
import type { NodeRegisterRequest, ReAttachRequest, ReAttachResponse, ValidateRequest, ValidateResponse } from "../api/upcall.ts";
import type { Persistence } from "../persistence/persistence.ts";
import type { NodeClient } from "../reconciler/node-client.ts";
import type { Reconciler } from "../reconciler/reconciler.ts";
import { placeShard } from "./placement.ts";
import { type ControllerState, type Node, nodeFromRow } from "./state.ts";

export interface NodeServiceDeps {
  readonly state: ControllerState;
  readonly persistence: Persistence;
  readonly nodes: NodeClient;
  readonly reconciler: Reconciler;
  readonly clock: Clock;
  readonly log: Logger;
  /** Nodes without an HTTPS port are refused. */
  readonly useHttps: boolean;
  /** Silence after which a node counts as offline. */
  readonly offlineAfterMs: number;
}

export class NodeService {
  readonly #deps: NodeServiceDeps;

  constructor(deps: NodeServiceDeps) {
    this.#deps = deps;
  }

  describe(node: Node): NodeDescribeResponse {
    return {
      id: node.id,
      availability: node.availability,
      scheduling: schedulingToJson(node.scheduling),
      availability_zone_id: node.availabilityZone,
      listen_http_addr: node.listenHttpAddr,
      listen_http_port: node.listenHttpPort,
      listen_https_port: node.listenHttpsPort,
      listen_pg_addr: node.listenPgAddr,
      listen_pg_port: node.listenPgPort,
    };
  }

  list(): NodeDescribeResponse[] {
    return [...this.#deps.state.nodes.values()].map((node) => this.describe(node));
  }

  /** Idempotent; addresses may change. @throws StrataError conflict `node-az-changed`, fix-input `https-port-missing` */
  async register(request: NodeRegisterRequest): Promise<void> {
    const { state, persistence, log, useHttps } = this.#deps;
    if (useHttps && request.listen_https_port == null) throw new StrataError("fix-input", "https-port-missing", `node ${request.node_id} has no listen_https_port, and this controller is told to use HTTPS (--use-https-pageserver-api)`);
    const known = state.nodes.get(request.node_id);
    if (known !== undefined && known.availabilityZone !== request.availability_zone_id) {
      throw new StrataError("conflict", "node-az-changed", `node ${request.node_id} is registered in zone ${known.availabilityZone}, not ${request.availability_zone_id}`);
    }
    const row = {
      nodeId: request.node_id,
      schedulingPolicy: known?.scheduling ?? "active",
      listenHttpAddr: request.listen_http_addr,
      listenHttpPort: request.listen_http_port,
      listenHttpsPort: request.listen_https_port ?? null,
      listenPgAddr: request.listen_pg_addr,
      listenPgPort: request.listen_pg_port,
      availabilityZoneId: request.availability_zone_id,
    };
    await persistence.upsertNode(row);
    if (known === undefined) {
      state.nodes.set(request.node_id, nodeFromRow(row));
      log.info("node registered", { node: request.node_id, az: request.availability_zone_id });
    } else {
      Object.assign(known, { listenHttpAddr: row.listenHttpAddr, listenHttpPort: row.listenHttpPort, listenHttpsPort: row.listenHttpsPort, listenPgAddr: row.listenPgAddr, listenPgPort: row.listenPgPort });
    }
  }

  /** A node has started: its shards get their next generations, in the database first. */
  async reAttach(request: ReAttachRequest): Promise<ReAttachResponse> {
    const { state, persistence, clock, log } = this.#deps;
    if (request.register != null) await this.register(request.register);
    const node = state.node(request.node_id);
    const tenants: ReAttachResponse["tenants"] = [];
    for (const row of await persistence.reAttach(node.id)) {
      const shard = state.shard({ tenantId: row.tenantId, number: row.shardNumber, count: row.shardCount });
      shard.generation = row.generation;
      shard.generationNode = node.id;
      shard.observed.set(node.id, { mode: "AttachedSingle", generation: row.generation, configJson: JSON.stringify(shard.config) });
      tenants.push({ id: tenantShardIdToString(shard.id), gen: row.generation, mode: "AttachedSingle" });
    }
    for (const shard of state.allShards()) {
      if (!shard.intentSecondary.includes(node.id)) continue;
      tenants.push({ id: tenantShardIdToString(shard.id), gen: null, mode: "Secondary" });
    }
    node.lastSeenMs = clock.monotonicMs();
    node.availability = "WarmingUp";
    log.info("node re-attached", { node: node.id, tenants: tenants.length });
    return { tenants };
  }

  /** Whether each (shard, generation) is still the newest, by the database's word. */
  async validate(request: ValidateRequest): Promise<ValidateResponse> {
    const newest = new Map<string, number | null>();
    for (const row of await this.#deps.persistence.listTenantShards()) {
      newest.set(tenantShardIdToString({ tenantId: row.tenantId, number: row.shardNumber, count: row.shardCount }), row.generation);
    }
    return { tenants: request.tenants.map(({ id, gen }) => ({ id: tenantShardIdToString(parseTenantShardId(id)), valid: newest.get(id) === gen })) };
  }

  async configure(request: NodeConfigureRequest): Promise<void> {
    const { state, persistence } = this.#deps;
    const node = state.node(request.node_id);
    if (request.scheduling != null) {
      const policy = schedulingFromJson(request.scheduling);
      await persistence.setNodeScheduling(node.id, policy);
      node.scheduling = policy;
    }
    if (request.availability != null) await this.#setAvailability(node, request.availability);
  }

  /** Refused while shards are there. @throws StrataError conflict `node-in-use` */
  async delete(id: NodeId): Promise<void> {
    const { state, persistence } = this.#deps;
    const node = state.node(id);
    for (const shard of state.allShards()) {
      if (shard.intentAttached === id || shard.intentSecondary.includes(id)) throw new StrataError("conflict", "node-in-use", `node ${id} still has shard ${tenantShardIdToString(shard.id)}`);
    }
    await persistence.deleteNode(node.id);
    state.nodes.delete(id);
  }

  /** One round of heartbeats over all nodes, at the same time. */
  async heartbeat(): Promise<void> {
    const beats = [...this.#deps.state.nodes.values()].map((node) =>
      this.#heartbeatOne(node).catch((error: unknown) => this.#deps.log.info("heartbeat failed, next round tries again", { node: node.id, error })),
    );
    await Promise.all(beats);
  }

  async #heartbeatOne(node: Node): Promise<void> {
    const { nodes, clock, offlineAfterMs, log } = this.#deps;
    const silence = await nodes.ping(node);
    // Said once for each reason, not once a round.
    if (silence !== null && silence !== node.silence) log.info("node does not answer", { node: node.id, reason: silence });
    node.silence = silence;
    if (silence === null) {
      node.lastSeenMs = clock.monotonicMs();
      if (node.availability !== "Active") await this.#setAvailability(node, "Active");
    } else if (node.availability !== "Offline" && clock.monotonicMs() - node.lastSeenMs > offlineAfterMs) {
      await this.#setAvailability(node, "Offline");
    }
  }

  async #setAvailability(node: Node, availability: NodeAvailability): Promise<void> {
    if (node.availability === availability) return;
    const before = node.availability;
    if (availability === "Active" && before === "Offline") await this.#learnLocations(node);
    node.availability = availability;
    this.#deps.log.info("node availability changed", { node: node.id, from: before, to: availability });
    for (const shard of this.#deps.state.allShards()) this.#reconsider(shard, node.id);
  }

  #reconsider(shard: Parameters<typeof placeShard>[1], nodeId: NodeId): void {
    const { state, reconciler, log } = this.#deps;
    const concerned = shard.intentAttached === nodeId || shard.intentAttached === null || shard.intentSecondary.includes(nodeId) || shard.observed.has(nodeId);
    if (!concerned) return;
    try {
      placeShard(state, shard);
    } catch (error) {
      log.info("shard cannot be placed for now", { tenant: tenantShardIdToString(shard.id), error });
    }
    if (reconciler.plan(shard).length > 0) reconciler.reconcileInBackground(shard);
  }

  /** What the node has, in its own words; without an answer it stays offline. */
  async #learnLocations(node: Node): Promise<void> {
    const { state, nodes } = this.#deps;
    for (const shard of state.allShards()) shard.observed.delete(node.id);
    for (const { id, config } of await nodes.listLocations(node)) {
      if (!state.hasTenant(id.tenantId)) continue;
      const shard = state.shard(id);
      shard.observed.set(node.id, config === null ? null : { mode: config.mode, generation: config.generation, configJson: JSON.stringify(config.tenant_conf) });
    }
  }
}
