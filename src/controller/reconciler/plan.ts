/**
 * From where a shard's locations are to where they should be. Pure.
 *
 * Order, and why: the old attachment is first told that it is stale, so that it deletes nothing any more; then the
 * new node is attached under a higher generation, from which moment only it may write the shard's index; secondaries
 * follow; last, locations nobody wants any more are detached. A node that cannot be reached gets no step: its
 * generation is outdated by the increment, and it learns its fate when it re-attaches.
 */
import type { NodeId } from "../../kit/ids.ts";
import type { LocationMode } from "../api/upcall.ts";

export interface ObservedLocation {
  readonly mode: LocationMode;
  readonly generation: number | null;
  /** The configuration it was told, as JSON: a change of configuration alone also needs a step. */
  readonly configJson: string;
}

export interface ShardIntent {
  readonly attached: NodeId | null;
  readonly secondary: readonly NodeId[];
}

export interface ReconcileInput {
  readonly intent: ShardIntent;
  /** Node → what it said it has; null when that is not known. A node that is missing has nothing. */
  readonly observed: ReadonlyMap<NodeId, ObservedLocation | null>;
  /** The newest generation given out and who holds it. */
  readonly generation: number | null;
  readonly generationNode: NodeId | null;
  readonly configJson: string;
  readonly reachable: (node: NodeId) => boolean;
}

export type ReconcileStep =
  /** Give out the next generation, to `node`; the attach that follows uses it. */
  | { readonly kind: "increment-generation"; readonly node: NodeId }
  | { readonly kind: "configure"; readonly node: NodeId; readonly mode: LocationMode };

function isAttached(mode: LocationMode): boolean {
  return mode === "AttachedSingle" || mode === "AttachedMulti" || mode === "AttachedStale";
}

function attachSteps(input: ReconcileInput, node: NodeId): ReconcileStep[] {
  if (!input.reachable(node)) return [];
  const current = input.observed.get(node);
  const holdsNewest = input.generationNode === node && input.generation !== null;
  if (holdsNewest && current?.mode === "AttachedSingle" && current.generation === input.generation && current.configJson === input.configJson) return [];
  const steps: ReconcileStep[] = [];
  for (const [other, location] of input.observed) {
    if (other === node || !input.reachable(other)) continue;
    if (location !== null && isAttached(location.mode) && location.mode !== "AttachedStale") steps.push({ kind: "configure", node: other, mode: "AttachedStale" });
  }
  if (!holdsNewest) steps.push({ kind: "increment-generation", node });
  steps.push({ kind: "configure", node, mode: "AttachedSingle" });
  return steps;
}

/** The steps to carry out in order; none when intent and observed agree. */
export function planReconcile(input: ReconcileInput): ReconcileStep[] {
  const { intent, observed, reachable } = input;
  const steps = intent.attached === null ? [] : attachSteps(input, intent.attached);
  for (const node of intent.secondary) {
    const current = observed.get(node);
    if (!reachable(node) || (current?.mode === "Secondary" && current.configJson === input.configJson)) continue;
    steps.push({ kind: "configure", node, mode: "Secondary" });
  }
  for (const [node, location] of observed) {
    if (node === intent.attached || intent.secondary.includes(node) || !reachable(node)) continue;
    if (location?.mode !== "Detached") steps.push({ kind: "configure", node, mode: "Detached" });
  }
  return steps;
}
