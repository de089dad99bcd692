import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { loadPageserverConfig } from "../../src/pageserver/config.ts";
import { RealFiles } from "../../src/platform/real/files.ts";

const directory = mkdtempSync(join(tmpdir(), "strata-config-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
writeFileSync(join(directory, "identity.toml"), "id = 7\n");

async function load(toml: string, environment: Record<string, string> = {}) {
  writeFileSync(join(directory, "pageserver.toml"), toml);
  const log = new RecordingLogger();
  return { config: await loadPageserverConfig(new RealFiles(), directory, { environment, log }), log };
}

describe("remote_storage", () => {
  test("a directory, S3 and Azure, with secrets from the environment; below the working directory unless given", async () => {
    expect((await load("")).config.remoteStorage).toEqual({ kind: "local", directory: `${directory}/remote` });
    expect((await load(`remote_storage = { local_path = "/var/objects" }`)).config.remoteStorage).toEqual({ kind: "local", directory: "/var/objects" });
    const s3 = await load(`[remote_storage]\nbucket_name = "b"\nbucket_region = "eu-west-1"\nprefix_in_bucket = "ps"\nendpoint = "http://127.0.0.1:9000"`, { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" });
    expect(s3.config.remoteStorage).toMatchObject({ kind: "s3", bucket: "b", prefix: "ps/", endpoint: "http://127.0.0.1:9000", credentials: { accessKeyId: "id", secretAccessKey: "secret" } });
    const azure = await load(`remote_storage = { container_name = "c", container_region = "r", storage_account = "a" }`, { AZURE_STORAGE_ACCESS_KEY: "key" });
    expect(azure.config.remoteStorage).toMatchObject({ kind: "azure", account: "a", container: "c" });
  });

  test("two kinds at once, or no secrets, are refused", async () => {
    await expect(load(`remote_storage = { local_path = "/a", bucket_name = "b", bucket_region = "r" }`)).rejects.toThrow("exactly one");
    await expect(load(`remote_storage = { bucket_name = "b", bucket_region = "r" }`, { AWS_EC2_METADATA_DISABLED: "true" })).rejects.toMatchObject({ kind: "fix-input" });
  });
});

test("names of the peer's without effect here are told when they say something else than it does by itself, unknown ones too; neither keeps it from starting", async () => {
  const { config, log } = await load(`virtual_file_io_engine = "tokio-epoll-uring"\ningest_batch_size = 200\nno_such_thing = 1\nneither_this = 2\npage_cache_size = 100\n[tenant_config]\ngc_compaction_enabled = true\nmisspelt = 5\ngc_horizon = 7\n`);
  expect(config.nodeId).toBe(7);
  expect(log.entries.map(({ level, message, fields }) => [level, message, fields.names])).toEqual([
    ["warn", "configuration without effect here", "virtual_file_io_engine, ingest_batch_size, tenant_config.gc_compaction_enabled"],
    ["warn", "ignoring unknown configuration", "no_such_thing, neither_this, tenant_config.misspelt"],
  ]);
  const asThePeer = await load(`ingest_batch_size = 100\nwal_redo_timeout = "1m"\nlog_format = "plain"\npage_service_pipelining = { mode = "pipelined", max_batch_size = 32, execution = "concurrent-futures", batching = "scattered-lsn" }\ntimeline_import_config = { import_job_concurrency = 32, import_job_soft_size_limit = 268435456, import_job_checkpoint_threshold = 32, import_job_max_byte_range_size = 4194304 }\n`);
  expect(asThePeer.log.entries).toEqual([]);
  const other = await load(`page_service_pipelining = { mode = "serial" }\nwal_redo_timeout = "2m"`);
  expect(other.log.entries.map(({ fields }) => fields.names)).toEqual(["page_service_pipelining, wal_redo_timeout"]);
});

test("emergency mode, pings to the broker, counts at once, and offloading unless the tenant says otherwise", async () => {
  expect((await load("")).config).toMatchObject({ emergencyMode: false, sizeCountsAtOnce: 1, tenantDefaults: { timelineOffloading: true } });
  const { config, log } = await load(`control_plane_emergency_mode = true\nbroker_keepalive_interval = "2s"\nconcurrent_tenant_size_logical_size_queries = 3\ntimeline_offloading = false\n`);
  expect(config).toMatchObject({ emergencyMode: true, brokerKeepaliveIntervalMs: 2000, sizeCountsAtOnce: 3, tenantDefaults: { timelineOffloading: false } });
  expect((await load(`timeline_offloading = false\ntenant_config = { timeline_offloading = true }`)).config.tenantDefaults.timelineOffloading).toBe(true);
  expect(log.entries).toEqual([]);
  await expect(load(`concurrent_tenant_size_logical_size_queries = 0`)).rejects.toMatchObject({ kind: "fix-input" });
});

test("consumption metrics: off without an endpoint, bad values are refused", async () => {
  expect((await load("")).config.consumption).toBeNull();
  expect((await load(`metric_collection_endpoint = "http://127.0.0.1:8080/events"`)).config.consumption).toEqual({ endpoint: "http://127.0.0.1:8080/events", intervalMs: 600_000, bucket: null });
  const whole = await load(`metric_collection_endpoint = "https://meter.example/v1/events"\nmetric_collection_interval = "1s"\n[metric_collection_bucket]\nlocal_path = "/var/events"`);
  expect(whole.config.consumption).toEqual({ endpoint: "https://meter.example/v1/events", intervalMs: 1000, bucket: { kind: "local", directory: "/var/events" } });
  const alone = await load(`metric_collection_bucket = { local_path = "/var/events" }`);
  expect([alone.config.consumption, alone.log.entries.map(({ level, message }) => [level, message.includes("without effect")])]).toEqual([null, [["warn", true]]]);
  for (const bad of [`metric_collection_endpoint = "ftp://host/x"`, `metric_collection_endpoint = "host"`, `metric_collection_endpoint = 5`, `metric_collection_interval = "0s"`, `metric_collection_interval = "often"`, `metric_collection_bucket = { bucket_name = "b" }`, `metric_collection_bucket = "b"`]) {
    await expect(load(bad)).rejects.toMatchObject({ kind: "fix-input" });
  }
});

test("disk usage eviction is off without its table, and on with it", async () => {
  expect((await load("")).config.diskUsageEviction).toMatchObject({ enabled: false });
  const { config } = await load(`[disk_usage_based_eviction]\nmax_usage_pct = 70\nmin_avail_bytes = 5\nperiod = "10s"\n`);
  expect(config.diskUsageEviction).toEqual({ enabled: true, maxUsagePercent: 70, minAvailableBytes: 5, periodMs: 10_000, order: { highestLayerCountLosesFirst: true } });
  await expect(load(`[disk_usage_based_eviction]\nmax_usage_pct = 170\n`)).rejects.toThrow("max_usage_pct");
});

test("tenant defaults and the tenant's own: throttle, heatmaps, offloading, eviction policy", async () => {
  const { config } = await load(`[tenant_config]\nheatmap_period = "5m"\ntimeline_offloading = false\neviction_policy = { kind = "LayerAccessThreshold", period = "1h", threshold = "24h" }\n[tenant_config.timeline_get_throttle]\ntask_kinds = ["PageRequestHandler"]\ninitial = 10\nrefill_interval = "10ms"\nrefill_amount = 5\nmax = 20\n`);
  expect(config.tenantDefaults).toMatchObject({ heatmapPeriodMs: 300_000, timelineOffloading: false, accessEviction: { periodMs: 3_600_000, thresholdMs: 86_400_000 }, getThrottle: { enabled: true, requestsPerSecond: 500, max: 20, initial: 10 } });
});
