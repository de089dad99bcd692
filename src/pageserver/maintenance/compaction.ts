/** Carrying out what compaction-planner.ts decides: merging L0 layers into L1, writing image layers. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { compareKeys, type Key, nextKey } from "../../keyspace/key.ts";
import { withoutFiles } from "../layer-jobs/layer-jobs.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import { ImageLayerWriter, type WrittenLayer } from "../layers/layer-writer.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { ImagePartition } from "./compaction-planner.ts";

const KEYS_PER_READ = 64;

/** Merges L0 layers into L1 layers and puts these in their place. Returns what was written. */
export async function compactL0(timeline: Timeline, batch: readonly Layer[], signal: AbortSignal): Promise<WrittenLayer[]> {
  const { platform, layerJobs } = timeline.deps;
  const ranges = batch.map((layer) => layerLsnRange(layer.name));
  const lsnRange = { start: Math.min(...ranges.map((range) => range.start)), end: Math.max(...ranges.map((range) => range.end)) };
  const job = {
    inputs: batch.map((layer) => ({ path: layer.path, name: layer.name, crc: layer.metadata.crc })),
    tenantId: timeline.tenantShardId.tenantId,
    lsnRange,
    targetBytes: timeline.config.compactionTargetSizeBytes,
    target: withoutFiles(timeline.layerTarget()),
  };
  for (const layer of batch) await layer.makeResident(signal);
  let written: WrittenLayer[];
  try {
    written = await layerJobs.compactL0(job, signal);
  } catch (error) {
    if (isStrataError(error) && (error.kind === "corrupt" || error.code === "file-not-found")) await repair(batch, signal);
    throw error;
  }
  await platform.files.syncDirectory(timeline.directory);
  timeline.replaceLayers(batch, written.map((layer) => timeline.adoptWritten(layer)));
  return written;
}

/** Reads all of each layer, which fetches damaged and missing local files again; the next round works on good ones. */
async function repair(batch: readonly Layer[], signal: AbortSignal): Promise<void> {
  for (const layer of batch) await layer.withFile((file) => file.verify(), signal);
}

/**
 * Writes the image layer of a partition as of `lsn`; null when it would be empty or is there already.
 * @throws StrataError when a key cannot be read: an image that lacks a key would hide it
 */
export async function createImage(timeline: Timeline, partition: ImagePartition, options: { readonly lsn: Lsn; readonly signal: AbortSignal }): Promise<WrittenLayer | null> {
  const { lsn, signal } = options;
  if (timeline.stack.map.has({ kind: "image", keyRange: partition.keyRange, lsn })) return null;
  const writer = await ImageLayerWriter.create(timeline.layerTarget());
  try {
    if (partition.sparse) await writeSparse(timeline, writer, { partition, lsn, signal });
    else await writeDense(timeline, writer, { partition, lsn, signal });
    if (writer.keyCount > 0) return await writer.finish(partition.keyRange, lsn);
    await writer.abort();
    return null;
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

interface ImageJob {
  readonly partition: ImagePartition;
  readonly lsn: Lsn;
  readonly signal: AbortSignal;
}

async function writeSparse(timeline: Timeline, writer: ImageLayerWriter, job: ImageJob): Promise<void> {
  for (const { key, bytes } of await timeline.scan(job.partition.keyRange, job.lsn, { task: "image-creation", signal: job.signal })) await writer.put(key, bytes);
}

async function writeDense(timeline: Timeline, writer: ImageLayerWriter, job: ImageJob): Promise<void> {
  let keys: Key[] = [];
  const writeBatch = async () => {
    job.signal.throwIfAborted();
    const pages = await timeline.getVectored(keys, job.lsn, { task: "image-creation", signal: job.signal });
    for (let i = 0; i < keys.length; i++) {
      const page = pages[i];
      if (page instanceof Error) throw new StrataError("unavailable", "image-creation-failed", `image at ${lsnToString(job.lsn)} cannot be made`, { cause: page });
      const wait = writer.put(keys[i], page);
      if (wait !== undefined) await wait;
    }
    keys = [];
  };
  for (const range of job.partition.ranges) {
    for (let key = range.start; compareKeys(key, range.end) < 0; key = nextKey(key)) {
      keys.push(key);
      if (keys.length === KEYS_PER_READ) await writeBatch();
    }
  }
  if (keys.length > 0) await writeBatch();
}
