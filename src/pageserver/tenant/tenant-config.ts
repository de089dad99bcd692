/**
 * A tenant's configuration: the peer's names and value forms (durations as text such as `7 days`, sizes as numbers) in
 * `tenant_conf` and in `[tenant_config]` of pageserver.toml, and the settings that come out of them. Names of the peer's that set nothing
 * here are kept and told back; those that nobody knows are refused where somebody sets them by hand.
 */
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import { parseDuration } from "../../kit/humantime.ts";
import { DEFAULT_TIMELINE_CONFIG, type TimelineConfig } from "../timeline/timeline-config.ts";
import { NO_THROTTLE, type ThrottleConfig } from "./throttle.ts";
import { type WalProtocol, walProtocolSchema } from "../../safekeeper/api/wal-protocol.ts";
import { WAL_RECEIVER_DEFAULTS } from "../wal-receiver/wal-receiver.ts";

const count = z.number().int().nonnegative();
const duration = z.string().transform((text, context): number => {
  try {
    return parseDuration(text);
  } catch {
    context.issues.push({ code: "custom", message: `"${text}" is not a duration`, input: text });
    return z.NEVER;
  }
});

/** Names of task kinds are an old way to say that it is on. */
const throttle = z.object({
  task_kinds: z.array(z.string()),
  initial: count,
  refill_interval: duration.refine((intervalMs) => intervalMs > 0, "refill_interval must not be 0"),
  refill_amount: z.number().int().positive(),
  max: count,
}).transform(({ task_kinds: kinds, initial, refill_interval: intervalMs, refill_amount: amount, max }): ThrottleConfig => ({ enabled: kinds.length > 0, requestsPerSecond: (amount * 1000) / intervalMs, max, initial }));

const accessThreshold = z.object({ period: duration, threshold: duration });
const evictionPolicy = z
  .union([z.object({ kind: z.literal("NoEviction") }), z.object({ kind: z.literal("OnlyImitiate") }).extend(accessThreshold.shape), z.object({ kind: z.literal("LayerAccessThreshold") }).extend(accessThreshold.shape)])
  .transform((policy): AccessEviction | null => (policy.kind === "LayerAccessThreshold" ? { periodMs: policy.period, thresholdMs: policy.threshold } : null));

const schema = z.object({
  checkpoint_distance: count.nullish(),
  checkpoint_timeout: duration.nullish(),
  compaction_target_size: count.nullish(),
  compaction_period: duration.nullish(),
  compaction_threshold: count.nullish(),
  image_creation_threshold: count.nullish(),
  image_layer_creation_check_threshold: count.max(255).nullish(),
  gc_horizon: count.nullish(),
  gc_period: duration.nullish(),
  pitr_interval: duration.nullish(),
  lsn_lease_length: duration.nullish(),
  lsn_lease_length_for_ts: duration.nullish(),
  l0_flush_stall_threshold: count.nullish(),
  walreceiver_connect_timeout: duration.nullish(),
  lagging_wal_timeout: duration.nullish(),
  max_lsn_wal_lag: z.number().int().positive().nullish(),
  heatmap_period: duration.nullish(),
  timeline_offloading: z.boolean().nullish(),
  timeline_get_throttle: throttle.nullish(),
  min_resident_size_override: count.nullish(),
  eviction_policy: evictionPolicy.nullish(),
  lazy_slru_download: z.boolean().nullish(),
  wal_receiver_protocol_override: walProtocolSchema.nullish(),
});

/** The peer's, and what they set does not exist here or is decided by itself: kept and told back. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  "compaction_algorithm", "compaction_upper_limit", "compaction_shard_ancestor", "compaction_l0_first", "compaction_l0_semaphore", "l0_flush_delay_threshold", "image_layer_force_creation_period",
  "evictions_low_residence_duration_metric_threshold", "image_creation_preempt_threshold", "rel_size_v2_enabled", "gc_compaction_enabled", "gc_compaction_verification",
  "gc_compaction_initial_threshold_kb", "gc_compaction_ratio_percent", "sampling_ratio", "relsize_snapshot_cache_capacity", "basebackup_cache_enabled",
]);

/** For who wants to tell of those that set nothing. */
export const tenantConfNames: { readonly read: ReadonlySet<string>; readonly withoutEffect: ReadonlySet<string> } = { read: new Set(Object.keys(schema.shape)), withoutEffect: WITHOUT_EFFECT };

