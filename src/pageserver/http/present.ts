/** Tenants and timelines as JSON. */
import { describeError } from "../../kit/errors.ts";
import { tenantShardIdToString } from "../../kit/ids.ts";
import { lsnToString } from "../../kit/lsn.ts";
import type { TenantInfo, TimelineInfo } from "../api/timelines.ts";
import type { TenantTimeline } from "../tenant/tenant-timeline.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { TenantView } from "../tenant/tenants.ts";

export interface TimelineInfoOptions {
  readonly signal: AbortSignal;
  /** Waits for an exact logical size, however long it takes to count. */
  readonly awaitLogicalSize?: boolean;
  /** Counts it once more, relation by relation. */
  readonly countLogicalSize?: boolean;
}

/** The first count is given that long; then the size is said to be inexact, and is there for a later request. */
const COUNT_WAIT_MS = 1000;

/** With the logical size, which may have to be counted first. */
export async function timelineInfo(view: TenantTimeline, options: TimelineInfoOptions): Promise<TimelineInfo> {
  const countedBytes = await countLogicalSize(view, options);
  return { ...knownTimelineInfo(view), current_logical_size_non_incremental: countedBytes };
}

async function countLogicalSize(view: TenantTimeline, options: TimelineInfoOptions): Promise<number | null> {
  const { datadir, timeline } = view;
  const context = { task: "http", signal: options.signal };
  if (options.awaitLogicalSize === true) await datadir.currentLogicalSizeBytes(context);
  else if (!datadir.knownLogicalSize.isExact) {
    const counted = datadir.currentLogicalSizeBytes(context).catch(() => undefined);
    const late = new AbortController();
    const patience = timeline.deps.platform.clock.sleep(COUNT_WAIT_MS, late.signal).catch(() => undefined);
    await Promise.race([counted, patience]);
    late.abort();
  }
  return options.countLogicalSize === true ? await datadir.logicalSizeBytes(timeline.lastRecordLsn, context) : null;
}

/** With what is known now: a new branch is told at once, however large its ancestor. */
export function knownTimelineInfo(view: TenantTimeline): TimelineInfo {
  const { timeline } = view;
  const logicalSize = view.datadir.knownLogicalSize;
  const { ancestor, lastRecordLsn, prevRecordLsn } = timeline;
  const layers = [...timeline.stack.map.layers()];
  const received = view.lastReceived;
  const bytesOf = (those: typeof layers): number => those.reduce((sum, layer) => sum + layer.metadata.sizeBytes, 0);
  return {
    tenant_id: tenantShardIdToString(timeline.tenantShardId),
    timeline_id: timeline.timelineId,
    ancestor_timeline_id: ancestor?.timelineId ?? null,
    ancestor_lsn: ancestor === null ? null : lsnToString(ancestor.lsn),
    last_record_lsn: lsnToString(lastRecordLsn),
    prev_record_lsn: prevRecordLsn === 0 ? null : lsnToString(prevRecordLsn),
    latest_gc_cutoff_lsn: lsnToString(timeline.gcCutoffLsn),
    disk_consistent_lsn: lsnToString(timeline.diskConsistentLsn),
    remote_consistent_lsn: lsnToString(timeline.remoteClient.cleanIndex?.metadata.diskConsistentLsn ?? 0),
    remote_consistent_lsn_visible: lsnToString(timeline.remoteConsistentLsn),
    initdb_lsn: lsnToString(timeline.initdbLsn),
    current_logical_size: logicalSize.sizeBytes,
    current_logical_size_is_accurate: logicalSize.isExact,
    directory_entries_counts: view.datadir.directoryEntries(),
    current_physical_size: bytesOf(layers),
    current_logical_size_non_incremental: null,
    pitr_history_size: Math.max(0, lastRecordLsn - (timeline.pitrCutoffLsn ?? timeline.gcCutoffLsn)),
    within_ancestor_pitr: isWithinAncestorPitr(timeline),
    timeline_dir_layer_file_size_sum: bytesOf(layers.filter((layer) => layer.isResident)),
    wal_source_connstr: view.safekeeper === null ? null : `safekeeper ${view.safekeeper}`,
    last_received_msg_lsn: received === null ? null : lsnToString(received.lsn),
    last_received_msg_ts: received === null ? null : Math.round(received.wallMs * 1000),
    pg_version: timeline.pgVersion,
    state: timelineState(timeline),
    walreceiver_status: view.safekeeper === null ? "no connection" : `streaming from safekeeper ${view.safekeeper}`,
    is_archived: timeline.remoteClient.archivedAt !== null,
  };
}

/** Whether what it sees of its ancestor would be kept without it. Until GC has looked nobody knows, and the answer is no. */
function isWithinAncestorPitr({ parent }: Timeline): boolean {
  const cutoff = parent?.timeline.pitrCutoffLsn ?? null;
  return parent !== null && cutoff !== null && parent.lsn >= cutoff;
}

function timelineState(timeline: Timeline): TimelineInfo["state"] {
  if (timeline.broken !== null) return { Broken: { reason: describeError(timeline.broken), backtrace: "" } };
  return timeline.stopping.aborted ? "Stopping" : "Active";
}

/** Bytes of all layers of a shard that is active. */
export function physicalSize({ tenant }: TenantView): number | null {
  if (tenant?.state !== "active") return null;
  let sizeBytes = 0;
  for (const { timeline } of tenant.listTimelines()) for (const layer of timeline.stack.map.layers()) sizeBytes += layer.metadata.sizeBytes;
  return sizeBytes;
}

/** Without the physical size, which is told of one tenant at a time. */
export function tenantInfo(view: TenantView): TenantInfo {
  const { id, tenant, location } = view;
  const broken = tenant?.state === "broken" ? { reason: describeError(tenant.brokenBy) } : undefined;
  const slug = tenant === null ? "Secondary" : { attaching: "Attaching", active: "Active", broken: "Broken", stopping: "Stopping" }[tenant.state];
  return {
    id: tenantShardIdToString(id),
    state: { slug, ...(broken === undefined ? {} : { data: broken }) },
    current_physical_size: null,
    attachment_status: broken === undefined ? { slug: tenant?.state === "attaching" ? "maybe" : "attached" } : { slug: "failed", data: broken },
    generation: tenant?.generation ?? location.generation ?? 0,
  };
}
