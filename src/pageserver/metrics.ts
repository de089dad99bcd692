/** The role's metrics, under the peer's names (pageserver/src/metrics.rs). */
import { type CounterChild, type Family, type HistogramChild, LATENCY_BUCKETS, type Metrics } from "../observability/metrics.ts";
import type { TenantShardId, TimelineId } from "../kit/ids.ts";
import { shardSlug } from "./shard-slug.ts";
import type { ThrottleMetrics } from "./tenant/throttle.ts";
import type { PageServiceMetrics } from "./page-service/pagestream-metrics.ts";
import type { RemoteOperation, RemoteOutcome } from "./remote-timeline/remote-metrics.ts";
import type { TimelineMetrics } from "./timeline/timeline-deps.ts";

/** From a file in memory to a merge of gigabytes. */
const OPERATION_SECONDS = [0.0001, 0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 3600];
/** As of a compute's start. */
const BACKUP_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 3, 5, 10, 20, 40, 60];
const COUNT_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** The peer's words for the kinds of requests. */
const SMGR_NAMES = { exists: "get_rel_exists", nblocks: "get_rel_size", getpage: "get_page_at_lsn", dbsize: "get_db_size", "slru-segment": "get_slru_segment" } as const;

export class PageserverMetrics implements TimelineMetrics, PageServiceMetrics {
  readonly receivedBytes: CounterChild;
  readonly receivedRecords: CounterChild;
  readonly #getVectored;
  readonly #readDepth: HistogramChild;
  readonly #waitLsn;
  readonly #waitTimeouts: CounterChild;
  readonly #flush;
  readonly #downloads: CounterChild;
  readonly #downloadedLayers: CounterChild;
  readonly #layersWritten: Family<CounterChild>;
  readonly #collected: CounterChild;
  readonly #batches: HistogramChild;
  /** Requests by kind: plain numbers, since there may be hundreds of thousands a second. */
  readonly #answered = new Map<keyof typeof SMGR_NAMES, { ok: number; failed: number }>();
  readonly #pages = { ok: 0, failed: 0 };
  readonly #throttling: ThrottleCounters;
  readonly #throttlingOfTenants: ThrottleCounters;
  readonly #operations;
  readonly #connectionsStarted: CounterChild;
  readonly #connectionsFinished: CounterChild;
  readonly #commands: Family<CounterChild>;
  readonly #backups;
  readonly #remote: RemoteCounters;

