/**
 * Which local layer files may go when the disk runs full. Pure. Layers are taken by how long ago they were read, relative to the other
 * layers of their tenant: of each tenant its coldest share first, so that a large tenant gives more than a small one. What a tenant wants
 * to keep in any case (`min_resident_size_override`, else the size of its largest layer) is touched only when all else was not enough.
 *
 * Source: the peer's disk_usage_eviction_task module.
 */
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

/** @param minResidentBytes of a tenant, null for its largest layer's size; @param wantedBytes stops when so much is planned */
export function planEviction<L>(candidates: readonly EvictionCandidate<L>[], options: { readonly order: EvictionOrder; readonly wantedBytes: number; readonly minResidentBytes: (tenant: string) => number | null }): EvictionPlan<L> {
  const ranked = [...groupByTenant(candidates)].flatMap(([tenant, layers]) => rankTenant(layers, options.minResidentBytes(tenant), options.order));
  ranked.sort((a, b) => Number(a.isKept) - Number(b.isKept) || b.coldness - a.coldness || a.candidate.lastAccessMs - b.candidate.lastAccessMs);
  const layers: EvictionCandidate<L>[] = [];
  let respectful = 0;
  let planned = 0;
  for (const { candidate, isKept } of ranked) {
    if (planned >= options.wantedBytes) break;
    layers.push(candidate);
    planned += candidate.sizeBytes;
    if (!isKept) respectful++;
  }
  return { layers, respectful };
}

interface Ranked<L> {
  readonly candidate: EvictionCandidate<L>;
  /** 1 for the coldest of its tenant, towards 0 for the hottest. */
  readonly coldness: number;
  readonly isKept: boolean;
}

function groupByTenant<L>(candidates: readonly EvictionCandidate<L>[]): Map<string, EvictionCandidate<L>[]> {
  const groups = new Map<string, EvictionCandidate<L>[]>();
  for (const candidate of candidates) {
    const group = groups.get(candidate.tenant);
    if (group === undefined) groups.set(candidate.tenant, [candidate]);
    else group.push(candidate);
  }
  return groups;
}

function rankTenant<L>(layers: readonly EvictionCandidate<L>[], minResidentBytes: number | null, order: EvictionOrder): Ranked<L>[] {
  const keepBytes = minResidentBytes ?? layers.reduce((most, { sizeBytes }) => Math.max(most, sizeBytes), 0);
  const hottestFirst = [...layers].sort((a, b) => b.lastAccessMs - a.lastAccessMs);
  // With one more in the divisor no tenant's coldest is quite as cold as that of a tenant with more layers.
  const divisor = order.highestLayerCountLosesFirst ? layers.length + 1 : layers.length;
  let seenBytes = 0;
  return hottestFirst.map((candidate, at) => {
    const isKept = seenBytes < keepBytes;
    seenBytes += candidate.sizeBytes;
    return { candidate, coldness: (at + 1) / divisor, isKept };
  });
}
