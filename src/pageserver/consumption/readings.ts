/**
 * From what a timeline or a tenant is now, and what was told of it last, to what is to be told: pure.
 *
 * Source: the peer pageserver/src/consumption_metrics/metrics.rs (TimelineSnapshot, TenantSnapshot). Other than there, time does not go
 * back: an incremental reading ends no earlier than it begins, so that ranges join without overlapping whatever the clock does.
 */
import type { Lsn } from "../../kit/lsn.ts";
import { type EventTime, laterOf } from "./event-time.ts";
import type { MetricName, Reading, ReadingGroup } from "./events.ts";

export interface TimelineFacts {
  /** What increments are counted from when nothing was told yet. */
  readonly loadedAt: { readonly lsn: Lsn; readonly time: EventTime };
  readonly lastRecordLsn: Lsn;
  /** 0 for a root. */
  readonly ancestorLsn: Lsn;
  /** Null while it is being counted. */
  readonly logicalSizeBytes: number | null;
  readonly pitrIntervalMs: number;
  /** Null before GC has looked for it. */
  readonly pitrCutoffLsn: Lsn | null;
}

export interface TenantFacts {
  readonly remoteBytes: number;
  readonly residentBytes: number;
  /** Null before the first calculation. */
  readonly syntheticBytes: number | null;
}

export function timelineReadings(facts: TimelineFacts, previous: ReadingGroup | null, now: EventTime): Reading[] {
  const absolute = (metric: MetricName, value: number): Reading => ({ metric, kind: { type: "absolute", time: now }, value });
  const { startTime, fromLsn } = toldUntil(facts, previous);
  // What was told may be ahead of what a restart has read again: nothing new until that is caught up with.
  const written = Math.max(facts.lastRecordLsn, fromLsn);
  const readings: Reading[] = [
    { metric: "written_data_bytes_delta", kind: { type: "incremental", startTime, stopTime: laterOf(startTime, now) }, value: written - fromLsn },
    absolute("written_size", written),
    absolute("written_size_since_parent", Math.max(0, written - facts.ancestorLsn)),
  ];
  if (facts.pitrIntervalMs === 0) readings.push(absolute("pitr_history_size_since_parent", 0));
  else if (facts.pitrCutoffLsn !== null) readings.push(absolute("pitr_history_size_since_parent", Math.max(0, written - Math.max(facts.pitrCutoffLsn, facts.ancestorLsn))));
  const logicalSize = facts.logicalSizeBytes ?? find(previous, "timeline_logical_size")?.value;
  if (logicalSize !== undefined) readings.push(absolute("timeline_logical_size", logicalSize));
  return readings;
}

function toldUntil({ loadedAt }: TimelineFacts, previous: ReadingGroup | null): { readonly startTime: EventTime; readonly fromLsn: Lsn } {
  const size = find(previous, "written_size");
  const delta = find(previous, "written_data_bytes_delta");
  const stopTime = delta?.kind.type === "incremental" ? delta.kind.stopTime : undefined;
  const sizeTime = size?.kind.type === "absolute" ? size.kind.time : undefined;
  return { startTime: stopTime ?? sizeTime ?? loadedAt.time, fromLsn: size?.value ?? loadedAt.lsn };
}

export function tenantReadings(facts: TenantFacts, previous: ReadingGroup | null, now: EventTime): Reading[] {
  const absolute = (metric: MetricName, value: number): Reading => ({ metric, kind: { type: "absolute", time: now }, value });
  const readings = [absolute("remote_storage_size", facts.remoteBytes), absolute("resident_size", facts.residentBytes)];
  // After a restart the last one serves until there is a new one; a receiver takes zero for a mistake.
  const synthetic = facts.syntheticBytes || find(previous, "synthetic_storage_size")?.value || 0;
  if (synthetic > 0) readings.push(absolute("synthetic_storage_size", synthetic));
  return readings;
}

function find(group: ReadingGroup | null, metric: MetricName): Reading | undefined {
  return group?.readings.find((reading) => reading.metric === metric);
}
