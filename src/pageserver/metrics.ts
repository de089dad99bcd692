/** What a whole pageserver counts (counts/storage-counts.ts), under the peer's names (pageserver/src/metrics.rs). */
import type { Histogram } from "../observability/metric-values.ts";
import type { GaugeReading, HistogramReading, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import { BATCH_MAX } from "./counts/bounds.ts";
import { IO_OPERATIONS } from "./counts/io-counts.ts";
import { type Labelled, SMGR_NAMES, type SlotCount, type SmgrKind, type StorageCounts } from "./counts/storage-counts.ts";
import { BATCH_BREAKS, type ThrottleCounts } from "./counts/timeline-counts.ts";

export function registerStorageMetrics(metrics: Metrics, counts: StorageCounts, clock: Clock): void {
  registerPagestream(metrics, counts, clock);
  registerReads(metrics, counts);
  registerStorage(metrics, counts);
  registerRemote(metrics, counts);
  registerLayers(metrics, counts);
  registerIngest(metrics, counts);
  registerTenantCounts(metrics, counts);
}

type Named = readonly [name: string, help: string, read: () => number];

export function counters(metrics: Metrics, all: readonly Named[]): void {
  for (const [name, help, read] of all) metrics.counterFrom({ name: `pageserver_${name}`, help }, read);
}

function histograms(metrics: Metrics, all: readonly (readonly [name: string, help: string, histogram: Histogram])[]): void {
  for (const [name, help, histogram] of all) metrics.histogramsFrom({ name: `pageserver_${name}`, help }, () => [{ labels: [], histogram }]);
}

function labelled(all: Labelled<Histogram>): HistogramReading[] {
  return [...all.all].map(([key, histogram]) => ({ labels: key.split(" "), histogram }));
}

function readings(all: ReadonlyMap<string, number>): GaugeReading[] {
  return [...all].map(([key, value]) => ({ labels: key.split(" "), value }));
}

/** Of a throttle's counts, by the end of the metric's name. */
export const THROTTLE_COUNTERS: readonly (readonly [name: string, help: string, read: (counts: ThrottleCounts) => number])[] = [
  ["count_accounted_start", "Requests that came to the throttle", ({ started }) => started],
  ["count_accounted_finish", "Requests that passed the throttle, or gave up there", ({ finished }) => finished],
  ["count", "Times that requests had to wait in the throttle", ({ throttled }) => throttled],
  ["wait_usecs_sum", "Microseconds waited in the throttle", ({ waitedMs }) => Math.round(waitedMs * 1000)],
];

function registerPagestream(metrics: Metrics, counts: StorageCounts, clock: Clock): void {
  const { pagestream, throttle, connections } = counts;
  const kinds = Object.keys(SMGR_NAMES) as SmgrKind[];
  const labels = ["smgr_query_type"];
  metrics.countersFrom({ name: "pageserver_smgr_query_started_global_count", help: "Requests of computes that were begun, by kind", labels }, () => kinds.map((kind) => ({ labels: [SMGR_NAMES[kind]], value: pagestream.kinds[kind].started })));
  metrics.histogramsFrom({ name: "pageserver_smgr_query_seconds_global", help: "Time to execute requests of computes, without waiting for a batch or in the throttle", labels }, () =>
    kinds.map((kind) => ({ labels: [SMGR_NAMES[kind]], histogram: pagestream.kinds[kind].seconds })));
  histograms(metrics, [
    ["page_service_batch_size_global", "Page requests executed together", pagestream.batches],
    ["page_service_pagestream_batch_wait_time_seconds_global", "Time from when a page request could be executed until its batch was", pagestream.batchWait],
  ]);
  metrics.countersFrom({ name: "pageserver_page_service_batch_break_reason_global", help: "Batches of page requests by why no more were taken into them", labels: ["reason"] }, () => BATCH_BREAKS.map((reason) => ({ labels: [reason], value: pagestream.breaks[reason] })));
  metrics.counterFrom({ name: "pageserver_page_service_pagestream_flush_in_progress_micros_global", help: "Microseconds that answers took to get into their connections, those on their way included" }, () => {
    // Those of timelines are scraped later.
    counts.tellFlushing(clock.monotonicMs());
    return Math.round(pagestream.flushMs * 1000);
  });
  metrics.countersFrom({ name: "pageserver_pagestream_handler_results_total", help: "Requests of computes by how they ended: well, by a failure here, by one of the request", labels: ["outcome"] }, () => readings(new Map(Object.entries(pagestream.results))));
  metrics.gaugesFrom({ name: "pageserver_page_service_config_max_batch_size", help: "Page requests that may be executed together", labels: ["mode", "execution", "batching"] }, () => [{ labels: ["pipelined", "concurrent-futures", "uniform-lsn"], value: BATCH_MAX }]);
  for (const [name, help, read] of THROTTLE_COUNTERS) metrics.countersFrom({ name: `pageserver_tenant_throttling_${name}_global`, help: `${help}, by kind of throttle`, labels: ["kind"] }, () => [{ labels: ["pagestream"], value: read(throttle) }]);
  const connection = (name: string, help: string, read: () => number) => metrics.countersFrom({ name: `pageserver_live_connections_${name}`, help, labels: ["pageserver_connection_kind"] }, () => [{ labels: ["page_service"], value: read() }]);
  connection("started", "Connections that were taken up", () => connections.started);
  connection("finished", "Connections that ended", () => connections.finished);
  metrics.countersFrom({ name: "pageserver_compute_commands", help: "Commands of computes that were taken up", labels: ["command"] }, () => readings(connections.commands));
  metrics.histogramsFrom({ name: "pageserver_basebackup_query_seconds", help: "Time for a base backup, by how it ended", labels: ["result"] }, () => labelled(connections.backups));
  counters(metrics, [["misrouted_pagestream_requests_total", "Requests of computes for a shard that is not here, of a tenant that is", () => pagestream.misrouted]]);
}

function registerReads(metrics: Metrics, { reads, lsnWaits }: StorageCounts): void {
  const byTask = (name: string, help: string, all: ReadonlyMap<string, Histogram>) => metrics.histogramsFrom({ name: `pageserver_${name}`, help, labels: ["task_kind"] }, () => [...all].map(([kind, histogram]) => ({ labels: [kind], histogram })));
  byTask("get_vectored_seconds", "Time to read one key or several as of one LSN, by who reads", reads.vectored.all);
  byTask("scan_seconds", "Time to find and read all keys of a sparse range, by who reads", reads.scans.all);
  const byKind = (name: string, help: string, part: "data" | "reconstruct") => metrics.histogramsFrom({ name: `pageserver_${name}`, help, labels: ["get_kind"] }, () => [
    { labels: ["singular"], histogram: reads.one[part] },
    { labels: ["vectored"], histogram: reads.several[part] },
  ]);
  byKind("getpage_get_reconstruct_data_seconds", "Time of a read to find in layers what its values are made of", "data");
  byKind("getpage_reconstruct_seconds", "Time of a read to make its values of what was found", "reconstruct");
  histograms(metrics, [
    ["layers_visited_per_vectored_read_global", "Layers looked into, a key of a read on the average", reads.layersVisited],
    ["layers_per_read_global", "Layers looked into for one key; none for a page of the cache", reads.layers],
    ["layers_per_read_batch_global", "Layers looked into for all keys of a read", reads.batches],
    ["layers_per_read_amortized_global", "Layers looked into for all keys of a read, divided by these", reads.amortized],
    ["deltas_per_read_global", "Records that were applied to make one value", reads.deltas],
    ["wal_redo_seconds", "Time to replay the records of one page", reads.redoSeconds],
    ["wal_redo_records_histogram", "Records replayed for one page", reads.redoRecords],
    ["wal_redo_bytes_histogram", "Bytes of the records replayed for one page", reads.redoBytes],
    ["wait_lsn_seconds", "Time spent waiting for WAL to arrive", lsnWaits.seconds],
  ]);
  counters(metrics, [
    ["replayed_wal_records_total", "Records replayed", () => reads.replayedRecords],
    ["wait_lsn_timeouts_total", "Waits for WAL that ended without it", () => lsnWaits.timeouts],
  ]);
}

function registerStorage(metrics: Metrics, counts: StorageCounts): void {
  const { operations, io, slots, compression } = counts;
  metrics.histogramsFrom({ name: "pageserver_storage_operations_seconds_global", help: "Time spent on storage operations", labels: ["operation"] }, () => [...operations].map(([operation, histogram]) => ({ labels: [operation], histogram })));
  metrics.histogramsFrom({ name: "pageserver_io_operations_seconds", help: "Time of operations on local files", labels: ["operation"] }, () => IO_OPERATIONS.map((operation) => ({ labels: [operation], histogram: io.seconds[operation] })));
  counters(metrics, [
    ["compression_image_in_bytes_total", "Bytes of values that went into image layers", () => compression.inBytes],
    ["compression_image_in_bytes_considered", "Those that compression was tried on", () => compression.consideredBytes],
    ["compression_image_in_bytes_chosen", "Those that were written compressed", () => compression.chosenBytes],
    ["compression_image_out_bytes_total", "Bytes that values take in image layers", () => compression.outBytes],
  ]);
  const entries = () => [...slots.all];
  const labels = ["task"];
  const slotCounter = (name: string, help: string, read: (slot: SlotCount) => number) =>
    metrics.countersFrom({ name: `pageserver_background_loop_semaphore_${name}`, help, labels }, () => entries().map(([task, slot]) => ({ labels: [task], value: read(slot) })));
  slotCounter("wait_start_count", "Times that background work began to wait for its turn", ({ started }) => started);
  slotCounter("wait_finish_count", "Times that it had its turn, or gave up", ({ finished }) => finished);
  slotCounter("wait_duration_seconds", "Time that background work has waited for its turn", ({ seconds }) => seconds.sum);
  const slotGauge = (name: string, help: string, read: (slot: SlotCount) => number) =>
    metrics.gaugesFrom({ name: `pageserver_background_loop_semaphore_${name}`, help, labels }, () => entries().map(([task, slot]) => ({ labels: [task], value: read(slot) })));
  slotGauge("waiting_tasks", "Background work that waits for its turn now", ({ started, finished }) => started - finished);
  slotGauge("running_tasks", "Background work under way", ({ running }) => running);
  metrics.histogramsFrom({ name: "pageserver_background_loop_semaphore_wait_seconds", help: "Waits of background work for its turn", labels }, () => entries().map(([task, { seconds }]) => ({ labels: [task], histogram: seconds })));
}

function registerRemote(metrics: Metrics, { remoteSeconds, downloads, heatmaps }: StorageCounts): void {
  const labels = ["file_kind", "op_kind", "status"];
  metrics.histogramsFrom({ name: "pageserver_remote_operation_seconds", help: "Time of operations on object storage, without that in queues", labels }, () => labelled(remoteSeconds));
  counters(metrics, [
    ["remote_ondemand_downloaded_layers_total", "Layers fetched because they were needed", () => downloads.layers],
    ["remote_ondemand_downloaded_bytes_total", "Bytes of layers fetched because they were needed", () => downloads.bytes],
  ]);
  metrics.histogramsFrom({ name: "pageserver_wait_ondemand_download_seconds_global", help: "Time that reads waited for a layer to come", labels: ["task_kind"] }, () => labelled(downloads.waits));
  const byTask = (name: string, help: string, part: "layers" | "bytes") => metrics.countersFrom({ name: `pageserver_ondemand_download_${name}`, help, labels: ["task_kind"] }, () => [...downloads.layersByTask.all].map(([kind, count]) => ({ labels: [kind], value: count[part] })));
  byTask("count", "Layers fetched, by who needed them first", "layers");
  byTask("bytes_total", "Bytes of layers fetched, by who needed them first", "bytes");
  counters(metrics, [
    ["secondary_upload_heatmap", "Heatmaps written to object storage", () => heatmaps.uploaded],
    ["secondary_upload_heatmap_errors", "Heatmaps that could not be written", () => heatmaps.errors],
  ]);
  histograms(metrics, [["secondary_upload_heatmap_duration", "Time to make and write a heatmap", heatmaps.seconds]]);
}

function registerLayers(metrics: Metrics, { layers, relationSizes }: StorageCounts): void {
  counters(metrics, [
    ["layer_started_evictions", "Evictions of layers that began", () => layers.evictionsStarted],
    ["layer_completed_evictions", "Evictions of layers that were carried out", () => layers.evictionsCompleted],
    ["layer_started_deletes", "Deletions of layers' local files that began", () => layers.deletesStarted],
    ["layer_completed_deletes", "Deletions of layers' local files that were carried out", () => layers.deletesCompleted],
    ["gc_layers_removed_total", "Layers removed by garbage collection", () => layers.collected],
    ["relsize_cache_hits", "Sizes of relations found in their cache", () => relationSizes.hits],
    ["relsize_cache_misses", "Sizes of relations that were not in their cache", () => relationSizes.misses],
    ["relsize_cache_misses_old", "Those of them that were known, but only of later LSNs", () => relationSizes.missesOld],
  ]);
  metrics.countersFrom({ name: "pageserver_layer_cancelled_evictions_count", help: "Evictions of layers that were not carried out", labels: ["reason"] }, () => readings(layers.evictionsCancelled));
  metrics.countersFrom({ name: "pageserver_compaction_layers_written_total", help: "Layers made by compaction", labels: ["kind"] }, () => [{ labels: ["l0"], value: layers.writtenL0 }, { labels: ["image"], value: layers.writtenImages }]);
  histograms(metrics, [["layer_redownloaded_after", "Time from evicting a layer to fetching it again", layers.redownloadedAfter]]);
}

function registerIngest(metrics: Metrics, { ingest, walReceivers }: StorageCounts): void {
  counters(metrics, [
    ["wal_ingest_bytes_received", "Bytes of WAL taken from safekeepers", () => ingest.bytesReceived],
    ["wal_ingest_records_received", "Records taken from safekeepers", () => ingest.recordsReceived],
    ["wal_ingest_records_observed", "Those of which a shard needs to know only that they were there", () => ingest.recordsObserved],
    ["wal_ingest_records_committed", "Those that left something in storage", () => ingest.recordsCommitted],
    ["wal_ingest_records_filtered", "Those with nothing for the shard that took them", () => ingest.recordsFiltered],
    ["gap_blocks_zeroed_on_rel_extend", "Pages written as zeros where a relation grew past its end", () => ingest.gapBlocks],
    ["walreceiver_started_connections_total", "Connections to safekeepers that were begun", () => walReceivers.startedConnections],
    ["walreceiver_broker_updates_total", "Messages of the broker about timelines here", () => walReceivers.brokerUpdates],
  ]);
  metrics.countersFrom({ name: "pageserver_wal_ingest_values_committed", help: "Values that records left in storage", labels: ["class", "kind"] }, () => [
    { labels: ["metadata", "image"], value: ingest.metadataImages },
    { labels: ["metadata", "delta"], value: ingest.metadataDeltas },
    { labels: ["data", "image"], value: ingest.dataImages },
    { labels: ["data", "delta"], value: ingest.dataDeltas },
  ]);
  metrics.countersFrom({ name: "pageserver_wal_ingest_clear_vm_bits_unknown", help: "Bits of visibility maps not cleared, since there was no such map or page", labels: ["entity"] }, () => [
    { labels: ["relation"], value: ingest.unknownMapRelations },
    { labels: ["new_page"], value: ingest.unknownNewPages },
    { labels: ["old_page"], value: ingest.unknownOldPages },
  ]);
  metrics.gaugeFrom({ name: "pageserver_walreceiver_active_managers", help: "Timelines for which WAL is looked for" }, () => walReceivers.activeManagers);
  metrics.countersFrom({ name: "pageserver_walreceiver_switches_total", help: "Choices of a safekeeper to take WAL from, by why", labels: ["reason"] }, () => readings(walReceivers.switches));
  metrics.countersFrom({ name: "pageserver_walreceiver_candidates_events_total", help: "Safekeepers that came to be known to have a timeline's WAL, and that were forgotten", labels: ["event"] }, () => [
    { labels: ["add"], value: walReceivers.candidatesAdded },
    { labels: ["remove"], value: walReceivers.candidatesRemoved },
  ]);
}

function registerTenantCounts(metrics: Metrics, { tenants, initdb, logicalSizes, startupSeconds }: StorageCounts): void {
  histograms(metrics, [
    ["tenant_activation_seconds", "Time until a tenant could be used, from when it was taken up", tenants.activation],
    ["tenant_preload_seconds", "Time to read what object storage has of a tenant's timelines", tenants.preload],
    ["tenant_attach_seconds", "Time to make a tenant's timelines of what was read", tenants.attach],
    ["initdb_seconds_global", "Time of initdb", initdb.seconds],
  ]);
  metrics.gaugeFrom({ name: "pageserver_concurrent_initdb", help: "Runs of initdb under way" }, () => initdb.running);
  counters(metrics, [
    ["tenant_startup_scheduled", "Tenants that were there at the start", () => tenants.startupScheduled],
    ["tenant_startup_complete", "Those of them that can be used, or were let go", () => tenants.startupComplete],
    ["tenant_manager_slot_writes", "Changes of which tenants are here and how", () => tenants.slotWrites],
    ["tenant_manager_unexpected_errors_total", "Tenants that could not be taken up, or did not stop cleanly", () => tenants.unexpectedErrors],
    ["initial_logical_size_finish_calculation", "Counts of timelines' sizes that came to their end", () => logicalSizes.finished],
    ["initial_logical_size_drop_finished_calculation", "Sizes that were counted, of timelines that are not there any more", () => logicalSizes.droppedFinished],
  ]);
  metrics.countersFrom({ name: "pageserver_tenant_task_events", help: "Background loops of timelines that began, and that ended", labels: ["event"] }, () => [{ labels: ["start"], value: tenants.tasksStarted }, { labels: ["stop"], value: tenants.tasksStopped }]);
  metrics.countersFrom({ name: "pageserver_initial_logical_size_start_calculation", help: "Counts of timelines' sizes that began, first ones and later ones, and what for", labels: ["attempt", "circumstances"] }, () => readings(logicalSizes.started));
  metrics.countersFrom({ name: "pageserver_initial_logical_size_drop_calculation", help: "Counts of timelines' sizes that were not brought to an end", labels: ["attempt"] }, () => [{ labels: ["first"], value: logicalSizes.droppedFirst }, { labels: ["retry"], value: logicalSizes.droppedRetry }]);
  metrics.gaugesFrom({ name: "pageserver_startup_duration_seconds", help: "Seconds from the start to the end of each phase of it", labels: ["phase"] }, () => readings(startupSeconds));
}
