/** How many objects are on their way out, under the peer's names (pageserver/src/metrics.rs). */
import type { Metrics } from "../../observability/metrics.ts";
import type { DeletionCounts, DeletionQueue } from "./deletion-queue.ts";

const COUNTERS: readonly (readonly [keyof DeletionCounts, string, string])[] = [
  ["submitted", "submitted_total", "Number of objects submitted for deletion"],
  ["validated", "validated_total", "Number of keys validated for deletion"],
  ["executed", "executed_total", "Number of objects deleted"],
  ["dropped", "dropped_total", "Number of object deletions dropped due to stale generation"],
  ["droppedLsnUpdates", "dropped_lsn_updates_total", "Updates to remote_consistent_lsn dropped due to stale generation number"],
  ["otherErrors", "unexpected_errors_total", "Rounds of the deletion queue that failed otherwise than by object storage"],
];

export function watchDeletions(metrics: Metrics, queue: Pick<DeletionQueue, "counts">): void {
  for (const [count, name, help] of COUNTERS) metrics.counterFrom({ name: `pageserver_deletion_queue_${name}`, help }, () => queue.counts[count]);
  metrics.countersFrom({ name: "pageserver_deletion_queue_remote_errors_total", help: "Retryable remote I/O errors while executing deletions", labels: ["op_kind"] }, () => [{ labels: ["execute"], value: queue.counts.remoteErrors }]);
}
