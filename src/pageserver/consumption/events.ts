/**
 * What is told of a tenant's consumption. A reading is one number; the readings of one timeline, and those of a tenant as a whole, go
 * together: all of a group are known to be received, or none.
 *
 * An event on the wire, JSON, in this order:
 *
 * | field | content |
 * | --- | --- |
 * | type | `absolute` or `incremental` |
 * | time | absolute: when it was so |
 * | start_time, stop_time | incremental: what it happened between; one begins where the one before ended |
 * | metric | its name |
 * | idempotency_key | the same whenever the event is sent again |
 * | value | bytes |
 * | tenant_id, timeline_id | the second not for readings of the whole tenant |
 *
 * Requests hold up to 1000 of them, `{"events":[…]}`.
 *
 * Source: the peer libs/consumption_metrics and pageserver/src/consumption_metrics/metrics.rs: names of January 2025 and later together.
 */
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { EventTime } from "./event-time.ts";

export const METRIC_NAMES = [
  /** last_record_lsn. */
  "written_size",
  /** What was added to it. */
  "written_data_bytes_delta",
  /** Less where the branch begins. */
  "written_size_since_parent",
  /** Less where the branch or its PITR interval begins. */
  "pitr_history_size_since_parent",
  "timeline_logical_size",
  "remote_storage_size",
  "resident_size",
  "synthetic_storage_size",
] as const;

export type MetricName = (typeof METRIC_NAMES)[number];

export type EventKind =
  | { readonly type: "absolute"; readonly time: EventTime }
  | { readonly type: "incremental"; readonly startTime: EventTime; readonly stopTime: EventTime };

export interface Reading {
  readonly metric: MetricName;
  readonly kind: EventKind;
  /** Bytes. */
  readonly value: number;
}

export interface Owner {
  readonly tenantId: TenantId;
  /** Null for what is the tenant's as a whole. */
  readonly timelineId: TimelineId | null;
}

export interface ReadingGroup extends Owner {
  readonly readings: readonly Reading[];
}

/** On its way, until it is answered. */
export interface EventGroup extends ReadingGroup {
  /** One a reading. */
  readonly idempotencyKeys: readonly string[];
}

export const EVENTS_PER_REQUEST = 1000;

export function ownerKey({ tenantId, timelineId }: Owner): string {
  return timelineId === null ? tenantId : `${tenantId}/${timelineId}`;
}

/** When it was read. */
export function recordedAt({ kind }: Reading): EventTime {
  return kind.type === "absolute" ? kind.time : kind.stopTime;
}

/** JSON object members of a kind, without braces: they stand in events and in the file of what was sent. */
export function kindMembers(kind: EventKind): string {
  return kind.type === "absolute" ? `"type":"absolute","time":"${kind.time}"` : `"type":"incremental","start_time":"${kind.startTime}","stop_time":"${kind.stopTime}"`;
}

export function ownerMembers({ tenantId, timelineId }: Owner): string {
  return `"tenant_id":"${tenantId}"${timelineId === null ? "" : `,"timeline_id":"${timelineId}"`}`;
}

/** One JSON text an event. */
export function eventTexts(group: EventGroup): string[] {
  const owner = ownerMembers(group);
  return group.readings.map(({ metric, kind, value }, index) => `{${kindMembers(kind)},"metric":"${metric}","idempotency_key":"${group.idempotencyKeys[index]}","value":${value},${owner}}`);
}

/** Requests' worth of groups; a group is never parted, for its answer would be two. */
export function inRequests(groups: readonly EventGroup[], maxEvents = EVENTS_PER_REQUEST): EventGroup[][] {
  const requests: EventGroup[][] = [];
  let events = Number.POSITIVE_INFINITY;
  for (const group of groups) {
    if (events + group.readings.length > maxEvents) {
      requests.push([]);
      events = 0;
    }
    requests[requests.length - 1].push(group);
    events += group.readings.length;
  }
  return requests;
}

export function requestBody(groups: readonly EventGroup[]): string {
  return `{"events":[${groups.flatMap(eventTexts).join(",")}]}`;
}
