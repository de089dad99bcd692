/**
 * Where a shard goes. Pure: the fleet as it is and one shard in, a node id out.
 *
 * A node is scored for a role by, in this order: the shard's preferred availability zone, how many shards of the same
 * tenant it has already (affinity), how many attached shards (for an attachment) or locations (for a secondary) it
 * carries, its id. The lowest score wins; the order is total, so that the same fleet gives the same answer.
 */
import { StrataError } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import type { NodeAvailability, NodeScheduling } from "../api/nodes.ts";

export interface NodeView {
  readonly id: NodeId;
  readonly availability: NodeAvailability;
  readonly scheduling: NodeScheduling;
  readonly availabilityZone: string;
  readonly attachedCount: number;
  readonly locationCount: number;
}

export interface PlacementQuestion {
  readonly role: "attached" | "secondary";
  readonly preferredAz: string | null;
  /** Nodes that may not be chosen: they hold another location of this shard. */
  readonly exclude: ReadonlySet<NodeId>;
  /** Node → locations of the same tenant's other shards on it. */
  readonly affinity: ReadonlyMap<NodeId, number>;
}

function score(node: NodeView, question: PlacementQuestion): readonly number[] {
  const inPreferredAz = question.preferredAz === null || node.availabilityZone === question.preferredAz;
  // A secondary belongs where the attachment is not: another zone survives what the home zone does not.
  const azPenalty = question.role === "attached" ? Number(!inPreferredAz) : Number(question.preferredAz !== null && inPreferredAz);
  const load = question.role === "attached" ? node.attachedCount : node.locationCount;
  return [azPenalty, question.affinity.get(node.id) ?? 0, load, node.locationCount, node.id];
}

function compareScores(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

export function mayHost(node: NodeView): boolean {
  return node.availability !== "Offline" && (node.scheduling === "active" || node.scheduling === "filling");
}

/** @throws StrataError unavailable `no-pageserver` when no node may take the shard */
export function chooseNode(nodes: readonly NodeView[], question: PlacementQuestion): NodeId {
  let best: NodeView | null = null;
  let bestScore: readonly number[] = [];
  for (const node of nodes) {
    if (question.exclude.has(node.id) || !mayHost(node)) continue;
    const nodeScore = score(node, question);
    if (best === null || compareScores(nodeScore, bestScore) < 0) {
      best = node;
      bestScore = nodeScore;
    }
  }
  if (best === null) {
    throw new StrataError("unavailable", "no-pageserver", `no pageserver can take the shard's ${question.role} location (${nodes.length} known, none available for it)`);
  }
  return best.id;
}
