/**
 * The points of interest of a tenant's timelines, for size-model.ts. Pure. What counts is what the tenant asked to be kept (its PITR
 * interval, branches, leases), not what GC has got round to remove, and not what it keeps beyond by size (`gc_horizon`).
 *
 * Source: the peer's pageserver tenant/size module.
 */
import type { TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { allSteps } from "../../kit/steps.ts";
import { stepwiseSort } from "../../kit/stepwise-sort.ts";
import type { SizeSegment } from "./size-model.ts";

/** Timelines, or points of one, dealt with in one step. */
const STEP = 64;

export interface TimelineFacts {
  readonly timelineId: TimelineId;
  readonly ancestor: { readonly timelineId: TimelineId; readonly lsn: Lsn } | null;
  readonly initdbLsn: Lsn;
  readonly lastRecordLsn: Lsn;
  readonly gcCutoffLsn: Lsn;
  /** Oldest LSN within the PITR interval; 0 while that is not known. */
  readonly pitrCutoffLsn: Lsn;
  readonly leases: readonly Lsn[];
}

/** In the order in which several at one LSN stand. */
export const POINT_KINDS = ["BranchStart", "BranchPoint", "GcCutOff", "BranchEnd", "LeasePoint", "LeaseStart", "LeaseEnd"] as const;
export type PointKind = (typeof POINT_KINDS)[number];

export interface SizePoint {
  readonly segment: SizeSegment;
  readonly timeline_id: TimelineId;
  readonly kind: PointKind;
}

export interface TimelineSizeInputs {
  readonly timeline_id: TimelineId;
  readonly ancestor_id: TimelineId | null;
  readonly ancestor_lsn: string;
  readonly last_record: string;
  readonly latest_gc_cutoff: string;
  readonly next_pitr_cutoff: string;
  readonly retention_param_cutoff: string | null;
  readonly lease_points: readonly string[];
}

export interface SizeInputs {
  readonly segments: readonly SizePoint[];
  readonly timeline_inputs: readonly TimelineSizeInputs[];
}

interface Cutoffs {
  readonly pitr: Lsn;
  /** From the caller's own bound; null without one. */
  readonly retention: Lsn | null;
}

/** @param maxRetentionBytes counts less history than the tenant asked for, in bytes of WAL */
export function sizeInputs(timelines: readonly TimelineFacts[], maxRetentionBytes: number | null): SizeInputs {
  return allSteps(sizeInputsInSteps(timelines, maxRetentionBytes));
}

/** The same in short steps: a tenant may have ten thousand branches, all of one ancestor. */
export function* sizeInputsInSteps(timelines: readonly TimelineFacts[], maxRetentionBytes: number | null): Generator<void, SizeInputs> {
  const childrenOf = Map.groupBy(timelines.filter(({ ancestor }) => ancestor !== null), ({ ancestor }) => ancestor?.timelineId ?? "");
  const points: SizePoint[] = [];
  const branchPoints = new Map<string, number>();
  const starts: { readonly at: number; readonly facts: TimelineFacts }[] = [];
  const inputs: TimelineSizeInputs[] = [];
  for (const facts of timelines) {
    const cutoffs = cutoffsOf(facts, maxRetentionBytes);
    starts.push({ at: points.length, facts });
    const children = (childrenOf.get(facts.timelineId) ?? []).map(({ ancestor }) => ancestor?.lsn ?? 0);
    yield* addTimeline(points, facts, { cutoffs, children, branchPoints });
    inputs.push(describe(facts, cutoffs));
    if (inputs.length % STEP === 0) yield;
  }
  for (const { at, facts } of starts) {
    const parent = facts.ancestor === null ? undefined : branchPoints.get(pointKey(facts.ancestor.timelineId, facts.ancestor.lsn));
    // An ancestor that is not counted (archived, broken): the branch stands alone.
    if (parent !== undefined) points[at] = { ...points[at], segment: { ...points[at].segment, parent } };
    if (at % STEP === 0) yield;
  }
  return { segments: points, timeline_inputs: inputs };
}

/** Whether the model gains by knowing the logical size there. */
export function wantsSize({ kind, segment }: SizePoint): boolean {
  if (kind === "BranchStart") return segment.needed && segment.parent === null;
  return kind === "BranchPoint" || kind === "GcCutOff" || kind === "LeasePoint";
}

function pointKey(timelineId: TimelineId, lsn: Lsn): string {
  return `${timelineId}@${lsn}`;
}

function cutoffsOf(facts: TimelineFacts, maxRetentionBytes: number | null): Cutoffs {
  const retention = maxRetentionBytes === null ? null : Math.max(0, facts.lastRecordLsn - maxRetentionBytes);
  return { pitr: Math.max(facts.pitrCutoffLsn, retention ?? 0), retention };
}

interface TimelineSurroundings {
  readonly cutoffs: Cutoffs;
  /** Where branches start. */
  readonly children: readonly Lsn[];
  readonly branchPoints: Map<string, number>;
}

function* addTimeline(points: SizePoint[], facts: TimelineFacts, { cutoffs, children, branchPoints }: TimelineSurroundings): Generator<void, void> {
  const { timelineId, ancestor, initdbLsn, lastRecordLsn, leases } = facts;
  const add = (kind: PointKind, lsn: Lsn, rest: { readonly parent: number | null; readonly needed: boolean }): number =>
    points.push({ segment: { ...rest, lsn, size: null }, timeline_id: timelineId, kind }) - 1;
  const startLsn = Math.max(ancestor?.lsn ?? 0, initdbLsn);
  const startNeeded = cutoffs.pitr <= startLsn;
  const wanted = new Map<string, { readonly lsn: Lsn; readonly kind: PointKind }>();
  const want = (kind: PointKind, lsn: Lsn) => wanted.set(`${lsn} ${kind}`, { lsn, kind });
  for (const lsn of children) want("BranchPoint", lsn);
  for (const lsn of leases) if (lsn > (ancestor?.lsn ?? 0)) want("LeasePoint", lsn);
  if (!startNeeded) want("GcCutOff", cutoffs.pitr);
  let parent = add("BranchStart", startLsn, { parent: null, needed: startNeeded });
  const order = yield* stepwiseSort([...wanted.values()], (a, b) => a.lsn - b.lsn || POINT_KINDS.indexOf(a.kind) - POINT_KINDS.indexOf(b.kind));
  for (const { lsn, kind } of order) {
    if (points.length % STEP === 0) yield;
    const needed = lsn > cutoffs.pitr;
    parent = add(kind, lsn, { parent, needed });
    if (kind === "BranchPoint") branchPoints.set(pointKey(timelineId, lsn), parent);
    // A lease is a branch that is never written to: the point itself, and both ends of it.
    if (kind === "LeasePoint") add("LeaseEnd", lsn, { parent: add("LeaseStart", lsn, { parent, needed }), needed: true });
  }
  add("BranchEnd", lastRecordLsn, { parent, needed: true });
}

function describe(facts: TimelineFacts, cutoffs: Cutoffs): TimelineSizeInputs {
  return {
    timeline_id: facts.timelineId,
    ancestor_id: facts.ancestor?.timelineId ?? null,
    ancestor_lsn: lsnToString(facts.ancestor?.lsn ?? 0),
    last_record: lsnToString(facts.lastRecordLsn),
    latest_gc_cutoff: lsnToString(facts.gcCutoffLsn),
    next_pitr_cutoff: lsnToString(cutoffs.pitr),
    retention_param_cutoff: cutoffs.retention === null ? null : lsnToString(cutoffs.retention),
    lease_points: facts.leases.filter((lsn) => lsn > (facts.ancestor?.lsn ?? 0)).map(lsnToString),
  };
}