  constructor(metrics: Metrics) {
    this.receivedBytes = metrics.counter({ name: "pageserver_wal_ingest_bytes_received", help: "Bytes of WAL ingested from safekeepers" }).with();
    this.receivedRecords = metrics.counter({ name: "pageserver_wal_ingest_records_received", help: "Number of WAL records received from safekeepers" }).with();
    this.#getVectored = metrics.duration({ name: "pageserver_get_vectored_seconds", help: "Time spent in get_vectored", labels: ["task_kind"], buckets: LATENCY_BUCKETS });
    this.#readDepth = metrics.histogram({ name: "pageserver_layers_visited_per_read_global", help: "Number of layers visited to reconstruct one key", buckets: COUNT_BUCKETS }).with();
    this.#waitLsn = metrics.duration({ name: "pageserver_wait_lsn_seconds", help: "Time spent waiting for WAL to arrive", buckets: LATENCY_BUCKETS }).with();
    this.#waitTimeouts = metrics.counter({ name: "pageserver_wait_lsn_timeouts_total", help: "Waits for WAL that ended without it" }).with();
    this.#flush = metrics.duration({ name: "pageserver_flush_layer_seconds", help: "Time to write a frozen layer to disk", buckets: LATENCY_BUCKETS }).with();
    this.#downloads = metrics.counter({ name: "pageserver_remote_ondemand_downloaded_bytes_total", help: "Total bytes of layers on-demand downloaded" }).with();
    this.#downloadedLayers = metrics.counter({ name: "pageserver_remote_ondemand_downloaded_layers_total", help: "Total on-demand downloaded layers" }).with();
    this.#operations = metrics.duration({ name: "pageserver_storage_operations_seconds_global", help: "Time spent on storage operations", labels: ["operation"], buckets: OPERATION_SECONDS });
    this.#remote = new RemoteCounters(metrics);
    const connections = (name: string, help: string) => metrics.counter({ name: `pageserver_live_connections_${name}`, help, labels: ["pageserver_connection_kind"] }).with("page_service");
    this.#connectionsStarted = connections("started", "Number of network connections that we started handling");
    this.#connectionsFinished = connections("finished", "Number of network connections that we finished handling");
    this.#commands = metrics.counter({ name: "pageserver_compute_commands", help: "Number of compute -> pageserver commands processed", labels: ["command"] });
    this.#backups = metrics.duration({ name: "pageserver_basebackup_query_seconds", help: "Histogram of basebackup queries durations, by result type", labels: ["result"], buckets: BACKUP_SECONDS });
    this.#layersWritten = metrics.counter({ name: "pageserver_compaction_layers_written_total", help: "Layers made by compaction", labels: ["kind"] });
    this.#collected = metrics.counter({ name: "pageserver_gc_layers_removed_total", help: "Layers removed by garbage collection" }).with();
    this.#batches = metrics.histogram({ name: "pageserver_page_service_batch_size_global", help: "Requests of a pagestream taken together", buckets: COUNT_BUCKETS }).with();
    for (const kind of Object.keys(SMGR_NAMES) as (keyof typeof SMGR_NAMES)[]) this.#answered.set(kind, kind === "getpage" ? this.#pages : { ok: 0, failed: 0 });
    metrics.countersFrom({ name: "pageserver_smgr_query_started_global_count", help: "Number of smgr queries", labels: ["smgr_query_type", "outcome"] }, () =>
      [...this.#answered].flatMap(([kind, { ok, failed }]) => [{ labels: [SMGR_NAMES[kind], "ok"], value: ok }, { labels: [SMGR_NAMES[kind], "error"], value: failed }]));
    this.#throttling = new ThrottleCounters(metrics, "_global", ["kind"]);
    this.#throttlingOfTenants = new ThrottleCounters(metrics, "", ["kind", "tenant_id", "shard_id"]);
  }

  /** Of one tenant shard, and all together. */
  throttle(id: TenantShardId): ThrottleMetrics {
    const counters = [this.#throttling.with("pagestream"), this.#throttlingOfTenants.with("pagestream", id.tenantId, shardSlug(id))];
    return {
      started: () => counters.forEach(({ started }) => started.inc()),
      finished: (waitedMs) => {
        for (const { finished, throttled, waitedMicros } of counters) {
          finished.inc();
          if (waitedMs === 0) continue;
          throttled.inc();
          waitedMicros.inc(Math.round(waitedMs * 1000));
        }
      },
    };
  }
  read(task: string, measured: { readonly keys: number; readonly layers: number; readonly depth: number; readonly durationMs: number }): void {
    this.#getVectored.with(task).recordMs(measured.durationMs);
    this.#readDepth.observe(measured.depth);
  }
  connected(): void {
    this.#connectionsStarted.inc();
  }
  disconnected(): void {
    this.#connectionsFinished.inc();
  }
  command(name: string): void {
    this.#commands.with(name).inc();
  }
  backedUp(result: string, durationMs: number): void {
    this.#backups.with(result).recordMs(durationMs);
  }
  answeredQuickly(requests: number): void {
    this.#batches.observe(requests);
    this.#pages.ok += requests;
  }
  waitLsn(durationMs: number, timedOut: boolean): void {
    this.#waitLsn.recordMs(durationMs);
    if (timedOut) this.#waitTimeouts.inc();
  }
  flushed(_sizeBytes: number, durationMs: number): void {
    this.#flush.recordMs(durationMs);
    this.#operations.with("layer flush").recordMs(durationMs);
  }
  downloaded(sizeBytes: number): void {
    this.#downloads.inc(sizeBytes);
    this.#downloadedLayers.inc();
  }
  remote(timeline: { readonly tenantShardId: TenantShardId; readonly timelineId: TimelineId }, operation: RemoteOperation): (outcome: RemoteOutcome, durationMs: number) => void {
    return this.#remote.started(timeline, operation);
  }
  compacted(kind: "l0" | "image", written: { readonly layers: number; readonly durationMs: number }): void {
    this.#layersWritten.with(kind).inc(written.layers);
    this.#operations.with(kind === "l0" ? "compact" : "create images").recordMs(written.durationMs);
  }
  collected(layers: number, durationMs: number): void {
    this.#collected.inc(layers);
    this.#operations.with("gc").recordMs(durationMs);
  }
  batch(requests: number): void {
    this.#batches.observe(requests);
  }
  answered(kind: keyof typeof SMGR_NAMES, failed: boolean): void {
    const counts = this.#answered.get(kind);
    if (counts === undefined) return;
    if (failed) counts.failed++;
    else counts.ok++;
  }
}

/** What timelines do with object storage: in all, and how much of it is under way for each. */
class RemoteCounters {
  readonly #seconds;
  readonly #callsStarted: Family<CounterChild>;
  readonly #callsFinished: Family<CounterChild>;
  readonly #bytesStarted: Family<CounterChild>;
  readonly #bytesFinished: Family<CounterChild>;

  constructor(metrics: Metrics) {
    const labels = ["tenant_id", "shard_id", "timeline_id", "file_kind", "op_kind"];
    const counter = (name: string, help: string) => metrics.counter({ name: `pageserver_remote_timeline_client_${name}`, help, labels });
    this.#seconds = metrics.duration({ name: "pageserver_remote_operation_seconds", help: "Time spent on remote storage operations, without that in queues", labels: ["file_kind", "op_kind", "status"], buckets: OPERATION_SECONDS });
    this.#callsStarted = counter("calls_started", "Number of started calls to remote timeline client");
    this.#callsFinished = counter("calls_finished", "Number of finished calls to remote timeline client");
    this.#bytesStarted = counter("bytes_started", "Bytes of remote timeline client operations that began");
    this.#bytesFinished = counter("bytes_finished", "Bytes of remote timeline client operations that ended");
  }

  started({ tenantShardId, timelineId }: { readonly tenantShardId: TenantShardId; readonly timelineId: TimelineId }, { fileKind, kind, sizeBytes }: RemoteOperation): (outcome: RemoteOutcome, durationMs: number) => void {
    const labels = [tenantShardId.tenantId, shardSlug(tenantShardId), timelineId, fileKind, kind];
    this.#callsStarted.with(...labels).inc();
    this.#bytesStarted.with(...labels).inc(sizeBytes);
    return (outcome, durationMs) => {
      this.#seconds.with(fileKind, kind, outcome).recordMs(durationMs);
      this.#callsFinished.with(...labels).inc();
      this.#bytesFinished.with(...labels).inc(sizeBytes);
    };
  }
}

class ThrottleCounters {
  readonly #started: Family<CounterChild>;
  readonly #finished: Family<CounterChild>;
  readonly #throttled: Family<CounterChild>;
  readonly #waited: Family<CounterChild>;

  constructor(metrics: Metrics, suffix: string, labels: readonly string[]) {
    const counter = (name: string, help: string) => metrics.counter({ name: `pageserver_tenant_throttling_${name}${suffix}`, help, labels });
    this.#started = counter("count_accounted_start", "Count of tenant throttling starts, by kind of throttle");
    this.#finished = counter("count_accounted_finish", "Count of tenant throttling finishes, by kind of throttle");
    this.#throttled = counter("count", "Count of tenant throttlings, by kind of throttle");
    this.#waited = counter("wait_usecs_sum", "Sum of microseconds that spent waiting throttle by kind of throttle");
  }

  with(...labels: readonly string[]) {
    return { started: this.#started.with(...labels), finished: this.#finished.with(...labels), throttled: this.#throttled.with(...labels), waitedMicros: this.#waited.with(...labels) };
  }
}
