/** Metrics of a compute's log and of what pageservers have told of themselves, read when they are scraped. */
import type { Metrics } from "../observability/metrics.ts";
import type { ComputeState } from "./state.ts";

/** The names of the peer's exporter where it has them (compute/etc/sql_exporter). */
export function registerComputeMetrics(metrics: Metrics, state: ComputeState): void {
  const gauge = (name: string, help: string, read: () => number | undefined | null): void => metrics.gaugeFrom({ name, help }, () => read() ?? 0);
  gauge("compute_current_lsn", "End of the server's WAL", () => state.proposer()?.flushLsn);
  gauge("compute_commit_lsn", "What a quorum of safekeepers has", () => state.proposer()?.commitLsn);
  gauge("compute_pageserver_last_received_lsn", "What the pageserver has received", () => state.proposer()?.pageserver.lastReceivedLsn);
  gauge("compute_pageserver_disk_consistent_lsn", "What the pageserver has on its disk", () => state.proposer()?.pageserver.diskConsistentLsn);
  gauge("compute_pageserver_remote_consistent_lsn", "What the pageserver has in object storage", () => state.proposer()?.pageserver.remoteConsistentLsn);
  gauge("compute_timeline_logical_size_bytes", "Logical size of the timeline, by the pageserver's word", () => state.proposer()?.pageserver.sizeBytes);
  gauge("compute_max_cluster_size_bytes", "The size quota; 0 for none", () => state.quota?.limitBytes);
  gauge("compute_cluster_size_exceeded", "1 while transactions are read-only because of the size quota", () => Number(state.quota?.state === "exceeded"));
  gauge("compute_backpressure_throttled", "1 while commits wait for the pageserver", () => Number(state.proposer()?.throttled === true));
  metrics.counterFrom({ name: "compute_backpressure_throttling_seconds_total", help: "Time commits have been throttled" }, () => (state.proposer()?.throttledMs ?? 0) / 1000);
}
