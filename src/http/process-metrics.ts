/**
 * What every role tells of its process, under the names of the peer's (neondatabase/neon) libs/metrics, libs/utils and libs/http-utils, and of
 * the usual Prometheus process collector.
 */
import type { Logger } from "../observability/log.ts";
import type { Metrics } from "../observability/metrics.ts";
import { type ProcessUsage, processUsage } from "../platform/real/process-usage.ts";

const GAUGES: readonly (readonly [name: string, help: string, read: (usage: ProcessUsage) => number])[] = [
  ["process_resident_memory_bytes", "Memory in use", ({ residentBytes }) => residentBytes],
  ["process_virtual_memory_bytes", "Addresses in use", ({ virtualBytes }) => virtualBytes],
  ["process_open_fds", "Open files", ({ openFiles }) => openFiles],
  ["process_max_fds", "Files that may be open", ({ maxOpenFiles }) => maxOpenFiles],
  ["process_threads", "Threads", ({ threads }) => threads],
  ["process_start_time_seconds", "When the process began, since the epoch", ({ startedSeconds }) => startedSeconds],
  ["libmetrics_launch_timestamp", "When the process began, since the epoch, in milliseconds", ({ startedSeconds }) => Math.round(startedSeconds * 1000)],
  ["libmetrics_maxrss_kb", "The most memory that was in use, in KiB", ({ maxResidentBytes }) => maxResidentBytes / 1024],
  ["libmetrics_process_status_vmlck", "Memory kept from being paged out", ({ lockedBytes }) => lockedBytes],
  ["libmetrics_process_cpu_seconds_highres", "Processor time used, with fractions", ({ cpuSeconds }) => cpuSeconds],
];

/** @param version as `versionLine` makes it */
export function registerProcessMetrics(metrics: Metrics, { version, log }: { readonly version: string; readonly log: Logger }): void {
  for (const [name, help, read] of GAUGES) metrics.gaugeFrom({ name, help }, () => read(processUsage()));
  metrics.counterFrom({ name: "process_cpu_seconds_total", help: "Processor time used" }, () => processUsage().cpuSeconds);
  metrics.gaugesFrom({ name: "libmetrics_disk_io_bytes_total", help: "Bytes read from and written to disks", labels: ["io_operation"] }, () => {
    const { diskReadBytes, diskWrittenBytes } = processUsage();
    return [{ labels: ["read"], value: diskReadBytes }, { labels: ["write"], value: diskWrittenBytes }];
  });
  const { revision, tag } = partsOf(version);
  metrics.gauge({ name: "libmetrics_build_info", help: "What is running", labels: ["revision", "build_tag"] }).with(revision, tag).set(1);
  metrics.countersFrom({ name: "libmetrics_tracing_event_count", help: "Lines of the log, by level", labels: ["level"] }, () => Object.entries(log.written ?? {}).map(([level, value]) => ({ labels: [level], value })));
}

/** Told each time metrics are asked for. */
export function countScrapes(metrics: Metrics): () => void {
  const counter = metrics.counter({ name: "libmetrics_metric_handler_requests_total", help: "Times metrics were asked for" }).with();
  return () => counter.inc();
}

function partsOf(version: string): { readonly revision: string; readonly tag: string } {
  const [, tag = version, revision = "unknown"] = /^\S+ (\S+) git:(\S+)$/.exec(version) ?? [];
  return { revision, tag };
}
