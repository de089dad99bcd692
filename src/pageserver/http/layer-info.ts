/** A timeline's layers and keys as JSON. */
import { lsnToString } from "../../kit/lsn.ts";
import { keyToHex } from "../../keyspace/key.ts";
import type { TimelineKeySpace } from "../../keyspace/keyspace.ts";
import type { HistoricLayerInfo, InMemoryLayerInfo, KeySpaceInfo, LayerMapInfo } from "../api/layers.ts";
import { isL0, layerLsnRange, layerNameToString } from "../layers/layer-name.ts";
import type { Layer } from "../layers/layer.ts";
import type { Timeline } from "../timeline/timeline.ts";

/** What is in memory, and how to present each layer that has a file. */
export function layerMapInfo(timeline: Timeline): Pick<LayerMapInfo, "in_memory_layers"> & { readonly layerOf: (layer: Layer) => HistoricLayerInfo } {
  const { frozen, open } = timeline.stack;
  const inMemory: InMemoryLayerInfo[] = frozen.map((layer) => ({ kind: "Frozen", lsn_start: lsnToString(layer.startLsn), lsn_end: lsnToString(layer.endLsn ?? layer.startLsn) }));
  if (open !== null) inMemory.push({ kind: "Open", lsn_start: lsnToString(open.startLsn) });
  // Not as arguments of one call: there may be more branches than a call takes.
  const retained = [...timeline.branchPoints.values(), ...timeline.leases.valid()].reduce((highest, lsn) => Math.max(highest, lsn), -1);
  return { in_memory_layers: inMemory, layerOf: (layer) => historicLayer(timeline, layer, retained) };
}

function historicLayer(timeline: Timeline, layer: Layer, retained: number): HistoricLayerInfo {
  const { name } = layer;
  const range = layerLsnRange(name);
  // As in GC: an image at a delta's last LSN has all of it, an image layer is replaced by a newer one only.
  const covered = timeline.stack.map.coveredByImages(name.keyRange, { from: name.kind === "delta" ? range.end - 1 : range.end, to: timeline.lastRecordLsn + 1 });
  const fields = {
    layer_file_name: layerNameToString(name),
    layer_file_size: layer.metadata.sizeBytes,
    lsn_start: lsnToString(range.start),
    remote: !layer.isResident,
    access_stats: { access_time: layer.lastAccessMs, residence_time: layer.residentSinceMs, visible: !covered || range.start <= retained },
  };
  return name.kind === "delta" ? { kind: "Delta", ...fields, lsn_end: lsnToString(range.end), l0: isL0(name) } : { kind: "Image", ...fields };
}

export function keySpaceInfo(space: TimelineKeySpace, lsn: number): KeySpaceInfo {
  const ranges = (of: TimelineKeySpace["dense"]): [string, string][] => of.ranges.map(({ start, end }) => [keyToHex(start), keyToHex(end)]);
  return { keys: ranges(space.dense), sparse_keys: ranges(space.sparse), at_lsn: lsnToString(lsn) };
}
