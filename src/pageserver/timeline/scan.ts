/**
 * Which keys a sparse range holds as of an LSN. Walks down each part of the range until an image layer covers it (an
 * image over a sparse range holds all there is) or the timeline ends, and goes on in the ancestor where the kind of
 * key is inherited.
 */
import { isStrataError } from "../../kit/errors.ts";
import { type Lsn } from "../../kit/lsn.ts";
import { compareKeys, type Key, KEY_MAX, keyToHex, type KeyRange, nextKey, rangeContains } from "../../keyspace/key.ts";
import { isInheritedKey } from "../../keyspace/mapping.ts";
import { readDeltaIndex } from "../layers/delta-layer.ts";
import { readImageKeys } from "../layers/image-layer.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange } from "../layers/layer-name.ts";
import type { LayerFile } from "../layers/layer-file.ts";
import type { ReadSource } from "./layer-stack.ts";

const CHUNK_KEYS = 1000;

/** Candidates in key order; some may turn out missing or removed when read. */
export async function keysInSparseRange(source: ReadSource, range: KeyRange, at: { lsn: Lsn; signal?: AbortSignal }): Promise<Key[]> {
  const found = new Map<string, Key>();
  await collect(source, range, { ...at, found });
  return [...found.values()].sort(compareKeys);
}

/** Of values read of keys found so, those that are there. @throws what a key met that is neither absent nor removed */
export function presentOf(keys: readonly Key[], values: readonly (Uint8Array | Error)[]): { key: Key; bytes: Uint8Array }[] {
  const present: { key: Key; bytes: Uint8Array }[] = [];
  for (let i = 0; i < keys.length; i++) {
    const value = values[i];
    if (isStrataError(value, "missing-key")) continue;
    if (value instanceof Error) throw value;
    // An empty value is how a sparse key is removed.
    if (value.length > 0) present.push({ key: keys[i], bytes: value });
  }
  return present;
}

interface Collection {
  readonly lsn: Lsn;
  readonly signal?: AbortSignal;
  readonly found: Map<string, Key>;
}

async function collect(source: ReadSource, range: KeyRange, into: Collection): Promise<void> {
  const { stack } = source;
  const end = into.lsn + 1;
  // One synchronous look at all layers: what is compacted meanwhile keeps its content elsewhere, so read again then.
  const memory = [...stack.frozen, ...(stack.open === null ? [] : [stack.open])];
  for (const layer of memory) for (const key of layer.sparseKeysIn(range, end)) into.found.set(keyToHex(key), key);
  for (const part of stack.map.partsOf(range)) {
    const imageLsn = stack.map.newestImageLsn(part.start, end);
    for (const layer of [...stack.map.layers()]) {
      if (layerMatters(layer, part, { imageLsn, end })) await addKeys(layer, part, into);
    }
    if (imageLsn === null && isInheritedKey(part.start)) await collectFromAncestor(source, part, into);
  }
}

async function collectFromAncestor(source: ReadSource, part: KeyRange, into: Collection): Promise<void> {
  const below = await source.ancestorSource(into.signal);
  if (below !== null) await collect(below.source, part, { ...into, lsn: Math.min(into.lsn, below.lsn) });
}

function layerMatters(layer: Layer, part: KeyRange, bounds: { imageLsn: Lsn | null; end: Lsn }): boolean {
  const { keyRange } = layer.name;
  if (compareKeys(keyRange.start, part.end) >= 0 || compareKeys(part.start, keyRange.end) >= 0) return false;
  const lsns = layerLsnRange(layer.name);
  if (lsns.start >= bounds.end) return false;
  if (layer.name.kind === "image") return lsns.start === bounds.imageLsn;
  return bounds.imageLsn === null || lsns.end > bounds.imageLsn + 1;
}

async function addKeys(layer: Layer, part: KeyRange, into: Collection): Promise<void> {
  await layer.withFile(async (file) => {
    for (let from: Key | null = part.start; from !== null; ) {
      const keys: Key[] = layer.name.kind === "image" ? await readImageKeys(file, { start: from, end: part.end }, CHUNK_KEYS) : await deltaKeys(file, { start: from, end: part.end });
      for (const key of keys) into.found.set(keyToHex(key), key);
      const last = keys.at(-1);
      from = last === undefined || compareKeys(last, KEY_MAX) === 0 ? null : nextKey(last);
    }
  }, into.signal);
}

/** Distinct keys of a delta from the start of `range`, about CHUNK_KEYS of them; none when it has no more. */
async function deltaKeys(file: LayerFile, range: KeyRange): Promise<Key[]> {
  const keys: Key[] = [];
  for (const entry of await readDeltaIndex(file, { key: range.start, lsn: 0 }, CHUNK_KEYS)) {
    if (!rangeContains(range, entry.key)) break;
    if (keys.length === 0 || compareKeys(keys[keys.length - 1], entry.key) !== 0) keys.push(entry.key);
  }
  return keys;
}
