/**
 * What to compact and where images are due. Pure: from the layer map and numbers to decisions.
 *
 * L0 layers lie over all keys, so every read visits each of them; enough of them are merged into L1 deltas, which are
 * cut by key. Images bound how many deltas a read goes through and let GC drop what lies below.
 */
import type { Lsn } from "../../kit/lsn.ts";
import { type Key, type KeyRange, KEY_MIN } from "../../keyspace/key.ts";
import { type KeySpace, rangeKeyCount, type TimelineKeySpace } from "../../keyspace/keyspace.ts";
import { SPARSE_RANGE } from "../../keyspace/mapping.ts";
import type { LayerMap, MappedLayer } from "../layers/layer-map.ts";

/** Bytes merged in one go: bounds both the disk space it takes and how long ingest may wait. */
const L0_BATCH_MAX_LAYERS = 20;

export interface SizedLayer extends MappedLayer {
  readonly metadata: { readonly sizeBytes: number };
}

/** The oldest L0 layers, at least two; none while fewer than the threshold are there. */
export function planL0Compaction<L extends SizedLayer>(l0: readonly L[], options: { readonly threshold: number; readonly maxBytes: number }): L[] {
  if (l0.length < Math.max(options.threshold, 2)) return [];
  const batch: L[] = [];
  let sizeBytes = 0;
  for (const layer of l0) {
    if (batch.length >= 2 && (sizeBytes + layer.metadata.sizeBytes > options.maxBytes || batch.length >= L0_BATCH_MAX_LAYERS)) break;
    batch.push(layer);
    sizeBytes += layer.metadata.sizeBytes;
  }
  return batch;
}

/** One image layer to be: its key range runs over gaps between the ranges, where nothing exists. */
export interface ImagePartition {
  readonly keyRange: KeyRange;
  readonly ranges: readonly KeyRange[];
  readonly sparse: boolean;
}

const PAGE_SIZE = 8192;

/**
 * Cuts a key space into partitions of about `targetBytes`, each from the end of the one before: so images cover dropped
 * relations in the gaps too, and GC can remove them. Sparse ranges stay whole. One after the other, so that whoever asks may pause: there
 * may be hundreds of thousands of ranges.
 */
export function* partitionKeySpace(space: TimelineKeySpace, targetBytes: number): Generator<ImagePartition> {
  const maxKeys = Math.max(1, Math.floor(targetBytes / PAGE_SIZE));
  let start: Key = KEY_MIN;
  let ranges: KeyRange[] = [];
  let count = 0;
  for (const range of splitRanges(space.dense, maxKeys)) {
    const keys = rangeKeyCount(range);
    if (ranges.length > 0 && count + keys > maxKeys) {
      const { end } = ranges[ranges.length - 1];
      yield { keyRange: { start, end }, ranges, sparse: false };
      start = end;
      ranges = [];
      count = 0;
    }
    ranges.push(range);
    count += keys;
  }
  if (ranges.length > 0) yield { keyRange: { start, end: SPARSE_RANGE.start }, ranges, sparse: false };
  for (const range of space.sparse.ranges) yield { keyRange: range, ranges: [range], sparse: true };
}

/** Ranges of at most `maxKeys`; only those within one fork can be counted and cut. */
function* splitRanges(space: KeySpace, maxKeys: number): Generator<KeyRange> {
  for (const range of space.ranges) {
    let { start } = range;
    while (rangeKeyCount({ start, end: range.end }) > maxKeys && start.field5 === range.end.field5 && start.field4 === range.end.field4 && range.end.field6 - start.field6 > maxKeys) {
      const cut = { ...start, field6: start.field6 + maxKeys };
      yield { start, end: cut };
      start = cut;
    }
    yield { start, end: range.end };
  }
}

/**
 * Whether some key of the partition has `threshold` deltas above its newest image below or at `lsn`; with a threshold
 * of 0, whether some key has no image at `lsn` itself.
 */
export function needsImage<L extends MappedLayer>(map: LayerMap<L>, partition: ImagePartition, options: { readonly lsn: Lsn; readonly threshold: number }): boolean {
  const { lsn, threshold } = options;
  for (const range of partition.ranges) {
    for (const part of map.partsOf(range)) {
      const imageLsn = map.newestImageLsn(part.start, lsn + 1) ?? 0;
      if (imageLsn < lsn && map.deltasAbove(part.start, imageLsn, lsn + 1).length >= threshold) return true;
    }
  }
  return false;
}