/** A name that nobody knows is most likely one misspelt. @throws StrataError fix-input `bad-tenant-config` */
export function checkTenantConfNames(conf: TenantConf): void {
  const unknown = Object.keys(conf).filter((name) => !Object.hasOwn(schema.shape, name) && !WITHOUT_EFFECT.has(name));
  if (unknown.length > 0) throw new StrataError("fix-input", "bad-tenant-config", `tenant configuration: unknown field ${unknown.map((name) => `\`${name}\``).join(", ")}`);
}

export type TenantConf = Readonly<Record<string, unknown>>;

/** LayerAccessThreshold: every so often those layers go that nobody has read for so long. */
export interface AccessEviction {
  readonly periodMs: number;
  readonly thresholdMs: number;
}

export interface TenantSettings {
  /** heatmap_period: between two uploads of the heatmap; 0: none. */
  readonly heatmapPeriodMs: number;
  /** timeline_offloading: archived timelines are taken out of memory. */
  readonly timelineOffloading: boolean;
  readonly getThrottle: ThrottleConfig;
  /** min_resident_size_override: eviction by disk usage leaves so much as long as it can; null: the largest layer's size. */
  readonly minResidentSizeBytes: number | null;
  /** eviction_policy: layers unread for long go from the disk; null: none do. */
  readonly accessEviction: AccessEviction | null;
  readonly timeline: TimelineConfig;
  readonly walReceiver: { readonly connectTimeoutMs: number; readonly laggingWalTimeoutMs: number; readonly maxLsnWalLagBytes: number; readonly protocol: WalProtocol };
}

const DEFAULTS: TenantSettings = { heatmapPeriodMs: 0, timelineOffloading: true, getThrottle: NO_THROTTLE, minResidentSizeBytes: null, accessEviction: null, timeline: DEFAULT_TIMELINE_CONFIG, walReceiver: WAL_RECEIVER_DEFAULTS };

/** `conf` over `base` (the pageserver's own `[tenant_config]`, or the built-in defaults). @throws StrataError fix-input `bad-tenant-config` */
export function tenantSettings(conf: TenantConf, base: TenantSettings = DEFAULTS): TenantSettings {
  const parsed = schema.safeParse(conf);
  if (!parsed.success) throw new StrataError("fix-input", "bad-tenant-config", `tenant configuration: ${z.prettifyError(parsed.error)}`);
  const { timeline, walReceiver } = base;
  const c = parsed.data;
  return {
    heatmapPeriodMs: c.heatmap_period ?? base.heatmapPeriodMs,
    getThrottle: c.timeline_get_throttle ?? base.getThrottle,
    minResidentSizeBytes: c.min_resident_size_override ?? base.minResidentSizeBytes,
    accessEviction: c.eviction_policy === undefined ? base.accessEviction : c.eviction_policy,
    timelineOffloading: c.timeline_offloading ?? base.timelineOffloading,
    timeline: {
      ...timeline,
      checkpointDistanceBytes: c.checkpoint_distance ?? timeline.checkpointDistanceBytes,
      checkpointTimeoutMs: c.checkpoint_timeout ?? timeline.checkpointTimeoutMs,
      compactionTargetSizeBytes: c.compaction_target_size ?? timeline.compactionTargetSizeBytes,
      compactionPeriodMs: c.compaction_period ?? timeline.compactionPeriodMs,
      compactionThreshold: c.compaction_threshold ?? timeline.compactionThreshold,
      imageCreationThreshold: c.image_creation_threshold ?? timeline.imageCreationThreshold,
      imageLayerCreationCheckThreshold: c.image_layer_creation_check_threshold ?? timeline.imageLayerCreationCheckThreshold,
      gcHorizonBytes: c.gc_horizon ?? timeline.gcHorizonBytes,
      gcPeriodMs: c.gc_period ?? timeline.gcPeriodMs,
      pitrIntervalMs: c.pitr_interval ?? timeline.pitrIntervalMs,
      lsnLeaseLengthMs: c.lsn_lease_length ?? timeline.lsnLeaseLengthMs,
      lsnLeaseLengthForTsMs: c.lsn_lease_length_for_ts ?? timeline.lsnLeaseLengthForTsMs,
      l0FlushStallThreshold: c.l0_flush_stall_threshold ?? timeline.l0FlushStallThreshold,
      lazySlruDownload: c.lazy_slru_download ?? timeline.lazySlruDownload,
    },
    walReceiver: {
      connectTimeoutMs: c.walreceiver_connect_timeout ?? walReceiver.connectTimeoutMs,
      laggingWalTimeoutMs: c.lagging_wal_timeout ?? walReceiver.laggingWalTimeoutMs,
      maxLsnWalLagBytes: c.max_lsn_wal_lag ?? walReceiver.maxLsnWalLagBytes,
      protocol: c.wal_receiver_protocol_override ?? walReceiver.protocol,
    },
  };
}

/** PATCH: null removes a name, absent ones stay. */
export function patchTenantConf(conf: TenantConf, patch: TenantConf): TenantConf {
  const result: Record<string, unknown> = { ...conf };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = value;
  }
  return result;
}
