/**
 * The metrics that roles must have under the peer's names, one a line: name, type, label names. A `+` before one says that the work of the
 * test must have moved it: a sample of it is more than 0.
 */
export interface ExpectedMetric {
  readonly name: string;
  readonly type: string;
  /** Sorted. */
  readonly labels: readonly string[];
  readonly mustMove: boolean;
}

function parsed(table: string): ExpectedMetric[] {
  return table.split("\n").filter((line) => line.trim() !== "").map((line) => {
    const [name, type, labels = ""] = line.replace(/^\+/, "").trim().split(" ");
    return { name, type, labels: labels.split(",").filter((label) => label !== "").sort(), mustMove: line.startsWith("+") };
  });
}

export const OF_EVERY_ROLE = parsed(`
+ process_cpu_seconds_total counter
+ process_resident_memory_bytes gauge
+ process_virtual_memory_bytes gauge
+ process_open_fds gauge
+ process_max_fds gauge
+ process_threads gauge
+ process_start_time_seconds gauge
+ libmetrics_build_info gauge revision,build_tag
+ libmetrics_launch_timestamp gauge
+ libmetrics_maxrss_kb gauge
  libmetrics_disk_io_bytes_total gauge io_operation
+ libmetrics_metric_handler_requests_total counter
+ libmetrics_tracing_event_count counter level
+ libmetrics_process_cpu_seconds_highres gauge
  libmetrics_process_status_vmlck gauge
`);

