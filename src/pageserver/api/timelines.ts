/** Tenants and timelines in the pageserver's HTTP API: the peer's JSON, field for field. */
import { z } from "zod";

const lsn = z.string();

export const timelineCreateSchema = z.object({
  new_timeline_id: z.string(),
  ancestor_timeline_id: z.string().nullish(),
  ancestor_start_lsn: lsn.nullish(),
  existing_initdb_timeline_id: z.string().nullish(),
  pg_version: z.number().int().nullish(),
});
export type TimelineCreate = z.infer<typeof timelineCreateSchema>;

export const timelineInfoSchema = z.object({
  tenant_id: z.string(),
  timeline_id: z.string(),
  ancestor_timeline_id: z.string().nullable(),
  ancestor_lsn: lsn.nullable(),
  last_record_lsn: lsn,
  prev_record_lsn: lsn.nullable(),
  latest_gc_cutoff_lsn: lsn,
  disk_consistent_lsn: lsn,
  remote_consistent_lsn: lsn,
  remote_consistent_lsn_visible: lsn,
  initdb_lsn: lsn,
  current_logical_size: z.number(),
  current_logical_size_is_accurate: z.boolean(),
  /** Databases, prepared transactions, relations, aux files, segments of clog, multixact members and offsets: as far as ingest has touched them. */
  directory_entries_counts: z.array(z.number()),
  current_physical_size: z.number().nullable(),
  current_logical_size_non_incremental: z.number().nullable(),
  pitr_history_size: z.number(),
  within_ancestor_pitr: z.boolean(),
  timeline_dir_layer_file_size_sum: z.number().nullable(),
  wal_source_connstr: z.string().nullable(),
  last_received_msg_lsn: lsn.nullable(),
  /** Microseconds since 1970. */
  last_received_msg_ts: z.number().nullable(),
  pg_version: z.number(),
  state: z.union([z.enum(["Loading", "Active", "Stopping"]), z.object({ Broken: z.object({ reason: z.string(), backtrace: z.string() }) })]),
  walreceiver_status: z.string(),
  is_archived: z.boolean().nullable(),
});
export type TimelineInfo = z.infer<typeof timelineInfoSchema>;

export const archivalConfigSchema = z.object({ state: z.enum(["Archived", "Unarchived"]) });

/** A timeline that is in object storage alone. */
export const offloadedTimelineInfoSchema = z.object({
  tenant_id: z.string(),
  timeline_id: z.string(),
  ancestor_timeline_id: z.string().nullable(),
  /** What its ancestor keeps for it. */
  ancestor_retain_lsn: lsn.nullable(),
  archived_at: z.string(),
});
export type OffloadedTimelineInfo = z.infer<typeof offloadedTimelineInfoSchema>;

export const timelinesAndOffloadedSchema = z.object({ timelines: z.array(timelineInfoSchema), offloaded: z.array(offloadedTimelineInfoSchema) });

export const tenantInfoSchema = z.object({
  id: z.string(),
  state: z.object({ slug: z.string(), data: z.object({ reason: z.string() }).optional() }),
  current_physical_size: z.number().nullable(),
  attachment_status: z.object({ slug: z.string(), data: z.object({ reason: z.string() }).optional() }),
  generation: z.number(),
});
export type TenantInfo = z.infer<typeof tenantInfoSchema>;

export const tenantDetailsSchema = tenantInfoSchema.extend({ timelines: z.array(z.string()) });

export const lsnByTimestampSchema = z.object({ lsn, kind: z.enum(["present", "future", "past", "nodata"]), valid_until: z.string().optional() });

export const lsnLeaseSchema = z.object({ valid_until: z.string() });
