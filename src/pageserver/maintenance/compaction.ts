/** Carrying out what compaction-planner.ts decides, by jobs: merging L0 layers into L1, making image layers. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { isInheritedKey } from "../../keyspace/mapping.ts";
import { type CreateImageJob, type ImageSource, packRanges } from "../layer-jobs/create-image.ts";
import { type ImageInputs, imageInputs } from "../layer-jobs/image-inputs.ts";
import { withoutFiles } from "../layer-jobs/layer-jobs.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import type { WrittenLayer } from "../layers/layer-writer.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { ImagePartition } from "./compaction-planner.ts";

/** How long an ancestor's flush is waited for; its WAL may stand still within a record. */
const ANCESTOR_FLUSH_MS = 10_000;

/** Merges L0 layers into L1 layers and puts these in their place. Returns what was written. */
export async function compactL0(timeline: Timeline, batch: readonly Layer[], signal: AbortSignal): Promise<WrittenLayer[]> {
  const { platform, layerJobs, failpoints } = timeline.deps;
  const ranges = batch.map((layer) => layerLsnRange(layer.name));
  const lsnRange = { start: Math.min(...ranges.map((range) => range.start)), end: Math.max(...ranges.map((range) => range.end)) };
  const job = {
    inputs: batch.map((layer) => ({ path: layer.path, name: layer.name, crc: layer.metadata.crc })),
    tenantId: timeline.tenantShardId.tenantId,
    lsnRange,
    targetBytes: timeline.config.compactionTargetSizeBytes,
    target: withoutFiles(timeline.layerTarget()),
  };
  await failpoints?.hit("delta-layer-writer-fail-before-finish", signal);
  const written = await withHeld(batch, signal, () => layerJobs.compactL0(job, signal));
  await failpoints?.hit("after-timeline-compacted-first-L1", signal);
  await platform.files.syncDirectory(timeline.directory);
  timeline.replaceLayers(batch, written.map((layer) => timeline.adoptWritten(layer)));
  return written;
}

/**
 * Has a job done while the layers' files are here and stay. When one is damaged, all are read, which fetches damaged and missing ones
 * again where object storage has them: the next round works on good ones.
 */
async function withHeld<T>(layers: readonly Layer[], signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const releases: (() => void)[] = [];
  try {
    for (const layer of layers) releases.push(await layer.hold(signal));
    return await work();
  } catch (error) {
    if (isStrataError(error) && (error.kind === "corrupt" || error.code === "file-not-found")) for (const layer of layers) await layer.withFile((file) => file.verify(), signal);
    throw error;
  } finally {
    for (const release of releases) release();
  }
}

interface ImageOptions {
  /** At or below disk_consistent_lsn: files have all that is needed. */
  readonly lsn: Lsn;
  readonly signal: AbortSignal;
}

/**
 * Has the image layer of a partition as of `lsn` made; null when it would be empty or is there already.
 * @throws StrataError when a key cannot be read: an image that lacks a key would hide it; retry `ancestor-not-on-disk`; of the job
 */
export async function createImage(timeline: Timeline, partition: ImagePartition, options: ImageOptions): Promise<WrittenLayer | null> {
  if (timeline.stack.map.has({ kind: "image", keyRange: partition.keyRange, lsn: options.lsn })) return null;
  try {
    return await createImageOf(timeline, partition, { ...options, everything: false });
  } catch (error) {
    if (!isStrataError(error, "missing-key")) throw error;
  }
  // A key that the newest images lack may be found below them, as reads do.
  return await createImageOf(timeline, partition, { ...options, everything: true });
}

interface TimelineAt {
  readonly timeline: Timeline;
  readonly lsn: Lsn;
}

async function createImageOf(timeline: Timeline, partition: ImagePartition, options: ImageOptions & { readonly everything: boolean }): Promise<WrittenLayer | null> {
  const { lsn, signal } = options;
  const sources: ImageSource[] = [];
  const inputs: Layer[] = [];
  for (let at: TimelineAt | null = { timeline, lsn }; at !== null; ) {
    const { layers, complete }: ImageInputs<Layer> = imageInputs(at.timeline.stack.map, partition.ranges, { ...options, lsn: at.lsn });
    inputs.push(...layers);
    sources.push({ timelineId: at.timeline.timelineId, directory: at.timeline.directory, lsn: at.lsn, layers: layers.map(({ name, metadata }) => ({ name, metadata })) });
    const below: TimelineAt | null = complete && isInheritedKey(partition.keyRange.start) ? at.timeline.parent : null;
    if (below !== null) await putOnDisk(below.timeline, below.lsn, signal);
    at = below;
  }
  const job: CreateImageJob = {
    tenantId: timeline.tenantShardId.tenantId,
    pgVersion: timeline.pgVersion,
    sources,
    keyRange: partition.keyRange,
    ranges: packRanges(partition.ranges),
    sparse: partition.sparse,
    lsn,
    target: withoutFiles(timeline.layerTarget()),
  };
  await timeline.deps.failpoints?.hit("image-layer-writer-fail-before-finish", signal);
  try {
    return await withHeld(inputs, signal, () => timeline.deps.layerJobs.createImage(job, signal));
  } catch (error) {
    // A record without redo is no fault of who asked for the image.
    if (!isStrataError(error) || error.kind !== "fix-input") throw error;
    throw new StrataError("unavailable", "image-creation-failed", `image at ${lsnToString(lsn)} cannot be made`, { cause: error });
  }
}

/** Makes files have all of a timeline up to `lsn`. @throws StrataError retry `ancestor-not-on-disk` */
async function putOnDisk(timeline: Timeline, lsn: Lsn, signal: AbortSignal): Promise<void> {
  if (timeline.diskConsistentLsn < lsn && timeline.lastRecordLsn >= lsn) {
    const flush = timeline.freezeAndFlush();
    // It goes on when nobody waits for it any more.
    flush.catch(() => {});
    const timer = new AbortController();
    const timeout = timeline.deps.platform.clock.sleep(ANCESTOR_FLUSH_MS, AbortSignal.any([signal, timer.signal])).catch(() => {});
    await Promise.race([flush, timeout]).finally(() => timer.abort());
    signal.throwIfAborted();
  }
  if (timeline.diskConsistentLsn >= lsn) return;
  throw new StrataError("retry", "ancestor-not-on-disk", `timeline ${timeline.timelineId} has not all up to the branch point at ${lsnToString(lsn)} in files yet`);
}