export const PAGESERVER = parsed(`
  pageserver_active_storage_operations_count gauge operation,tenant_id,shard_id,timeline_id
  pageserver_archive_size gauge tenant_id,shard_id,timeline_id
  pageserver_aux_file_estimated_size gauge tenant_id,shard_id,timeline_id
  pageserver_background_loop_period_overrun_count counter task,period
  pageserver_background_loop_semaphore_running_tasks gauge task
+ pageserver_background_loop_semaphore_wait_duration_seconds counter task
+ pageserver_background_loop_semaphore_wait_finish_count counter task
+ pageserver_background_loop_semaphore_wait_seconds histogram task
+ pageserver_background_loop_semaphore_wait_start_count counter task
  pageserver_background_loop_semaphore_waiting_tasks gauge task
+ pageserver_basebackup_query_seconds histogram result
  pageserver_broken_tenants_count gauge tenant_id,shard_id
+ pageserver_compression_image_in_bytes_chosen counter
+ pageserver_compression_image_in_bytes_considered counter
+ pageserver_compression_image_in_bytes_total counter
+ pageserver_compression_image_out_bytes_total counter
+ pageserver_compute_commands counter command
  pageserver_concurrent_initdb gauge
+ pageserver_current_logical_size gauge tenant_id,shard_id,timeline_id
  pageserver_deletion_queue_dropped_lsn_updates_total counter
  pageserver_deletion_queue_dropped_total counter
+ pageserver_deletion_queue_executed_total counter
  pageserver_deletion_queue_remote_errors_total counter op_kind
+ pageserver_deletion_queue_submitted_total counter
  pageserver_deletion_queue_unexpected_errors_total counter
+ pageserver_deletion_queue_validated_total counter
+ pageserver_deltas_per_read_global histogram
+ pageserver_directory_entries_count gauge tenant_id,shard_id,timeline_id
+ pageserver_disk_consistent_lsn gauge tenant_id,shard_id,timeline_id
  pageserver_disk_usage_based_eviction_collected_layers_total counter
  pageserver_disk_usage_based_eviction_evicted_bytes_total counter
  pageserver_disk_usage_based_eviction_evicted_layers_total counter
  pageserver_disk_usage_based_eviction_select_layers_total counter
  pageserver_disk_usage_based_eviction_tenant_collected_layers histogram
  pageserver_disk_usage_based_eviction_tenant_collection_seconds histogram
  pageserver_eviction_iteration_duration_seconds_global histogram period_secs,threshold_secs
+ pageserver_evictions counter tenant_id,shard_id,timeline_id
+ pageserver_evictions_with_low_residence_duration counter tenant_id,shard_id,timeline_id,residence_duration_data_source,low_threshold_secs
  pageserver_gap_blocks_zeroed_on_rel_extend counter
+ pageserver_get_vectored_seconds histogram task_kind
+ pageserver_getpage_get_reconstruct_data_seconds histogram get_kind
+ pageserver_getpage_reconstruct_seconds histogram get_kind
+ pageserver_initdb_seconds_global histogram
  pageserver_initial_logical_size_drop_calculation counter attempt
+ pageserver_initial_logical_size_drop_finished_calculation counter
+ pageserver_initial_logical_size_finish_calculation counter
+ pageserver_initial_logical_size_start_calculation counter attempt,circumstances
+ pageserver_io_operations_bytes_total gauge operation,tenant_id,shard_id,timeline_id
+ pageserver_io_operations_seconds histogram operation
+ pageserver_last_record_lsn gauge tenant_id,shard_id,timeline_id
+ pageserver_layer_bytes gauge tenant_id,shard_id,timeline_id,level,kind
  pageserver_layer_cancelled_evictions_count counter reason
+ pageserver_layer_completed_deletes counter
+ pageserver_layer_completed_evictions counter
+ pageserver_layer_count gauge tenant_id,shard_id,timeline_id,level,kind
+ pageserver_layer_redownloaded_after histogram
+ pageserver_layer_started_deletes counter
+ pageserver_layer_started_evictions counter
+ pageserver_layers_per_read histogram tenant_id,shard_id,timeline_id
+ pageserver_layers_per_read_amortized_global histogram
+ pageserver_layers_per_read_batch_global histogram
+ pageserver_layers_per_read_global histogram
+ pageserver_layers_visited_per_vectored_read_global histogram
+ pageserver_live_connections_finished counter pageserver_connection_kind
+ pageserver_live_connections_started counter pageserver_connection_kind
  pageserver_misrouted_pagestream_requests_total counter
+ pageserver_ondemand_download_bytes_total counter task_kind
+ pageserver_ondemand_download_count counter task_kind
+ pageserver_page_cache_read_accesses_total counter task_kind,key_kind,content_kind
+ pageserver_page_cache_read_hits_total counter task_kind,key_kind,content_kind,hit_kind
+ pageserver_page_cache_size_current_bytes gauge key_kind
+ pageserver_page_cache_size_max_bytes gauge
+ pageserver_page_service_batch_break_reason counter tenant_id,shard_id,timeline_id,reason
+ pageserver_page_service_batch_break_reason_global counter reason
+ pageserver_page_service_batch_size histogram tenant_id,shard_id,timeline_id
+ pageserver_page_service_batch_size_global histogram
+ pageserver_page_service_config_max_batch_size gauge mode,execution,batching
+ pageserver_page_service_pagestream_batch_wait_time_seconds histogram tenant_id,shard_id,timeline_id
+ pageserver_page_service_pagestream_batch_wait_time_seconds_global histogram
+ pageserver_page_service_pagestream_flush_in_progress_micros counter tenant_id,shard_id,timeline_id
+ pageserver_page_service_pagestream_flush_in_progress_micros_global counter
+ pageserver_pagestream_handler_results_total counter outcome
  pageserver_pitr_history_size gauge tenant_id,shard_id,timeline_id
+ pageserver_projected_remote_consistent_lsn gauge tenant_id,shard_id,timeline_id
  pageserver_relsize_cache_entries gauge
+ pageserver_relsize_cache_hits counter
+ pageserver_relsize_cache_misses counter
  pageserver_relsize_cache_misses_old counter
+ pageserver_remote_ondemand_downloaded_bytes_total counter
+ pageserver_remote_ondemand_downloaded_layers_total counter
+ pageserver_remote_operation_seconds histogram file_kind,op_kind,status
+ pageserver_remote_physical_size gauge tenant_id,shard_id,timeline_id
+ pageserver_remote_physical_size_global gauge
+ pageserver_remote_timeline_client_bytes_finished counter tenant_id,shard_id,timeline_id,file_kind,op_kind
+ pageserver_remote_timeline_client_bytes_started counter tenant_id,shard_id,timeline_id,file_kind,op_kind
+ pageserver_remote_timeline_client_calls_finished counter tenant_id,shard_id,timeline_id,file_kind,op_kind
+ pageserver_remote_timeline_client_calls_started counter tenant_id,shard_id,timeline_id,file_kind,op_kind
+ pageserver_replayed_wal_records_total counter
+ pageserver_resident_physical_size gauge tenant_id,shard_id,timeline_id
+ pageserver_resident_physical_size_global gauge
+ pageserver_scan_seconds histogram task_kind
  pageserver_secondary_upload_heatmap counter
  pageserver_secondary_upload_heatmap_duration histogram
  pageserver_secondary_upload_heatmap_errors counter
+ pageserver_smgr_query_seconds histogram smgr_query_type,tenant_id,shard_id,timeline_id
+ pageserver_smgr_query_seconds_global histogram smgr_query_type
+ pageserver_smgr_query_started_count counter smgr_query_type,tenant_id,shard_id,timeline_id
+ pageserver_smgr_query_started_global_count counter smgr_query_type
  pageserver_standby_horizon gauge tenant_id,shard_id,timeline_id
+ pageserver_startup_duration_seconds gauge phase
  pageserver_startup_is_loading gauge
+ pageserver_storage_operations_seconds_count counter operation,tenant_id,shard_id,timeline_id
+ pageserver_storage_operations_seconds_global histogram operation
+ pageserver_storage_operations_seconds_sum counter operation,tenant_id,shard_id,timeline_id
+ pageserver_tenant_activation_seconds histogram
+ pageserver_tenant_attach_seconds histogram
+ pageserver_tenant_manager_slot_writes counter
+ pageserver_tenant_manager_slots gauge mode
  pageserver_tenant_manager_unexpected_errors_total counter
  pageserver_tenant_offloaded_timelines gauge tenant_id,shard_id
+ pageserver_tenant_preload_seconds histogram
  pageserver_tenant_startup_complete counter
  pageserver_tenant_startup_scheduled counter
+ pageserver_tenant_states_count gauge state
  pageserver_tenant_synthetic_cached_size_bytes gauge tenant_id
+ pageserver_tenant_task_events counter event
  pageserver_tenant_throttling_count counter kind,tenant_id,shard_id
+ pageserver_tenant_throttling_count_accounted_finish counter kind,tenant_id,shard_id
+ pageserver_tenant_throttling_count_accounted_finish_global counter kind
+ pageserver_tenant_throttling_count_accounted_start counter kind,tenant_id,shard_id
+ pageserver_tenant_throttling_count_accounted_start_global counter kind
  pageserver_tenant_throttling_count_global counter kind
  pageserver_tenant_throttling_wait_usecs_sum counter kind,tenant_id,shard_id
  pageserver_tenant_throttling_wait_usecs_sum_global counter kind
  pageserver_timeline_ephemeral_bytes gauge
+ pageserver_timeline_states_count gauge state
+ pageserver_timeline_wal_records_received counter tenant_id,shard_id,timeline_id
+ pageserver_utilization_score gauge
  pageserver_valid_lsn_lease_count gauge tenant_id,shard_id,timeline_id
+ pageserver_virtual_file_descriptor_cache_size_max gauge
+ pageserver_visible_physical_size gauge tenant_id,shard_id,timeline_id
  pageserver_wait_lsn_finished_count counter tenant_id,shard_id,timeline_id
  pageserver_wait_lsn_in_progress_micros counter tenant_id,shard_id,timeline_id
  pageserver_wait_lsn_in_progress_micros_global counter
  pageserver_wait_lsn_seconds histogram
  pageserver_wait_lsn_started_count counter tenant_id,shard_id,timeline_id
+ pageserver_wait_ondemand_download_seconds_global histogram task_kind
+ pageserver_wait_ondemand_download_seconds_sum counter tenant_id,shard_id,timeline_id,task_kind
+ pageserver_wal_ingest_bytes_received counter
  pageserver_wal_ingest_clear_vm_bits_unknown counter entity
+ pageserver_wal_ingest_records_committed counter
  pageserver_wal_ingest_records_filtered counter
  pageserver_wal_ingest_records_observed counter
+ pageserver_wal_ingest_records_received counter
+ pageserver_wal_ingest_values_committed counter class,kind
+ pageserver_wal_redo_bytes_histogram histogram
+ pageserver_wal_redo_records_histogram histogram
+ pageserver_wal_redo_seconds histogram
+ pageserver_walreceiver_active_managers gauge
+ pageserver_walreceiver_broker_updates_total counter
+ pageserver_walreceiver_candidates_events_total counter event
+ pageserver_walreceiver_started_connections_total counter
+ pageserver_walreceiver_switches_total counter reason
`);

