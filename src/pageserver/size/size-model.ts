/**
 * The least storage that a tenant's history needs, whatever is really stored: a mixture of snapshots and of WAL between points of
 * interest (branch points, the end of the retention, leases, the newest LSN). Pure.
 *
 * Points form a forest; each stands also for the stretch of WAL that leads to it from its parent. For every point the cheapest way to
 * keep what is needed of its subtree is one of three: keep the WAL from the parent; keep a snapshot here (where its size is known and the
 * stretch before it is not needed); or keep nothing here, and snapshots further on. Two costs say it all: the cheapest way when the
 * parent can be had (`withParent`), and when it cannot (`alone`, perhaps impossible).
 *
 * Source: the peer's tenant_size_model library.
 */
import { allSteps } from "../../kit/steps.ts";

/** Points dealt with in one step. */
const STEP = 256;

export interface SizeSegment {
  /** Index of the point before, null at a root. */
  readonly parent: number | null;
  readonly lsn: number;
  /** Logical size here in bytes, null when not known. */
  readonly size: number | null;
  /** All versions between the parent and here must be kept. */
  readonly needed: boolean;
}

export type SegmentMethod = "SnapshotHere" | "Wal" | "Skipped";

export interface SegmentSize {
  readonly method: SegmentMethod;
  /** Of the subtree, by this method. */
  readonly accum_size: number;
}

export interface TenantSizeResult {
  readonly totalSizeBytes: number;
  /** In the order of the segments. */
  readonly segments: readonly SegmentSize[];
}

interface Costs {
  readonly wal: number;
  readonly snapshot: number;
  readonly skipped: number;
}

const SKIPPED: SegmentSize = { method: "Skipped", accum_size: 0 };

/** @param segments without a cycle; a tenant that keeps nothing counts as 1 byte, so that it shows up in accounts */
export function tenantSize(segments: readonly SizeSegment[]): TenantSizeResult {
  return allSteps(tenantSizeInSteps(segments));
}

/** The same in short steps. */
export function* tenantSizeInSteps(segments: readonly SizeSegment[]): Generator<void, TenantSizeResult> {
  const children = childrenOf(segments);
  const order = parentsFirst(segments, children);
  const costs = new Array<Costs>(segments.length);
  let dealtWith = 0;
  for (const index of order.toReversed()) {
    costs[index] = costsOf(segments, index, children[index].map((child) => costs[child]));
    if (++dealtWith % STEP === 0) yield;
  }
  const results: SegmentSize[] = segments.map(() => SKIPPED);
  /** Whether a point's parent can be had, for points whose way was chosen. */
  const parentKept = new Map<number, boolean>();
  let total = 0;
  for (const index of order) {
    const isRoot = segments[index].parent === null;
    const kept = isRoot ? false : parentKept.get(index);
    if (kept === undefined) continue;
    const chosen = kept ? withParent(costs[index]) : alone(costs[index]);
    // A root with no way to it has nothing to be kept from.
    if (chosen.accum_size === Number.POSITIVE_INFINITY) continue;
    results[index] = chosen;
    if (isRoot) total += chosen.accum_size;
    for (const child of children[index]) parentKept.set(child, chosen.method !== "Skipped");
    if (++dealtWith % STEP === 0) yield;
  }
  return { totalSizeBytes: Math.max(total, 1), segments: results };
}

function childrenOf(segments: readonly SizeSegment[]): number[][] {
  const children: number[][] = segments.map(() => []);
  segments.forEach(({ parent }, index) => {
    if (parent !== null) children[parent].push(index);
  });
  return children;
}

function parentsFirst(segments: readonly SizeSegment[], children: readonly (readonly number[])[]): number[] {
  const order = segments.flatMap(({ parent }, index) => (parent === null ? [index] : []));
  for (let at = 0; at < order.length; at++) for (const child of children[order[at]]) order.push(child);
  return order;
}

function costsOf(segments: readonly SizeSegment[], index: number, children: readonly Costs[]): Costs {
  const { parent, lsn, size, needed } = segments[index];
  const onward = children.reduce((sum, child) => sum + withParent(child).accum_size, 0);
  const walBytes = parent === null ? 0 : lsn - segments[parent].lsn;
  const mayHaveSnapshot = size !== null && (!needed || parent === null);
  return {
    wal: walBytes + onward,
    snapshot: mayHaveSnapshot ? size + onward : Number.POSITIVE_INFINITY,
    skipped: needed ? Number.POSITIVE_INFINITY : children.reduce((sum, child) => sum + alone(child).accum_size, 0),
  };
}

/** Of equal ways the one that keeps less here. */
function alone({ snapshot, skipped }: Costs): SegmentSize {
  return skipped <= snapshot ? { method: "Skipped", accum_size: skipped } : { method: "SnapshotHere", accum_size: snapshot };
}

function withParent(costs: Costs): SegmentSize {
  const otherwise = alone(costs);
  // Nothing but WAL may be possible.
  return costs.wal < otherwise.accum_size || otherwise.accum_size === Number.POSITIVE_INFINITY ? { method: "Wal", accum_size: costs.wal } : otherwise;
}
