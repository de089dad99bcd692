/**
 * A tenant shard's heatmap: the layers its attached location has on disk, for a secondary one to fetch ahead of need.
 *
 * | field | content |
 * | --- | --- |
 * | generation | of the location that wrote it |
 * | upload_period_ms | how often a new one may be expected; null when there is no period |
 * | timelines | array of { timeline_id, layers } |
 * | … layers | array of { name, metadata { file_size, generation?, shard? }, access_time (seconds since the epoch), cold } |
 *
 * One object a shard, whatever the generation: a hint, not a truth. Source: the peer's tenant/secondary/heatmap module.
 */
import { utf8 } from "../../kit/bytes.ts";
import { shardIndexToString, type TimelineId } from "../../kit/ids.ts";
import type { LayerMetadata } from "../layers/layer.ts";
import { type LayerName, layerNameToString } from "../layers/layer-name.ts";

export interface HeatmapLayer {
  readonly name: LayerName;
  readonly metadata: LayerMetadata;
  readonly lastAccessMs: number;
}

export interface HeatmapTimeline {
  readonly timelineId: TimelineId;
  readonly layers: readonly HeatmapLayer[];
}

export interface Heatmap {
  readonly generation: number;
  /** 0: none. */
  readonly uploadPeriodMs: number;
  readonly timelines: readonly HeatmapTimeline[];
}

export function encodeHeatmap({ generation, uploadPeriodMs, timelines }: Heatmap): Uint8Array {
  return utf8(
    JSON.stringify({
      generation,
      timelines: timelines.map(({ timelineId, layers }) => ({ timeline_id: timelineId, layers: layers.map(layerJson) })),
      upload_period_ms: uploadPeriodMs === 0 ? null : uploadPeriodMs,
    }),
  );
}

function layerJson({ name, metadata, lastAccessMs }: HeatmapLayer): Record<string, unknown> {
  const { sizeBytes, generation, shard } = metadata;
  return {
    name: layerNameToString(name),
    metadata: { file_size: sizeBytes, ...(generation === null ? {} : { generation }), ...(shard.count === 0 ? {} : { shard: shardIndexToString(shard) }) },
    access_time: Math.floor(lastAccessMs / 1000),
    cold: false,
  };
}
