/**
 * What garbage collection may remove. Pure. A layer goes when all this holds:
 *   - it ends at or below the cutoff: nobody may ask for an LSN inside it, except
 *   - no branch point and no lease lies at or above its start (such a reader sees the state it leads to);
 *   - images between its end and the cutoff cover its whole key range: reads at the cutoff stop there.
 *
 * Source: the peer's gc_timeline; RFC on retention of branch points.
 */
import type { Lsn } from "../../kit/lsn.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import type { LayerMap, MappedLayer } from "../layers/layer-map.ts";

export interface GcCutoffInput {
  readonly lastRecordLsn: Lsn;
  readonly gcHorizonBytes: number;
  readonly pitrIntervalMs: number;
  /** The LSN at now − pitrInterval; null when unknown. Not used with an interval of 0. */
  readonly pitrLsn: Lsn | null;
  /** The cutoff so far, which never goes back. */
  readonly current: Lsn;
  /** What is durable: a cutoff above it would forbid reads that a restart has to serve. */
  readonly diskConsistentLsn: Lsn;
}

/** The new cutoff; `current` when nothing can be said. An interval of 0 keeps nothing but the latest, whatever the horizon. */
export function planGcCutoff(input: GcCutoffInput): Lsn {
  const { lastRecordLsn, gcHorizonBytes, pitrIntervalMs, pitrLsn, current, diskConsistentLsn } = input;
  let wanted: Lsn;
  if (pitrIntervalMs === 0) wanted = lastRecordLsn;
  else if (pitrLsn === null) wanted = current;
  else wanted = Math.min(pitrLsn, lastRecordLsn - gcHorizonBytes);
  return Math.max(current, Math.min(wanted, diskConsistentLsn));
}

export interface GcPlanInput {
  readonly cutoff: Lsn;
  /** Branch points and leases. */
  readonly retainLsns: readonly Lsn[];
}

export interface GcPlan<L> {
  readonly remove: readonly L[];
  readonly keptByCutoff: number;
  readonly keptByRetention: number;
  readonly keptUncovered: number;
}

export function planGc<L extends MappedLayer>(map: LayerMap<L>, input: GcPlanInput): GcPlan<L> {
  const { cutoff, retainLsns } = input;
  const highestRetained = retainLsns.reduce((a, b) => Math.max(a, b), -1);
  const remove: L[] = [];
  let keptByCutoff = 0;
  let keptByRetention = 0;
  let keptUncovered = 0;
  for (const layer of map.layers()) {
    const range = layerLsnRange(layer.name);
    if (range.end > cutoff) keptByCutoff++;
    else if (range.start <= highestRetained) keptByRetention++;
    // An image at a delta's last LSN has all of it; an image layer needs a newer one.
    else if (!map.coveredByImages(layer.name.keyRange, { from: layer.name.kind === "delta" ? range.end - 1 : range.end, to: cutoff + 1 })) keptUncovered++;
    else remove.push(layer);
  }
  return { remove, keptByCutoff, keptByRetention, keptUncovered };
}
