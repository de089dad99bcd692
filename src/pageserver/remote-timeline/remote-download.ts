/** Fetching from object storage: which timelines there are, the newest index_part we may trust, single layers. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";
import { parseTimelineId } from "../../kit/ids.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileSystem } from "../../platform/files.ts";
import { openWithDirectory } from "../../platform/open-with-directory.ts";
import { Pacer } from "../../platform/pacer.ts";
import { downloadBytes, listAll, type RemoteStorage, storageUnavailable } from "../../remote-storage/remote-storage.ts";
import { BlockCache } from "../layers/block-cache.ts";
import { LayerFile } from "../layers/layer-file.ts";
import type { Layer } from "../layers/layer.ts";
import type { Generation } from "../layers/layer-name.ts";
import { decodeIndexPart, decodeIndexPartInSteps, INDEX_PART_MAX_BYTES, type IndexPart } from "./index-part.ts";
import { INDEX_PART_NAME, indexPartKey, layerKey, parseIndexPartKey, timelinePrefix, timelinesPrefix } from "./remote-paths.ts";

export const DOWNLOAD_SUFFIX = ".___download";
const LISTING_MAX = 1_000_000;

export async function listRemoteTimelines(storage: RemoteStorage, tenant: TenantShardId, signal?: AbortSignal): Promise<TimelineId[]> {
  const prefix = timelinesPrefix(tenant);
  const { prefixes } = await listAll(storage, { prefix, delimiter: "/", maxTotal: LISTING_MAX, signal });
  return prefixes.flatMap((found) => {
    const name = found.slice(prefix.length, -1);
    return /^[0-9a-f]{32}$/.test(name) ? [parseTimelineId(name)] : [];
  });
}

export interface RemoteTimelineRef {
  readonly storage: RemoteStorage;
  readonly tenantShardId: TenantShardId;
  readonly timelineId: TimelineId;
  /** It may have been written in this generation: then that index is asked for by name as well. */
  readonly mayBeOurs?: boolean;
  /** For large indexes to be read in slices; without it they are read at once. */
  readonly clock?: Clock;
}

/**
 * The index of the highest generation not above `generation`: those above belong to somebody who attached later. That of the one before
 * ours, where it is mostly, is asked for by its name if the listing does not have it: an older one read in its place, because a listing
 * was from before the last upload, would take away what came since.
 * @throws StrataError not-found `index-part-not-found`; corrupt `bad-index-part`; fix-input `index-part-too-new`
 */
export async function loadIndexPart(ref: RemoteTimelineRef, generation: number, signal?: AbortSignal): Promise<{ index: IndexPart; generation: Generation }> {
  const listed = (await listIndexGenerations(ref, signal)).map((found) => found ?? -1).filter((found) => found <= generation);
  const newest = Math.max(Number.NEGATIVE_INFINITY, ...listed);
  for (let unlisted = ref.mayBeOurs === true ? generation : generation - 1; unlisted > Math.max(newest, generation - 2, -1); unlisted--) {
    const found = await downloadIndexIfThere(ref, unlisted, signal);
    if (found !== null) return found;
  }
  if (listed.length === 0) {
    throw new StrataError("not-found", "index-part-not-found", `timeline ${ref.timelineId} has no index_part.json up to generation ${generation}`, { details: { timelineId: ref.timelineId } });
  }
  return await downloadIndex(ref, newest < 0 ? null : newest, signal);
}

async function downloadIndex(ref: RemoteTimelineRef, generation: Generation, signal: AbortSignal | undefined): Promise<{ index: IndexPart; generation: Generation }> {
  const key = indexPartKey(ref.tenantShardId, ref.timelineId, generation);
  return { index: await decoded(ref, await downloadBytes(ref.storage, key, { maxBytes: INDEX_PART_MAX_BYTES, signal })), generation };
}

async function downloadIndexIfThere(ref: RemoteTimelineRef, generation: number, signal: AbortSignal | undefined): Promise<{ index: IndexPart; generation: Generation } | null> {
  try {
    return await downloadIndex(ref, generation, signal);
  } catch (error) {
    if (isStrataError(error, "object-not-found")) return null;
    throw error;
  }
}

async function decoded({ clock }: RemoteTimelineRef, bytes: Uint8Array): Promise<IndexPart> {
  return clock === undefined ? decodeIndexPart(bytes) : await new Pacer(clock).run(decodeIndexPartInSteps(bytes));
}

export async function listIndexGenerations(ref: RemoteTimelineRef, signal?: AbortSignal): Promise<Generation[]> {
  const prefix = `${timelinePrefix(ref.tenantShardId, ref.timelineId)}${INDEX_PART_NAME}`;
  const { objects } = await listAll(ref.storage, { prefix, maxTotal: LISTING_MAX, signal });
  return objects.flatMap(({ key }) => {
    const generation = parseIndexPartKey(key);
    return generation === undefined ? [] : [generation];
  });
}

/**
 * Brings a layer to its local path: temporary file, every checksum checked, synced, renamed, directory synced.
 * @throws StrataError not-found `layer-object-missing`; corrupt `layer-checksum-mismatch`; unavailable
 */
export async function downloadLayer(ref: RemoteTimelineRef, layer: Layer, options: { readonly files: FileSystem; readonly directory: string; readonly beforeRename?: () => Promise<void>; readonly signal?: AbortSignal }): Promise<void> {
  const { files, directory, beforeRename, signal } = options;
  const key = layerKey(ref.tenantShardId.tenantId, ref.timelineId, { name: layer.name, ...layer.metadata });
  const temporary = `${layer.path}${DOWNLOAD_SUFFIX}`;
  try {
    await fetchToFile(ref.storage, { key, path: temporary, sizeBytes: layer.metadata.sizeBytes }, { files, signal });
    await checkLayerFile(layer, { files, path: temporary, tenantId: ref.tenantShardId.tenantId });
    await beforeRename?.();
    await files.rename(temporary, layer.path);
    await files.syncDirectory(directory);
  } catch (error) {
    await files.remove(temporary).catch(() => {});
    if (!isStrataError(error, "object-not-found")) throw error;
    throw new StrataError("not-found", "layer-object-missing", `layer ${layer.toString()} is in index_part.json but not in object storage`, { cause: error, details: { layer: layer.toString(), key } });
  }
}

async function fetchToFile(storage: RemoteStorage, from: { key: string; path: string; sizeBytes: number }, options: { files: FileSystem; signal?: AbortSignal }): Promise<void> {
  const { body } = await storage.download(from.key, { signal: options.signal });
  const file = await openWithDirectory(options.files, from.path, "truncate");
  try {
    let at = 0;
    for await (const chunk of body) {
      if (at + chunk.length > from.sizeBytes) throw new StrataError("corrupt", "layer-truncated", `object ${from.key} is longer than ${from.sizeBytes} bytes`, { details: { key: from.key } });
      await file.write(chunk, at);
      at += chunk.length;
    }
    if (at < from.sizeBytes) throw storageUnavailable(`object ${from.key}: ${at} of ${from.sizeBytes} bytes arrived`);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function checkLayerFile(layer: Layer, options: { files: FileSystem; path: string; tenantId: string }): Promise<void> {
  // A cache of its own: blocks of a file that may yet be refused stay out of the shared one.
  const cache = new BlockCache({ capacityBytes: 0 });
  const file = await LayerFile.open({ ...options, cache, name: layer.name, expectedCrc: layer.metadata.crc });
  try {
    await file.verify();
  } finally {
    await file.close();
  }
}
