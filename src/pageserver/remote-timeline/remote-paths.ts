/**
 * Object keys of a tenant shard.
 *
 * | object | key |
 * | --- | --- |
 * | layer | `tenants/<tenant>[-NNCC]/timelines/<timeline>/<layer name>-<generation>`; NNCC of the shard that wrote it |
 * | index | `tenants/<tenant shard>/timelines/<timeline>/index_part.json-<generation>` |
 * | initdb | `tenants/<tenant>/timelines/<timeline>/initdb.tar.zst`; the copy that outlives the timeline `initdb-preserved.tar.zst` |
 * | tenant manifest | `tenants/<tenant shard>/tenant-manifest-<generation>.json` |
 * | heatmap | `tenants/<tenant shard>/heatmap-v1.json` |
 *
 * Generations are 8 lower-case hex digits. Source: the peer's remote_timeline_client module.
 */
import { type ShardIndex, type TenantId, type TenantShardId, tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import { type Generation, generationSuffix, type LayerName, layerNameToString } from "../layers/layer-name.ts";

export const INDEX_PART_NAME = "index_part.json";

export function timelinesPrefix(tenant: TenantShardId): string {
  return `tenants/${tenantShardIdToString(tenant)}/timelines/`;
}

export function timelinePrefix(tenant: TenantShardId, timelineId: TimelineId): string {
  return `${timelinesPrefix(tenant)}${timelineId}/`;
}

export function indexPartKey(tenant: TenantShardId, timelineId: TimelineId, generation: Generation): string {
  return `${timelinePrefix(tenant, timelineId)}${INDEX_PART_NAME}${generationSuffix(generation)}`;
}

/** Generation of an index object; null for one without, undefined when the key is no index. */
export function parseIndexPartKey(key: string): Generation | undefined {
  const match = /\/index_part\.json(?:-([0-9a-f]{8}))?$/.exec(key);
  if (match === null) return undefined;
  return match[1] === undefined ? null : Number.parseInt(match[1], 16);
}

/** One for all shards of the tenant. */
export function initdbArchiveKey(tenantId: TenantId, timelineId: TimelineId): string {
  return `${timelinePrefix({ tenantId, number: 0, count: 0 }, timelineId)}initdb.tar.zst`;
}

export function preservedInitdbKey(tenantId: TenantId, timelineId: TimelineId): string {
  return `${timelinePrefix({ tenantId, number: 0, count: 0 }, timelineId)}initdb-preserved.tar.zst`;
}

export interface LayerObject {
  readonly name: LayerName;
  readonly generation: Generation;
  readonly shard: ShardIndex;
}

export function layerKey(tenantId: TenantId, timelineId: TimelineId, layer: LayerObject): string {
  return `${timelinePrefix({ tenantId, ...layer.shard }, timelineId)}${layerNameToString(layer.name)}${generationSuffix(layer.generation)}`;
}

export function tenantManifestPrefix(tenant: TenantShardId): string {
  return `tenants/${tenantShardIdToString(tenant)}/tenant-manifest`;
}

/** Generation of a manifest object; undefined when the key is none. */
export function parseTenantManifestKey(key: string): number | undefined {
  const match = /\/tenant-manifest-([0-9a-f]{8})\.json$/.exec(key);
  return match === null ? undefined : Number.parseInt(match[1], 16);
}

export function tenantManifestKey(tenant: TenantShardId, generation: Generation): string {
  return `tenants/${tenantShardIdToString(tenant)}/tenant-manifest${generationSuffix(generation)}.json`;
}

export function heatmapKey(tenant: TenantShardId): string {
  return `tenants/${tenantShardIdToString(tenant)}/heatmap-v1.json`;
}
