/**
 * Names in pageserver.toml beside those that config.ts reads. As in the peer, a name nobody knows is told and does not keep the pageserver
 * from starting: a configuration file may be newer than the program, or older. README.md has the reasons for those without effect.
 *
 * Source: the peer's pageserver_api config module (ConfigToml), January 2025 and later, and its defaults.
 */
import { parseDuration } from "../kit/humantime.ts";
import type { Logger } from "../observability/log.ts";
import { tenantConfNames } from "./tenant/tenant-config.ts";

/** The peer's, with what it takes when they are not given (undefined where it is nothing): accepted, and told when they are something else. */
const WITHOUT_EFFECT: Readonly<Record<string, unknown>> = {
  // Of the peer's runtime, its ways to read, write and batch.
  virtual_file_io_engine: undefined, virtual_file_io_mode: undefined, io_buffer_alignment: 512, no_sync: undefined, get_vectored_concurrent_io: { mode: "sidecar-task" },
  max_vectored_read_bytes: 130 * 1024, max_get_vectored_keys: 32, page_service_pipelining: { mode: "pipelined", max_batch_size: 32, execution: "concurrent-futures", batching: "scattered-lsn" },
  ingest_batch_size: 100, l0_flush: undefined, ephemeral_bytes_per_memory_kb: 0, compact_level0_phase1_value_access: undefined, wal_redo_timeout: "60 s",
  image_layer_generation_large_timeline_threshold: 2 * 1024 ** 3, concurrent_tenant_warmup: 8, background_task_maximum_delay: "10s", heatmap_upload_concurrency: 8,
  // Said in another way here, or always so.
  log_format: "plain", cached_metric_collection_interval: undefined, force_metric_collection_on_scrape: true, validate_wal_contiguity: undefined,
  ondemand_download_behavior_treat_error_as_warn: false, enable_read_path_debugging: undefined,
  // Of parts that are not here.
  listen_grpc_addr: undefined, grpc_auth_type: "Trust", secondary_download_concurrency: 1, load_previous_heatmap: undefined, generate_unarchival_heatmap: undefined,
  import_pgdata_upcall_api: undefined, import_pgdata_upcall_api_token: undefined, import_pgdata_aws_endpoint_url: undefined,
  timeline_import_config: { import_job_concurrency: 32, import_job_soft_size_limit: 256 * 1024 ** 2, import_job_checkpoint_threshold: 32, import_job_max_byte_range_size: 4 * 1024 ** 2 },
  basebackup_cache_config: undefined, tracing: undefined, posthog_config: undefined, dev_mode: false, test_remote_failures: 0, test_remote_failures_probability: 100,
};

/** Tells, once and in one line each, of names that set nothing and of those that nobody knows. @param read those that do set something */
export function tellUnusedNames(document: unknown, read: readonly string[], log: Logger): void {
  const given = entriesOf(document).filter(([name]) => !read.includes(name));
  const tenant = entriesOf(tableOf(document, "tenant_config")).map(([name]) => name);
  const withoutEffect = [
    ...given.filter(([name, value]) => Object.hasOwn(WITHOUT_EFFECT, name) && !isSame(value, WITHOUT_EFFECT[name])).map(([name]) => name),
    ...tenant.filter((name) => tenantConfNames.withoutEffect.has(name)).map((name) => `tenant_config.${name}`),
  ];
  if (withoutEffect.length > 0) log.warn("configuration without effect here", { names: withoutEffect.join(", ") });
  const unknown = [
    ...given.map(([name]) => name).filter((name) => !Object.hasOwn(WITHOUT_EFFECT, name)),
    ...tenant.filter((name) => !tenantConfNames.read.has(name) && !tenantConfNames.withoutEffect.has(name)).map((name) => `tenant_config.${name}`),
  ];
  if (unknown.length > 0) log.warn("ignoring unknown configuration", { names: unknown.join(", ") });
}

function entriesOf(table: unknown): [string, unknown][] {
  return typeof table === "object" && table !== null ? Object.entries(table) : [];
}

function tableOf(document: unknown, name: string): unknown {
  return entriesOf(document).find(([key]) => key === name)?.[1];
}

function isSame(value: unknown, other: unknown): boolean {
  if (typeof value === "string" && typeof other === "string") return value === other || sameDuration(value, other);
  const [names, others] = [entriesOf(value), entriesOf(other)];
  if (names.length === 0) return value === other;
  return names.length === others.length && names.every(([name, part]) => isSame(part, tableOf(other, name)));
}

function sameDuration(value: string, other: string): boolean {
  try {
    return parseDuration(value) === parseDuration(other);
  } catch {
    return false;
  }
}
