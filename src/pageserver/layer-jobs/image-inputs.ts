/**
 * Which layers an image is made of. Pure. Reads at an LSN go down to the newest image and no further, so mostly a part of the layers is
 * enough: all that reach above some LSN, the floor, where every key has an image. What a read does not find in them it may not look
 * for below, for there some layers are missing: then the image is made again, of all layers and the ancestors'.
 */
import { compareKeys, type KeyRange } from "../../keyspace/key.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { LayerMap, MappedLayer } from "../layers/layer-map.ts";
import { layerLsnRange } from "../layers/layer-name.ts";

export interface ImageInputs<L> {
  readonly layers: readonly L[];
  /** All there is below `lsn`: what they lack is in the ancestor, if anywhere. */
  readonly complete: boolean;
}

/** @param options.everything all layers, whatever images there are */
export function imageInputs<L extends MappedLayer>(map: LayerMap<L>, ranges: readonly KeyRange[], options: { readonly lsn: Lsn; readonly everything: boolean }): ImageInputs<L> {
  const { lsn, everything } = options;
  const candidates = [...map.layers()].filter((layer) => overlapsHull(layer, ranges) && layerLsnRange(layer.name).start <= lsn);
  let floor = everything ? 0 : lowestImageLsn(map, ranges, lsn);
  for (let lowered = true; lowered && floor > 0; ) {
    lowered = false;
    for (const { name } of candidates) {
      if (name.kind === "image" || name.lsnRange.start > floor || name.lsnRange.end <= floor + 1) continue;
      // It holds changes on both sides: none of it may be left out.
      floor = name.lsnRange.start - 1;
      lowered = true;
    }
  }
  const layers = floor <= 0 ? candidates : candidates.filter(({ name }) => (name.kind === "image" ? name.lsn >= floor : name.lsnRange.end > floor + 1));
  return { layers, complete: floor <= 0 };
}

function overlapsHull({ name }: MappedLayer, ranges: readonly KeyRange[]): boolean {
  return compareKeys(name.keyRange.start, ranges[ranges.length - 1].end) < 0 && compareKeys(ranges[0].start, name.keyRange.end) < 0;
}

/** The LSN at or above which every key of the ranges has an image; 0 if one has none. */
function lowestImageLsn<L extends MappedLayer>(map: LayerMap<L>, ranges: readonly KeyRange[], lsn: Lsn): Lsn {
  let lowest = lsn;
  for (const range of ranges) {
    for (const part of map.partsOf(range)) lowest = Math.min(lowest, map.newestImageLsn(part.start, lsn + 1) ?? 0);
    if (lowest === 0) break;
  }
  return lowest;
}
