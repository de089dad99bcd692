/** Fills in a shard's intent from its policy, by asking the scheduler. Changes only `intentAttached` and `intentSecondary`. */
import type { NodeId } from "../../kit/ids.ts";
import { wantedSecondaries } from "../api/tenants.ts";
import { chooseNode, mayHost, type PlacementQuestion } from "../scheduler/scheduler.ts";
import type { ControllerState, TenantShard } from "./state.ts";

function affinityOf(state: ControllerState, shard: TenantShard): Map<NodeId, number> {
  const affinity = new Map<NodeId, number>();
  if (!state.hasTenant(shard.id.tenantId)) return affinity;
  for (const sibling of state.tenant(shard.id.tenantId)) {
    if (sibling === shard) continue;
    for (const node of [sibling.intentAttached, ...sibling.intentSecondary]) {
      if (node !== null) affinity.set(node, (affinity.get(node) ?? 0) + 1);
    }
  }
  return affinity;
}

function question(state: ControllerState, shard: TenantShard, role: PlacementQuestion["role"]): PlacementQuestion {
  const exclude = new Set(shard.intentSecondary);
  if (shard.intentAttached !== null) exclude.add(shard.intentAttached);
  return { role, preferredAz: shard.preferredAz, exclude, affinity: affinityOf(state, shard) };
}

function usable(state: ControllerState, id: NodeId): boolean {
  const node = state.nodes.get(id);
  return node !== undefined && node.availability !== "Offline";
}

/**
 * Keeps what is well placed, moves what is on a node that is gone (promoting a secondary first), adds what is missing.
 * A shard whose scheduling is paused or stopped stays as it is.
 * @throws StrataError unavailable `no-pageserver`
 */
export function placeShard(state: ControllerState, shard: TenantShard): void {
  if (shard.scheduling === "Pause" || shard.scheduling === "Stop") return;
  if (shard.policy === "Detached") {
    shard.intentAttached = null;
    shard.intentSecondary = [];
    return;
  }
  const wantsAttached = shard.policy !== "Secondary";
  if (!wantsAttached && shard.intentAttached !== null) {
    shard.intentSecondary = [shard.intentAttached, ...shard.intentSecondary];
    shard.intentAttached = null;
  }
  if (shard.intentAttached !== null && !state.nodes.has(shard.intentAttached)) shard.intentAttached = null;
  if (wantsAttached && (shard.intentAttached === null || !usable(state, shard.intentAttached))) attach(state, shard);
  const wanted = wantedSecondaries(shard.policy);
  shard.intentSecondary = shard.intentSecondary.filter((node) => state.nodes.has(node)).slice(0, wanted);
  while (shard.intentSecondary.length < wanted) {
    shard.intentSecondary.push(chooseNode(state.nodeViews(), question(state, shard, "secondary")));
  }
}

/** A node that is gone keeps the shard as long as nobody else can take it: it may come back, and must not be told to let go then. */
function attach(state: ControllerState, shard: TenantShard): void {
  const views = new Map(state.nodeViews().map((view) => [view.id, view]));
  const warm = shard.intentSecondary.find((node) => {
    const view = views.get(node);
    return view !== undefined && mayHost(view);
  });
  if (warm !== undefined) {
    shard.intentSecondary = shard.intentSecondary.filter((node) => node !== warm);
    shard.intentAttached = warm;
    return;
  }
  shard.intentAttached = chooseNode([...views.values()], question(state, shard, "attached"));
}
