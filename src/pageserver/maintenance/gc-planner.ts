/**
 * What garbage collection may remove. Pure. A layer goes when all this holds:
 *   - it ends at or below the cutoff: nobody may ask for an LSN inside it, except
 *   - no branch point and no lease lies at or above its start (such a reader sees the state it leads to);
 *   - images between its end and the cutoff cover its whole key range: reads at the cutoff stop there.
 *
 * A timeline may have ten thousand layers and more, so this is done in steps, between which the map may change. That is no danger: each
 * layer is judged by the map as it is, and taken out of it in the same step, and what was right stays right. Of the images over a key
 * the newest one up to the cutoff never goes; layers that come are above the cutoff, or images, which only cover more; a branch point or
 * lease that comes lies at the cutoff or above, where the newest of those images serves it, or at the LSN of a lease that is held, which
 * is among those retained.
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

export interface GcInput {
  readonly cutoff: Lsn;
  /** What the horizon alone keeps, to tell it apart from the PITR interval; the cutoff unless given. */
  readonly horizonLsn?: Lsn;
  /** As they are now: asked at each step, as the leases are. */
  readonly branchPoints: () => Iterable<Lsn>;
  readonly leases: () => Iterable<Lsn>;
}

/** Layers, each for the first reason that holds. */
export interface GcCounts {
  readonly removed: number;
  readonly keptByHorizon: number;
  readonly keptByPitr: number;
  readonly keptByBranches: number;
  readonly keptByLeases: number;
  readonly keptUncovered: number;
}

export const NOTHING_COLLECTED: GcCounts = { removed: 0, keptByHorizon: 0, keptByPitr: 0, keptByBranches: 0, keptByLeases: 0, keptUncovered: 0 };

/** Layers judged in one step: a few tenths of a millisecond. */
const STEP = 128;

/**
 * Yields layers that may go, some at a time, or none. The caller takes them out of the map before it goes on; what comes into the map
 * meanwhile is judged as well.
 */
export function* planGc<L extends MappedLayer>(map: LayerMap<L>, input: GcInput, layersPerStep = STEP): Generator<readonly L[], GcCounts> {
  const { cutoff, horizonLsn = cutoff } = input;
  const counts = { ...NOTHING_COLLECTED };
  // What was retained once stays so, even if its lease ends: layers may have been kept for it together.
  let branches = highest(input.branchPoints(), -1);
  let leases = highest(input.leases(), -1);
  let remove: L[] = [];
  let judged = 0;
  for (const layer of map.layers()) {
    const range = layerLsnRange(layer.name);
    if (range.end > cutoff) counts[range.end > horizonLsn ? "keptByHorizon" : "keptByPitr"]++;
    else if (range.start <= branches) counts.keptByBranches++;
    else if (range.start <= leases) counts.keptByLeases++;
    // An image at a delta's last LSN has all of it; an image layer needs a newer one.
    else if (!map.coveredByImages(layer.name.keyRange, { from: layer.name.kind === "delta" ? range.end - 1 : range.end, to: cutoff + 1 })) counts.keptUncovered++;
    else remove.push(layer);
    if (++judged % layersPerStep !== 0) continue;
    counts.removed += remove.length;
    yield remove;
    remove = [];
    branches = highest(input.branchPoints(), branches);
    leases = highest(input.leases(), leases);
  }
  counts.removed += remove.length;
  yield remove;
  return counts;
}

function highest(lsns: Iterable<Lsn>, known: Lsn): Lsn {
  let most = known;
  for (const lsn of lsns) most = Math.max(most, lsn);
  return most;
}
