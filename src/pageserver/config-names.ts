/**
 * Names in pageserver.toml beside those that config.ts reads. As in the peer, a name nobody knows is told and does not keep the pageserver
 * from starting: a configuration file may be newer than the program, or older.
 *
 * Source: the peer's pageserver_api config module (ConfigToml), January 2025 and later.
 */
import type { Logger } from "../observability/log.ts";

/** The peer's, and what they set does not exist here or is decided by itself: accepted, and said to have no effect. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  "listen_https_addr", "listen_grpc_addr", "grpc_auth_type", "ssl_key_file", "ssl_cert_file", "ssl_cert_reload_period", "enable_tls_page_service_api",
  "wal_redo_timeout", "broker_keepalive_interval", "log_format", "concurrent_tenant_warmup", "concurrent_tenant_size_logical_size_queries",
  "cached_metric_collection_interval", "force_metric_collection_on_scrape",
  "test_remote_failures", "test_remote_failures_probability", "ondemand_download_behavior_treat_error_as_warn", "background_task_maximum_delay",
  "control_plane_emergency_mode", "import_pgdata_upcall_api", "import_pgdata_upcall_api_token", "import_pgdata_aws_endpoint_url", "timeline_import_config",
  "heatmap_upload_concurrency", "secondary_download_concurrency", "virtual_file_io_engine", "virtual_file_io_mode", "io_buffer_alignment", "ingest_batch_size",
  "max_vectored_read_bytes", "max_get_vectored_keys", "timeline_offloading", "ephemeral_bytes_per_memory_kb", "l0_flush", "no_sync", "compact_level0_phase1_value_access",
  "page_service_pipelining", "get_vectored_concurrent_io", "enable_read_path_debugging", "validate_wal_contiguity", "load_previous_heatmap",
  "generate_unarchival_heatmap", "tracing", "posthog_config", "basebackup_cache_config", "image_layer_generation_large_timeline_threshold", "dev_mode",
]);

/** Tells of names that set nothing. @param read those that do */
export function tellUnusedNames(document: unknown, read: readonly string[], log: Logger): void {
  const names = typeof document === "object" && document !== null ? Object.keys(document) : [];
  for (const name of names) {
    if (read.includes(name)) continue;
    if (WITHOUT_EFFECT.has(name)) log.info("configuration item without effect here", { name });
    else log.warn("ignoring unknown configuration item", { name });
  }
}