export const SAFEKEEPER = parsed(`
  safekeeper_backed_up_segments_total counter
  safekeeper_backup_errors_total counter
  safekeeper_backup_reelect_leader_total counter
  safekeeper_broker_iteration_timelines histogram
  safekeeper_broker_pulled_updates_total counter result
  safekeeper_broker_push_update_seconds histogram
  safekeeper_broker_pushed_updates_total counter
  safekeeper_flush_wal_seconds histogram
  safekeeper_manager_active_changes_total counter
  safekeeper_manager_iterations_total counter
  safekeeper_misc_operation_seconds histogram operation
  safekeeper_partial_backup_uploaded_bytes_total counter
  safekeeper_partial_backup_uploads_total counter result
  safekeeper_persist_control_file_seconds histogram
  safekeeper_pg_io_bytes_total counter client_az,sk_az,app_name,dir,same_az
  safekeeper_pg_queries_finished_total counter query
  safekeeper_pg_queries_received_total counter query
  safekeeper_proposer_acceptor_messages_total counter outcome
  safekeeper_received_ps_feedbacks_total counter
  safekeeper_removed_wal_segments_total counter
  safekeeper_wal_backup_tasks_finished_total counter
  safekeeper_wal_backup_tasks_started_total counter
  safekeeper_wal_disk_io_errors counter
  safekeeper_wal_readers gauge kind,target
  safekeeper_wal_receiver_queue_depth histogram
  safekeeper_wal_receiver_queue_depth_total gauge
  safekeeper_wal_receiver_queue_size_total gauge
  safekeeper_wal_receivers gauge
  safekeeper_wal_storage_limit_errors counter
  safekeeper_wal_storage_operation_seconds histogram operation
  safekeeper_write_wal_bytes histogram
  safekeeper_write_wal_seconds histogram
`);

export const BROKER = parsed(`
  storage_broker_active_publishers gauge
  storage_broker_all_keys_active_subscribers gauge
  storage_broker_broadcast_dropped_messages_total counter
  storage_broker_broadcasted_messages_total counter
  storage_broker_per_timeline_active_subscribers gauge
  storage_broker_processed_messages_total counter
  storage_broker_published_oneoff_messages_total counter
`);
