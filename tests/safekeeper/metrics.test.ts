/** The names of the metrics are the peer's (neondatabase/neon safekeeper/src/metrics.rs): dashboards and alerts are made of them. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString } from "../../src/kit/lsn.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { testLogger } from "../support/test-logger.ts";
import { connectTo, platform, ProposerDriver } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const TENANT = "1".repeat(32);
const TIMELINE = "2".repeat(32);
const START = 5 * MIB + 3 * 8192 + 1000;

const OF_THE_PROCESS = [
  "write_wal_bytes", "write_wal_seconds", "flush_wal_seconds", "persist_control_file_seconds", "wal_storage_operation_seconds", "misc_operation_seconds", "wal_disk_io_errors",
  "proposer_acceptor_messages_total", "pg_io_bytes_total", "broker_pushed_updates_total", "broker_pulled_updates_total", "broker_push_update_seconds", "broker_iteration_timelines",
  "pg_queries_received_total", "pg_queries_finished_total", "removed_wal_segments_total", "backed_up_segments_total", "backup_errors_total", "backup_reelect_leader_total",
  "partial_backup_uploads_total", "partial_backup_uploaded_bytes_total", "received_ps_feedbacks_total", "manager_iterations_total", "manager_active_changes_total",
  "wal_backup_tasks_started_total", "wal_backup_tasks_finished_total", "wal_receivers", "wal_readers", "wal_receiver_queue_depth", "wal_receiver_queue_depth_total", "wal_receiver_queue_size_total",
  "wal_storage_limit_errors", "collect_timeline_metrics_seconds", "timelines", "active_timelines",
];
const OF_A_TIMELINE = [
  "commit_lsn", "backup_lsn", "flush_lsn", "epoch_start_lsn", "peer_horizon_lsn", "remote_consistent_lsn", "ps_last_received_lsn", "feedback_last_time_seconds", "ps_feedback_count_total",
  "ps_corruption_detected", "timeline_active", "wal_backup_active", "connected_computes", "disk_usage_bytes", "acceptor_term", "written_wal_bytes_total", "written_wal_seconds_total",
  "flushed_wal_seconds_total", "interpreted_wal_reader_tasks",
];

test("all that the peer has and that exists here is there under its name, and moves", async () => {
  const directory = mkdtempSync(join(tmpdir(), "strata-metrics-"));
  const anyPort = { host: "127.0.0.1", port: 0 };
  const running = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, availabilityZone: "here" }, { platform, log: testLogger() });
  try {
    const target = { port: running.pgPort, tenantId: TENANT, timelineId: TIMELINE };
    const proposer = await ProposerDriver.connect(target);
    const wal = new SampleWal(START).growTo(START + 300_000);
    await proposer.pushNew(wal, 1);
    const reader = await connectTo({ ...target, applicationName: "pageserver", options: ` availability_zone=there protocol={"type":"interpreted","args":{"format":"protobuf","compression":null}} shard_count=1 shard_number=0 shard_stripe_size=32768` });
    const copy = await reader.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    await copy.read();
    const scrape = async (): Promise<string> => (await fetch(`http://127.0.0.1:${running.httpPort}/metrics`)).text();
    let text = await scrape();
    // The maintenance loop's to say.
    for (let left = 100; left > 0 && !text.includes("safekeeper_active_timelines 1"); left--) {
      await Bun.sleep(20);
      text = await scrape();
    }
    const names = new Set([...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name));
    expect([...OF_THE_PROCESS, ...OF_A_TIMELINE].filter((name) => !names.has(`safekeeper_${name}`))).toEqual([]);
    const value = (name: string): number => Number(new RegExp(`^safekeeper_${RegExp.escape(name)} (\\S+)$`, "m").exec(text)?.[1]);
    expect(value("active_timelines")).toBe(1);
    const ids = `{tenant_id="${TENANT}",timeline_id="${TIMELINE}"}`;
    expect(value(`disk_usage_bytes${ids}`)).toBe(MIB);
    expect(value(`interpreted_wal_reader_tasks${ids}`)).toBe(1);
    expect(value(`pg_io_bytes_total{client_az="unknown",sk_az="here",app_name="driver",dir="read",same_az="unknown"}`)).toBeGreaterThan(300_000);
    expect(value(`pg_io_bytes_total{client_az="there",sk_az="here",app_name="pageserver",dir="write",same_az="false"}`)).toBeGreaterThan(300);
    expect(value(`misc_operation_seconds_count{operation="handle_elected"}`)).toBe(1);
    reader.close();
    proposer.close();
  } finally {
    await running.stop();
    rmSync(directory, { recursive: true, force: true });
  }
});
