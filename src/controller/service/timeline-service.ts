/** Timelines: requests that go to the tenant's pageservers, shard 0 first because it decides what the others repeat. */
import { StrataError } from "../../kit/errors.ts";
import { type TenantId, type TimelineId, tenantShardIdToString } from "../../kit/ids.ts";
import type { KeyedLock } from "../../kit/keyed-lock.ts";
import { errorFromReply } from "../../http/errors.ts";
import type { TimelineCreateRequest } from "../api/tenants.ts";
import type { NodeClient } from "../reconciler/node-client.ts";
import type { ControllerState, TenantShard } from "./state.ts";

export interface TimelineServiceDeps {
  readonly state: ControllerState;
  readonly nodes: NodeClient;
  readonly locks: KeyedLock;
}

interface ForwardRequest {
  readonly method: string;
  /** Below `/v1/tenant/<shard>`, query included; begins with a slash or is empty. */
  readonly rest: string;
  readonly body?: string | undefined;
  readonly signal?: AbortSignal;
}

export class TimelineService {
  readonly #deps: TimelineServiceDeps;

  constructor(deps: TimelineServiceDeps) {
    this.#deps = deps;
  }

  /** The pageserver's answer of shard 0 (a TimelineInfo), with its status. */
  create(tenantId: TenantId, request: TimelineCreateRequest): Promise<Response> {
    return this.#deps.locks.run({ key: tenantId, operation: "timeline create" }, async () => {
      const [first, ...others] = this.#deps.state.tenant(tenantId);
      const reply = await this.#forward(first as TenantShard, { method: "POST", rest: "/timeline", body: JSON.stringify(request) });
      if (reply.status >= 300 || others.length === 0) return reply;
      const info = await reply.json() as { ancestor_lsn?: string | null };
      // A branch at "now" must be at shard 0's now on every shard, and a root of the cluster that shard 0's initdb made.
      const pinned = info.ancestor_lsn == null ? { ...request, existing_initdb_timeline_id: request.new_timeline_id } : { ...request, ancestor_start_lsn: info.ancestor_lsn };
      await Promise.all(others.map(async (shard) => {
        const other = await this.#forward(shard, { method: "POST", rest: "/timeline", body: JSON.stringify(pinned) });
        if (other.status >= 300) throw await errorFromReply(other, `creating the timeline on ${tenantShardIdToString(shard.id)}`);
      }));
      return Response.json(info, { status: reply.status });
    });
  }

  /** Shard 0 last: while its part is there, the timeline is. */
  delete(tenantId: TenantId, timelineId: TimelineId): Promise<Response> {
    return this.#deps.locks.run({ key: tenantId, operation: "timeline delete" }, async () => {
      const [first, ...others] = this.#deps.state.tenant(tenantId);
      const request: ForwardRequest = { method: "DELETE", rest: `/timeline/${timelineId}` };
      for (const shard of others) {
        const reply = await this.#forward(shard, request);
        if (reply.status >= 400 && reply.status !== 404) return reply;
      }
      return this.#forward(first as TenantShard, request);
    });
  }

  /**
   * Takes the objects of a tenant back to what they were: it is attached nowhere, so some pageserver that answers does it, shard by shard,
   * for each number of shards the tenant has had.
   * @throws StrataError conflict `tenant-is-attached`; unavailable `no-pageserver`; the pageserver's
   */
  timeTravel(tenantId: TenantId, request: { readonly shardCounts: readonly number[]; readonly query: string; readonly signal?: AbortSignal }): Promise<void> {
    return this.#deps.locks.run({ key: tenantId, operation: "time travel" }, async () => {
      const { state, nodes } = this.#deps;
      for (const shard of state.hasTenant(tenantId) ? state.tenant(tenantId) : []) {
        const wanted = shard.intentAttached !== null || shard.intentSecondary.length > 0;
        if (wanted || shard.observed.size > 0) throw new StrataError("conflict", "tenant-is-attached", `tenant shard ${tenantShardIdToString(shard.id)} is on a pageserver: its placement policy has to be Detached, and that be carried out`);
      }
      const node = [...state.nodes.values()].find(({ availability }) => availability === "Active");
      if (node === undefined) throw new StrataError("unavailable", "no-pageserver", "no pageserver answers");
      for (const count of [...new Set(request.shardCounts)].sort((a, b) => a - b)) {
        for (let number = 0; number < Math.max(count, 1); number++) {
          const id = tenantShardIdToString({ tenantId, number, count });
          const reply = await nodes.forward(node, { method: "PUT", path: `/v1/tenant/${id}/time_travel_remote_storage${request.query}`, ...(request.signal === undefined ? {} : { signal: request.signal }) });
          if (reply.status >= 300) throw await errorFromReply(reply, `time travel of ${id}`);
          await reply.arrayBuffer();
        }
      }
    });
  }

  /** Any other request about the tenant: to shard 0, whose id stands in the path for the tenant's. */
  passThrough(tenantId: TenantId, request: ForwardRequest): Promise<Response> {
    const [first] = this.#deps.state.tenant(tenantId);
    return this.#forward(first as TenantShard, request);
  }

  async #forward(shard: TenantShard, request: ForwardRequest): Promise<Response> {
    if (shard.intentAttached === null) throw new StrataError("unavailable", "tenant-not-attached", `tenant shard ${tenantShardIdToString(shard.id)} is not attached to a pageserver`);
    const node = this.#deps.state.node(shard.intentAttached);
    const reply = await this.#deps.nodes.forward(node, {
      method: request.method,
      path: `/v1/tenant/${tenantShardIdToString(shard.id)}${request.rest}`,
      body: request.body,
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    });
    // The pageserver may not have heard of the attachment yet: for the client that is "try again", not "no such tenant".
    if (reply.status === 404 && shard.reconciling) throw new StrataError("retry", "tenant-attaching", `tenant shard ${tenantShardIdToString(shard.id)} is being attached`);
    return reply;
  }
}
