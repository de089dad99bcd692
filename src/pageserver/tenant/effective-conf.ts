/** A tenant's settings under the peer's names and in its value forms: what `effective_config` tells. */
import { formatDuration } from "../../kit/humantime.ts";
import { walProtocolToJson } from "../../safekeeper/api/wal-protocol.ts";
import type { AccessEviction, TenantConf, TenantSettings } from "./tenant-config.ts";
import type { ThrottleConfig } from "./throttle.ts";

/** @param overrides of the tenant: what was said in a form of its own is told back in that form */
export function effectiveConf(settings: TenantSettings, overrides: TenantConf): TenantConf {
  const { timeline, walReceiver } = settings;
  return {
    checkpoint_distance: timeline.checkpointDistanceBytes,
    checkpoint_timeout: formatDuration(timeline.checkpointTimeoutMs),
    compaction_target_size: timeline.compactionTargetSizeBytes,
    compaction_period: formatDuration(timeline.compactionPeriodMs),
    compaction_threshold: timeline.compactionThreshold,
    l0_flush_stall_threshold: timeline.l0FlushStallThreshold,
    gc_horizon: timeline.gcHorizonBytes,
    gc_period: formatDuration(timeline.gcPeriodMs),
    image_creation_threshold: timeline.imageCreationThreshold,
    image_layer_creation_check_threshold: timeline.imageLayerCreationCheckThreshold,
    pitr_interval: formatDuration(timeline.pitrIntervalMs),
    walreceiver_connect_timeout: formatDuration(walReceiver.connectTimeoutMs),
    lagging_wal_timeout: formatDuration(walReceiver.laggingWalTimeoutMs),
    max_lsn_wal_lag: walReceiver.maxLsnWalLagBytes,
    wal_receiver_protocol_override: JSON.parse(walProtocolToJson(walReceiver.protocol)) as unknown,
    eviction_policy: overrides.eviction_policy ?? evictionPolicy(settings.accessEviction),
    min_resident_size_override: settings.minResidentSizeBytes,
    heatmap_period: formatDuration(settings.heatmapPeriodMs),
    lazy_slru_download: timeline.lazySlruDownload,
    timeline_get_throttle: overrides.timeline_get_throttle ?? throttle(settings.getThrottle),
    lsn_lease_length: formatDuration(timeline.lsnLeaseLengthMs),
    lsn_lease_length_for_ts: formatDuration(timeline.lsnLeaseLengthForTsMs),
    timeline_offloading: settings.timelineOffloading,
  };
}

function evictionPolicy(access: AccessEviction | null): unknown {
  return access === null ? { kind: "NoEviction" } : { kind: "LayerAccessThreshold", period: formatDuration(access.periodMs), threshold: formatDuration(access.thresholdMs) };
}

/** The rate is kept, not how it was said: as so many a second, or one in so long. */
function throttle({ enabled, requestsPerSecond, max, initial }: ThrottleConfig): unknown {
  const whole = requestsPerSecond >= 1;
  return {
    task_kinds: enabled ? ["PageRequestHandler"] : [],
    initial,
    refill_interval: formatDuration(whole ? 1000 : 1000 / requestsPerSecond),
    refill_amount: whole ? Math.round(requestsPerSecond) : 1,
    max,
  };
}
