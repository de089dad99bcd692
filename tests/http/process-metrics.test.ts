/** What every role tells of its process. */
import { expect, test } from "bun:test";
import { registerProcessMetrics } from "../../src/http/process-metrics.ts";
import { versionLine } from "../../src/kit/version.ts";
import { createLogger } from "../../src/observability/log.ts";
import { Metrics } from "../../src/observability/metrics.ts";

function valueOf(text: string, sample: string): number {
  return Number(text.split("\n").find((line) => line.startsWith(`${sample} `))?.split(" ").at(-1));
}

test("version and revision, memory, files, and lines of the log by level", async () => {
  const metrics = new Metrics();
  const lines: string[] = [];
  const log = createLogger({ role: "test", level: "info", write: (line) => lines.push(line) });
  registerProcessMetrics(metrics, { version: versionLine("pageserver"), log });
  log.info("one");
  log.child({ tenantId: "t" }).warn("two");
  log.child({}).child({}).warn("three");
  log.debug("not written");
  const text = await metrics.render();
  expect(text).toContain('libmetrics_build_info{revision="source",build_tag="0.0.0-source"} 1');
  expect(["debug", "info", "warn", "error"].map((level) => valueOf(text, `libmetrics_tracing_event_count{level="${level}"}`))).toEqual([0, 1, 2, 0]);
  expect(lines).toHaveLength(3);
  expect(valueOf(text, "process_resident_memory_bytes")).toBeGreaterThan(1024 * 1024);
  expect(valueOf(text, "libmetrics_maxrss_kb") * 1024).toBeGreaterThanOrEqual(valueOf(text, "process_resident_memory_bytes") / 2);
  expect(valueOf(text, "process_open_fds")).toBeGreaterThan(2);
  expect(valueOf(text, "process_max_fds")).toBeGreaterThan(valueOf(text, "process_open_fds"));
  expect(valueOf(text, "process_cpu_seconds_total")).toBeGreaterThan(0);
  expect(Math.abs(valueOf(text, "process_start_time_seconds") * 1000 - valueOf(text, "libmetrics_launch_timestamp"))).toBeLessThan(2);
});
