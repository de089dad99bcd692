/** The role's metrics, under the peer's names (safekeeper/src/metrics.rs). */
import { type CounterChild, type DurationChild, type Family, type GaugeChild, type HistogramChild, LATENCY_BUCKETS, type Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import { RECEIVE_QUEUE_MESSAGES } from "./config.ts";
import { PgTraffic } from "./pg-traffic.ts";
import type { WalStoreMetrics } from "./wal-store/wal-store-metrics.ts";

const FSYNC_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const KIB = 1024;
const WRITE_SIZE_BUCKETS = [1, 10, 100, KIB, 8 * KIB, 128 * KIB, KIB * KIB, 10 * KIB * KIB];
const QUEUE_DEPTH_BUCKETS = [0, 1, 2, 4, 8, 16, 32, 64, 128, RECEIVE_QUEUE_MESSAGES - 1, RECEIVE_QUEUE_MESSAGES];
const TIMELINES_BUCKETS = [1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000];
const TIMELINE_LABELS = ["tenant_id", "timeline_id"];

/** One set of values of the per-timeline gauges. */
export interface TimelineGauges {
  readonly tenantId: string;
  readonly timelineId: string;
  readonly values: Readonly<Record<TimelineGaugeName, number>>;
}

const TIMELINE_GAUGES = {
  safekeeper_commit_lsn: "Current commit_lsn (not necessarily persisted to disk), grouped by timeline",
  safekeeper_backup_lsn: "Current backup_lsn, up to which WAL is backed up, grouped by timeline",
  safekeeper_flush_lsn: "Current flush_lsn, grouped by timeline",
  safekeeper_epoch_start_lsn: "Point since which compute generates new WAL in the current consensus term",
  safekeeper_peer_horizon_lsn: "LSN of the most lagging safekeeper",
  safekeeper_remote_consistent_lsn: "LSN which is persisted to the remote storage in pageserver",
  safekeeper_ps_last_received_lsn: "Last LSN received by the pageserver, acknowledged in the feedback",
  safekeeper_feedback_last_time_seconds: "Timestamp of the last feedback from the pageserver",
  safekeeper_ps_feedback_count_total: "Number of feedbacks received from the pageserver",
  safekeeper_ps_corruption_detected: "1 if the pageserver reported corruption in the timeline, 0 otherwise",
  safekeeper_timeline_active: "Reports 1 for active timelines, 0 for inactive",
  safekeeper_wal_backup_active: "Reports 1 for timelines with active WAL backup, 0 otherwise",
  safekeeper_connected_computes: "Number of active compute connections",
  safekeeper_disk_usage_bytes: "Estimated disk space used to store WAL segments",
  safekeeper_interpreted_wal_reader_tasks: "Number of decodes of WAL for readers of interpreted WAL, grouped by timeline",
  safekeeper_acceptor_term: "Current consensus term",
  safekeeper_written_wal_bytes_total: "Number of WAL bytes written to disk, grouped by timeline",
  safekeeper_written_wal_seconds_total: "Total time spent in write(2) writing WAL to disk, grouped by timeline",
  safekeeper_flushed_wal_seconds_total: "Total time spent in fsync(2) flushing WAL to disk, grouped by timeline",
} as const;

export type TimelineGaugeName = keyof typeof TIMELINE_GAUGES;

export class SafekeeperMetrics {
  readonly #clock: Clock;
  readonly #writeBytes: HistogramChild;
  readonly #writeSeconds: DurationChild;
  readonly #flushSeconds: DurationChild;
  readonly #storageSeconds: Family<DurationChild>;
  readonly persistControlFile: DurationChild;
  readonly miscOperation: Family<DurationChild>;
  readonly diskErrors: CounterChild;
  readonly messages: Family<CounterChild>;
  readonly removedSegments: CounterChild;
  readonly walReceivers: GaugeChild;
  readonly walReaders: Family<GaugeChild>;
  readonly queueDepth: HistogramChild;
  readonly queueDepthTotal: GaugeChild;
  readonly queueSizeTotal: GaugeChild;
  readonly brokerPushed: CounterChild;
  readonly brokerPulled: Family<CounterChild>;
  readonly brokerPushSeconds: DurationChild;
  readonly brokerIterationTimelines: HistogramChild;
  readonly pageserverFeedbacks: CounterChild;
  readonly queriesReceived: Family<CounterChild>;
  readonly queriesFinished: Family<CounterChild>;
  readonly managerIterations: CounterChild;
  readonly managerActiveChanges: CounterChild;
  readonly traffic: PgTraffic;
  readonly backedUpSegments: CounterChild;
  readonly backupErrors: CounterChild;
  readonly backupReelections: CounterChild;
  readonly backupTasksStarted: CounterChild;
  readonly backupTasksFinished: CounterChild;
  readonly walStorageLimitErrors: CounterChild;
  readonly partialUploads: Family<CounterChild>;
  readonly partialUploadedBytes: CounterChild;
  readonly #activeTimelines: GaugeChild;
  readonly #collectSeconds: GaugeChild;
  readonly #timelineGauges: ReadonlyMap<TimelineGaugeName, Family<GaugeChild>>;

  /** @param collect the timelines' values, when the metrics are scraped */
  constructor(metrics: Metrics, clock: Clock, collect: () => readonly TimelineGauges[]) {
    this.#clock = clock;
    // First, so that a scrape refreshes the per-timeline gauges before it prints them.
    metrics.gaugeFrom({ name: "safekeeper_timelines", help: "Total number of timelines loaded in-memory" }, () => this.#refresh(collect));
    const counter = (name: string, help: string): CounterChild => metrics.counter({ name, help }).with();
    const gauge = (name: string, help: string): GaugeChild => metrics.gauge({ name, help }).with();
    const duration = (name: string, help: string, buckets: readonly number[]): DurationChild => metrics.duration({ name, help, buckets }).with();
    this.#activeTimelines = gauge("safekeeper_active_timelines", "Total number of active timelines");
    this.#collectSeconds = gauge("safekeeper_collect_timeline_metrics_seconds", "Time spent collecting timeline metrics");
    this.#writeBytes = metrics.histogram({ name: "safekeeper_write_wal_bytes", help: "Bytes written to WAL in a single request", buckets: WRITE_SIZE_BUCKETS }).with();
    this.#writeSeconds = duration("safekeeper_write_wal_seconds", "Seconds spent writing WAL to a disk in a single request", FSYNC_BUCKETS);
    this.#flushSeconds = duration("safekeeper_flush_wal_seconds", "Seconds spent syncing WAL to a disk (excluding segment initialization)", FSYNC_BUCKETS);
    this.#storageSeconds = metrics.duration({ name: "safekeeper_wal_storage_operation_seconds", help: "Seconds spent on WAL storage operations", labels: ["operation"], buckets: FSYNC_BUCKETS });
    this.persistControlFile = duration("safekeeper_persist_control_file_seconds", "Seconds to persist and sync control file", FSYNC_BUCKETS);
    this.miscOperation = metrics.duration({ name: "safekeeper_misc_operation_seconds", help: "Seconds spent on miscellaneous operations", labels: ["operation"], buckets: LATENCY_BUCKETS });
    this.diskErrors = counter("safekeeper_wal_disk_io_errors", "Number of disk I/O errors when creating and flushing WALs and control files");
    this.messages = metrics.counter({ name: "safekeeper_proposer_acceptor_messages_total", help: "Total number of messages from proposers processed", labels: ["outcome"] });
    this.removedSegments = counter("safekeeper_removed_wal_segments_total", "Number of WAL segments removed from the disk");
    this.walReceivers = gauge("safekeeper_wal_receivers", "Number of currently connected WAL receivers (i.e. connected computes)");
    this.walReaders = metrics.gauge({ name: "safekeeper_wal_readers", help: "Number of active WAL readers (may serve pageservers or other safekeepers)", labels: ["kind", "target"] });
    this.queueDepth = metrics.histogram({ name: "safekeeper_wal_receiver_queue_depth", help: "Number of queued messages per WAL receiver (sampled every 5 seconds)", buckets: QUEUE_DEPTH_BUCKETS }).with();
    this.queueDepthTotal = gauge("safekeeper_wal_receiver_queue_depth_total", "Total number of queued messages across all WAL receivers");
    this.queueSizeTotal = gauge("safekeeper_wal_receiver_queue_size_total", "Total memory byte size of queued messages across all WAL receivers");
    this.brokerPushed = counter("safekeeper_broker_pushed_updates_total", "Number of timeline updates pushed to the broker");
    this.brokerPulled = metrics.counter({ name: "safekeeper_broker_pulled_updates_total", help: "Number of timeline updates pulled and processed from the broker", labels: ["result"] });
    this.brokerPushSeconds = duration("safekeeper_broker_push_update_seconds", "Seconds to push all timeline updates to the broker", LATENCY_BUCKETS);
    this.brokerIterationTimelines = metrics.histogram({ name: "safekeeper_broker_iteration_timelines", help: "Count of timelines pushed to the broker in a single iteration", buckets: TIMELINES_BUCKETS }).with();
    this.pageserverFeedbacks = counter("safekeeper_received_ps_feedbacks_total", "Number of pageserver feedbacks received");
    this.queriesReceived = metrics.counter({ name: "safekeeper_pg_queries_received_total", help: "Number of queries received through pg protocol", labels: ["query"] });
    this.queriesFinished = metrics.counter({ name: "safekeeper_pg_queries_finished_total", help: "Number of queries finished through pg protocol", labels: ["query"] });
    this.managerIterations = counter("safekeeper_manager_iterations_total", "Number of iterations of the timeline manager task");
    this.managerActiveChanges = counter("safekeeper_manager_active_changes_total", "Number of timeline active status changes in the timeline manager task");
    this.traffic = new PgTraffic(metrics);
    this.backedUpSegments = counter("safekeeper_backed_up_segments_total", "Number of WAL segments backed up to the object storage");
    this.backupErrors = counter("safekeeper_backup_errors_total", "Number of errors during backup");
    this.backupReelections = counter("safekeeper_backup_reelect_leader_total", "Number of times the backup leader was reelected");
    this.backupTasksStarted = counter("safekeeper_wal_backup_tasks_started_total", "Number of times this safekeeper began to back up a timeline's WAL");
    this.backupTasksFinished = counter("safekeeper_wal_backup_tasks_finished_total", "Number of times this safekeeper ceased to back up a timeline's WAL");
    this.walStorageLimitErrors = counter("safekeeper_wal_storage_limit_errors", "Number of errors due to timeline WAL storage utilization exceeding configured limit. An increase in this metric indicates issues backing up or removing WALs.");
    this.partialUploads = metrics.counter({ name: "safekeeper_partial_backup_uploads_total", help: "Number of partial backup uploads to the object storage", labels: ["result"] });
    this.partialUploadedBytes = counter("safekeeper_partial_backup_uploaded_bytes_total", "Number of bytes uploaded to the object storage during partial backup");
    this.#timelineGauges = new Map(Object.entries(TIMELINE_GAUGES).map(([name, help]) => [name as TimelineGaugeName, metrics.gauge({ name, help, labels: TIMELINE_LABELS })]));
  }

  forgetTimeline(tenantId: string, timelineId: string): void {
    for (const family of this.#timelineGauges.values()) family.forget(tenantId, timelineId);
  }

  /** For one timeline's store; `totals` grows with what it writes. */
  walStore(totals: { bytes: number; writeMs: number; flushMs: number }): WalStoreMetrics {
    const elapsed = async <T>(action: () => Promise<T>, record: (ms: number) => void): Promise<T> => {
      const startMs = this.#clock.monotonicMs();
      try {
        return await action();
      } finally {
        record(this.#clock.monotonicMs() - startMs);
      }
    };
    return {
      timed: (operation, action) => elapsed(action, (ms) => this.#storageSeconds.with(operation).recordMs(ms)),
      write: (bytes, action) => elapsed(action, (ms) => {
        this.#writeBytes.observe(bytes);
        this.#writeSeconds.recordMs(ms);
        totals.bytes += bytes;
        totals.writeMs += ms;
      }),
      flush: (action) => elapsed(action, (ms) => {
        this.#flushSeconds.recordMs(ms);
        totals.flushMs += ms;
      }),
      removedSegments: (count) => this.removedSegments.inc(count),
      diskError: () => this.diskErrors.inc(),
    };
  }

  #refresh(collect: () => readonly TimelineGauges[]): number {
    const startMs = this.#clock.monotonicMs();
    const timelines = collect();
    for (const { tenantId, timelineId, values } of timelines) {
      for (const [name, family] of this.#timelineGauges) family.with(tenantId, timelineId).set(values[name]);
    }
    this.#activeTimelines.set(timelines.filter(({ values }) => values.safekeeper_timeline_active === 1).length);
    this.#collectSeconds.set((this.#clock.monotonicMs() - startMs) / 1000);
    return timelines.length;
  }
}
