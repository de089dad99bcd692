/**
 * Which local layer files may go when the disk runs full. Pure, and in steps: there may be a hundred thousand of them. Layers are taken
 * by how long ago they were read, relative to the other layers of their tenant: of each tenant its coldest share first, so that a large
 * tenant gives more than a small one. What a tenant wants to keep in any case (`min_resident_size_override`, else the size of its largest
 * layer) is touched only when all else was not enough.
 *
 * Source: the peer's disk_usage_eviction_task module.
 */
import { stepwiseSort } from "../../kit/stepwise-sort.ts";

export interface EvictionCandidate<L> {
  readonly layer: L;
  readonly tenant: string;
  readonly sizeBytes: number;
  readonly lastAccessMs: number;
}

/** EvictionOrder::RelativeAccessed */
export interface EvictionOrder {
  /** Of two equally cold layers that of the tenant with more layers goes first. */
  readonly highestLayerCountLosesFirst: boolean;
}

export interface EvictionPlan<L> {
  readonly layers: readonly EvictionCandidate<L>[];
  /** How many of them, from the first, respect what tenants want to keep. */
  readonly respectful: number;
}

/** Candidates looked at in one step. */
const STEP = 1024;

/**
 * The plan is of the candidates as they were given: a layer that has left, or was read, since then is for who carries it out to see.
 * Yields between steps.
 * @param minResidentBytes of a tenant, null for its largest layer's size; @param wantedBytes stops when so much is planned
 */
export function* planEviction<L>(candidates: readonly EvictionCandidate<L>[], options: { readonly order: EvictionOrder; readonly wantedBytes: number; readonly minResidentBytes: (tenant: string) => number | null }): Generator<void, EvictionPlan<L>> {
  const unranked: Ranked<L>[] = [];
  for (const [tenant, layers] of yield* groupByTenant(candidates)) yield* rankTenant(layers, { minResidentBytes: options.minResidentBytes(tenant), order: options.order, into: unranked });
  const ranked = yield* stepwiseSort(unranked, (a, b) => Number(a.isKept) - Number(b.isKept) || b.coldness - a.coldness || a.candidate.lastAccessMs - b.candidate.lastAccessMs);
  const layers: EvictionCandidate<L>[] = [];
  let respectful = 0;
  let planned = 0;
  for (const { candidate, isKept } of ranked) {
    if (planned >= options.wantedBytes) break;
    layers.push(candidate);
    planned += candidate.sizeBytes;
    if (!isKept) respectful++;
    if (layers.length % STEP === 0) yield;
  }
  return { layers, respectful };
}

interface Ranked<L> {
  readonly candidate: EvictionCandidate<L>;
  /** 1 for the coldest of its tenant, towards 0 for the hottest. */
  readonly coldness: number;
  readonly isKept: boolean;
}

function* groupByTenant<L>(candidates: readonly EvictionCandidate<L>[]): Generator<void, Map<string, EvictionCandidate<L>[]>> {
  const groups = new Map<string, EvictionCandidate<L>[]>();
  let seen = 0;
  for (const candidate of candidates) {
    const group = groups.get(candidate.tenant);
    if (group === undefined) groups.set(candidate.tenant, [candidate]);
    else group.push(candidate);
    if (++seen % STEP === 0) yield;
  }
  return groups;
}

function* rankTenant<L>(layers: readonly EvictionCandidate<L>[], { minResidentBytes, order, into }: { readonly minResidentBytes: number | null; readonly order: EvictionOrder; readonly into: Ranked<L>[] }): Generator<void, void> {
  const hottestFirst = yield* stepwiseSort(layers, (a, b) => b.lastAccessMs - a.lastAccessMs);
  const keepBytes = minResidentBytes ?? layers.reduce((most, { sizeBytes }) => Math.max(most, sizeBytes), 0);
  // With one more in the divisor no tenant's coldest is quite as cold as that of a tenant with more layers.
  const divisor = order.highestLayerCountLosesFirst ? layers.length + 1 : layers.length;
  let seenBytes = 0;
  for (let at = 0; at < hottestFirst.length; at++) {
    const candidate = hottestFirst[at];
    into.push({ candidate, coldness: (at + 1) / divisor, isKept: seenBytes < keepBytes });
    seenBytes += candidate.sizeBytes;
    if (into.length % STEP === 0) yield;
  }
}
