/** What is counted of each timeline (counts/timeline-counts.ts), read when it is scraped; under the peer's names (pageserver/src/metrics.rs). */
import type { Histogram } from "../observability/metric-values.ts";
import type { GaugeReading, HistogramReading, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import type { StorageCounts } from "./counts/storage-counts.ts";
import { BATCH_BREAKS, type OperationCount, type PagestreamCounts, type RemoteCount, type StorageOperation, type TimelineCounts } from "./counts/timeline-counts.ts";
import { LOW_RESIDENCE_MS } from "./counts/layer-watch.ts";
import { NO_TIMELINE } from "./counts/io-counts.ts";
import type { TenantTimeline } from "./tenant/tenant-timeline.ts";

export const TIMELINE_LABELS = ["tenant_id", "shard_id", "timeline_id"];

export interface ScrapedTimeline {
  /** As of TIMELINE_LABELS. */
  readonly labels: readonly string[];
  readonly view: TenantTimeline;
}

export interface TimelineMetricsParts {
  readonly metrics: Metrics;
  readonly counts: StorageCounts;
  readonly clock: Clock;
  readonly timelines: () => readonly ScrapedTimeline[];
}

export function registerTimelineMetrics(parts: TimelineMetricsParts): void {
  registerPagestreams(parts);
  registerOperations(parts);
  registerRemoteClients(parts);
  registerWaits(parts);
  registerSizes(parts);
  registerIo(parts);
}

interface Of<T> {
  readonly labels: readonly string[];
  readonly of: T;
}

/** Those of which there is something to tell. */
function told<T>({ timelines }: TimelineMetricsParts, find: (counts: TimelineCounts) => T | null): Of<T>[] {
  return timelines().flatMap(({ labels, view }) => {
    const of = find(view.counts);
    return of === null ? [] : [{ labels, of }];
  });
}

function registerPagestreams(parts: TimelineMetricsParts): void {
  const { metrics } = parts;
  const known = (): Of<PagestreamCounts>[] => told(parts, (counts) => counts.knownPagestream);
  const histogram = (name: string, help: string, read: (counts: PagestreamCounts) => Histogram): void =>
    metrics.histogramsFrom({ name: `pageserver_page_service_${name}`, help, labels: TIMELINE_LABELS }, () => known().map(({ labels, of }) => ({ labels, histogram: read(of) })));
  const labels = ["smgr_query_type", ...TIMELINE_LABELS];
  metrics.countersFrom({ name: "pageserver_smgr_query_started_count", help: "Page requests that were begun, by timeline", labels }, () => known().map((one): GaugeReading => ({ labels: ["get_page_at_lsn", ...one.labels], value: one.of.started })));
  metrics.histogramsFrom({ name: "pageserver_smgr_query_seconds", help: "Time to execute page requests, without waiting for a batch or in the throttle, by timeline", labels }, () =>
    known().map((one): HistogramReading => ({ labels: ["get_page_at_lsn", ...one.labels], histogram: one.of.seconds })));
  histogram("batch_size", "Page requests executed together, by timeline", ({ batches }) => batches);
  histogram("pagestream_batch_wait_time_seconds", "Time from when a page request could be executed until its batch was, by timeline", ({ batchWait }) => batchWait);
  metrics.countersFrom({ name: "pageserver_page_service_pagestream_flush_in_progress_micros", help: "Microseconds that answers took to get into their connections, those on their way included, by timeline", labels: TIMELINE_LABELS }, () =>
    known().map((one) => ({ labels: one.labels, value: Math.round(one.of.flushMs * 1000) })));
  metrics.countersFrom({ name: "pageserver_page_service_batch_break_reason", help: "Batches of page requests by why no more were taken into them, by timeline", labels: [...TIMELINE_LABELS, "reason"] }, () =>
    known().flatMap((one) => BATCH_BREAKS.map((reason) => ({ labels: [...one.labels, reason], value: one.of.breaks[reason] }))));
  metrics.histogramsFrom({ name: "pageserver_layers_per_read", help: "Layers looked into for one key, by timeline", labels: TIMELINE_LABELS }, () => told(parts, (counts) => counts.knownLayers).map((one) => ({ labels: one.labels, histogram: one.of })));
}

function registerOperations(parts: TimelineMetricsParts): void {
  const { metrics } = parts;
  const labels = ["operation", ...TIMELINE_LABELS];
  const all = (read: (count: OperationCount) => number): GaugeReading[] =>
    parts.timelines().flatMap((one) => [...one.view.counts.operations].map(([operation, count]: readonly [StorageOperation, OperationCount]) => ({ labels: [operation, ...one.labels], value: read(count) })));
  metrics.countersFrom({ name: "pageserver_storage_operations_seconds_sum", help: "Time spent on storage operations, by timeline", labels }, () => all(({ durationMs }) => durationMs / 1000));
  metrics.countersFrom({ name: "pageserver_storage_operations_seconds_count", help: "Storage operations carried out, by timeline", labels }, () => all(({ count }) => count));
  metrics.gaugesFrom({ name: "pageserver_active_storage_operations_count", help: "Storage operations under way, by timeline", labels }, () => all(({ active }) => active));
}

function registerRemoteClients(parts: TimelineMetricsParts): void {
  const counter = (name: string, help: string, read: (count: RemoteCount) => number): void =>
    parts.metrics.countersFrom({ name: `pageserver_remote_timeline_client_${name}`, help, labels: [...TIMELINE_LABELS, "file_kind", "op_kind"] }, () =>
      parts.timelines().flatMap((one) => [...one.view.counts.remotes].map((count) => ({ labels: [...one.labels, count.fileKind, count.kind], value: read(count) }))));
  counter("calls_started", "Operations on object storage that began", ({ callsStarted }) => callsStarted);
  counter("calls_finished", "Operations on object storage that ended, whichever way", ({ callsFinished }) => callsFinished);
  counter("bytes_started", "Bytes of operations on object storage that began", ({ bytesStarted }) => bytesStarted);
  counter("bytes_finished", "Bytes of operations on object storage that ended, whichever way", ({ bytesFinished }) => bytesFinished);
}

/** Those where it is not 0. */
function some(parts: TimelineMetricsParts, read: (view: TenantTimeline) => number): GaugeReading[] {
  return parts.timelines().flatMap(({ labels, view }) => {
    const value = read(view);
    return value === 0 ? [] : [{ labels, value }];
  });
}

function registerWaits(parts: TimelineMetricsParts): void {
  const { metrics, counts } = parts;
  const labels = TIMELINE_LABELS;
  metrics.countersFrom({ name: "pageserver_wait_lsn_started_count", help: "Waits for WAL that began, by timeline", labels }, () => some(parts, (view) => view.counts.waitsStarted));
  metrics.countersFrom({ name: "pageserver_wait_lsn_finished_count", help: "Waits for WAL that ended, by timeline", labels }, () => some(parts, (view) => (view.counts.waitsStarted === 0 ? 0 : view.counts.waitsFinished)));
  const underWayMs = ({ timeline, counts: one }: TenantTimeline): number => (one.waitsStarted === one.waitsFinished ? 0 : timeline.waitingForLsn().reduce((sum, { waitedMs }) => sum + waitedMs, 0));
  metrics.countersFrom({ name: "pageserver_wait_lsn_in_progress_micros", help: "Microseconds waited for WAL, waits under way included, by timeline", labels }, () => some(parts, (view) => Math.round((view.counts.waitedMs + underWayMs(view)) * 1000)));
  metrics.counterFrom({ name: "pageserver_wait_lsn_in_progress_micros_global", help: "Microseconds waited for WAL, waits under way included" }, () =>
    Math.round((counts.lsnWaits.waitedMs + parts.timelines().reduce((sum, { view }) => sum + underWayMs(view), 0)) * 1000));
  metrics.countersFrom({ name: "pageserver_wait_ondemand_download_seconds_sum", help: "Time that reads waited for a layer to come, by timeline", labels: [...labels, "task_kind"] }, () =>
    parts.timelines().flatMap((one) => [...one.view.counts.downloadWaits].map(([kind, durationMs]) => ({ labels: [...one.labels, kind], value: durationMs / 1000 }))));
  metrics.countersFrom({ name: "pageserver_timeline_wal_records_received", help: "Records taken from safekeepers, by timeline", labels }, () => some(parts, (view) => view.counts.recordsReceived));
  metrics.countersFrom({ name: "pageserver_evictions", help: "Layers evicted, by timeline", labels }, () => some(parts, (view) => view.counts.evictions));
  const short = ["residence_change", String(LOW_RESIDENCE_MS / 1000)];
  metrics.countersFrom({ name: "pageserver_evictions_with_low_residence_duration", help: "Layers evicted sooner after they came than low_threshold_secs, by timeline", labels: [...labels, "residence_duration_data_source", "low_threshold_secs"] }, () =>
    some(parts, (view) => view.counts.lowResidenceEvictions).map((one) => ({ labels: [...one.labels, ...short], value: one.value })));
}

function registerSizes(parts: TimelineMetricsParts): void {
  const gauge = (name: string, help: string, read: (view: TenantTimeline) => number): void =>
    parts.metrics.gaugesFrom({ name: `pageserver_${name}`, help, labels: TIMELINE_LABELS }, () => parts.timelines().map(({ labels, view }) => ({ labels, value: read(view) })));
  gauge("standby_horizon", "Up to where standbys have applied, as the broker told last; 0: there are none", (view) => view.counts.standbyHorizon);
  gauge("archive_size", "Logical size of a timeline that was not written to since the PITR interval began; else 0", ({ timeline, datadir }) =>
    (timeline.pitrCutoffLsn !== null && timeline.lastRecordLsn <= timeline.pitrCutoffLsn ? datadir.knownLogicalSize.sizeBytes : 0));
  gauge("visible_physical_size", "Bytes of layers without those that history alone keeps, as far as these are known", ({ timeline }) => {
    let sum = 0;
    for (const layer of timeline.stack.map.layers()) sum += layer.metadata.sizeBytes;
    return Math.max(0, sum - timeline.counts.invisibleBytes);
  });
  gauge("directory_entries_count", "Entries of the directories kept of a timeline, as far as they were read here", ({ datadir }) => datadir.directoryEntries().reduce((sum, entries) => sum + entries, 0));
  gauge("aux_file_estimated_size", "Bytes of auxiliary files, as far as they were read or written here", ({ datadir }) => datadir.auxFiles.sizeBytes);
}

function registerIo({ metrics, counts: { io }, timelines }: TimelineMetricsParts): void {
  metrics.gaugesFrom({ name: "pageserver_io_operations_bytes_total", help: "Bytes read from and written to local files, by timeline; those of none under *", labels: ["operation", ...TIMELINE_LABELS] }, () => {
    const known = new Map(timelines().map(({ labels: [tenant, shard, timeline], labels }) => [`${tenant}${shard === "0000" ? "" : `-${shard}`}/${timeline}`, labels]));
    io.keepOnly((name) => known.has(name));
    return [...io.bytes].flatMap(([name, { read, written }]) => {
      const labels = name === NO_TIMELINE ? ["*", "*", "*"] : (known.get(name) ?? []);
      return [{ labels: ["read", ...labels], value: read }, { labels: ["write", ...labels], value: written }];
    });
  });
}
