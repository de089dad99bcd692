/** Settings of a tenant that its timelines obey: the peer's tenant-config names, with units, and its defaults. */
export interface TimelineConfig {
  /** checkpoint_distance: bytes in memory before they become an L0 layer. */
  readonly checkpointDistanceBytes: number;
  /** checkpoint_timeout: age of the open layer at which it is flushed whatever its size. */
  readonly checkpointTimeoutMs: number;
  /** compaction_target_size: size of L1 and image layers. */
  readonly compactionTargetSizeBytes: number;
  /** compaction_period: between compactions; 0 turns them off. */
  readonly compactionPeriodMs: number;
  /** compaction_threshold: L0 layers that make a compaction worth it. */
  readonly compactionThreshold: number;
  /** image_creation_threshold: deltas over a key range that make a new image worth it. */
  readonly imageCreationThreshold: number;
  /** image_layer_creation_check_threshold: checkpoint distances of WAL between two looks. */
  readonly imageLayerCreationCheckThreshold: number;
  /** gc_horizon: WAL kept in any case, in bytes. */
  readonly gcHorizonBytes: number;
  /** gc_period: 0 turns GC off. */
  readonly gcPeriodMs: number;
  /** pitr_interval: history kept, in time; 0 keeps none beyond the latest. */
  readonly pitrIntervalMs: number;
  /** lsn_lease_length */
  readonly lsnLeaseLengthMs: number;
  /** lsn_lease_length_for_ts: of those that come with an LSN found by its time. */
  readonly lsnLeaseLengthForTsMs: number;
  /** L0 layers at which ingest waits for compaction; 0 never waits. */
  readonly l0FlushStallThreshold: number;
  /** image_compression: zstd level of image layers, null for none. */
  readonly imageCompressionLevel: number | null;
  /** lazy_slru_download: base backups for patched servers are without SLRU segments, which those ask for one by one. */
  readonly lazySlruDownload: boolean;
  /** wait_lsn_timeout */
  readonly waitLsnTimeoutMs: number;
}

const MIB = 1024 * 1024;
const MINUTE_MS = 60_000;

export const DEFAULT_TIMELINE_CONFIG: TimelineConfig = {
  checkpointDistanceBytes: 256 * MIB,
  checkpointTimeoutMs: 10 * MINUTE_MS,
  compactionTargetSizeBytes: 128 * MIB,
  compactionPeriodMs: 20_000,
  compactionThreshold: 10,
  imageCreationThreshold: 3,
  imageLayerCreationCheckThreshold: 2,
  gcHorizonBytes: 64 * MIB,
  gcPeriodMs: 60 * MINUTE_MS,
  pitrIntervalMs: 7 * 24 * 60 * MINUTE_MS,
  lsnLeaseLengthMs: 10 * MINUTE_MS,
  lsnLeaseLengthForTsMs: MINUTE_MS,
  l0FlushStallThreshold: 30,
  imageCompressionLevel: 1,
  lazySlruDownload: false,
  waitLsnTimeoutMs: 300_000,
};
