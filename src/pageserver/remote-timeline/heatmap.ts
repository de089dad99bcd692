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
import { allSteps } from "../../kit/steps.ts";
import type { LayerMetadata } from "../layers/layer.ts";
import { type LayerName, layerNameToString } from "../layers/layer-name.ts";

/** Layers in one step. */
const STEP = 64;

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

export function encodeHeatmap(heatmap: Heatmap): Uint8Array {
  return allSteps(encodeHeatmapInSteps(heatmap));
}

/** The same in short steps, however many layers there are. */
export function* encodeHeatmapInSteps({ generation, uploadPeriodMs, timelines }: Heatmap): Generator<void, Uint8Array> {
  const texts: string[] = [];
  for (const { timelineId, layers } of timelines) {
    const parts: string[] = [];
    for (const layer of layers) {
      parts.push(JSON.stringify(layerJson(layer)));
      if (parts.length % STEP === 0) yield;
    }
    texts.push(`{"timeline_id":"${timelineId}","layers":[${parts.join()}]}`);
    yield;
  }
  return utf8(`{"generation":${generation},"timelines":[${texts.join()}],"upload_period_ms":${uploadPeriodMs === 0 ? "null" : uploadPeriodMs}}`);
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
