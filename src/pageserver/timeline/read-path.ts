/**
 * The vectored read: many keys at one LSN, down through the layers. Each key goes as far as it comes without waiting
 * (read-now.ts), which is mostly to its end. The others go down in rounds, from the top: in each round all keys that need the
 * same layer are read from it together.
 * A key is done at an image or at a record that needs nothing below; a key that finds no more layers goes on in the
 * ancestor, and at the root it is missing.
 */
import { StrataError, isStrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { compareKeys, type Key, keyToHex } from "../../keyspace/key.ts";
import { isInheritedKey, isSparseKey } from "../../keyspace/mapping.ts";
import { readDelta, type StoredValue } from "../layers/delta-layer.ts";
import { readImages } from "../layers/image-layer.ts";
import type { Histogram } from "../../observability/metric-values.ts";
import { InMemoryLayer } from "../layers/in-memory-layer.ts";
import type { Layer } from "../layers/layer.ts";
import type { CachedPage } from "../layers/page-cache.ts";
import type { Pacer } from "../layers/pacer.ts";
import { KeyRead, nextLayer, type Step } from "./key-read.ts";
import type { ReadSource } from "./layer-stack.ts";
import type { PageReads } from "./page-reads.ts";
import { nowRead } from "./read-now.ts";
import type { Reconstructor } from "./reconstruct.ts";
import type { ReadContext } from "./timeline-store.ts";

/** Times a layer may vanish under a key (compacted or collected meanwhile) before that is an error. */
const VANISHED_MAX = 20;

/** What one read did. */
export class ReadStatistics {
  /** Visits: a layer counts for each key that was looked for in it without waiting, and once for those that went down together. */
  layers = 0;
  /** Spent on making values of what was found. */
  redoMs = 0;
  readonly #depths: readonly Histogram[];

  /** @param depths told how many layers were looked into for each key */
  constructor(depths: readonly Histogram[]) {
    this.#depths = depths;
  }

  keyRead(depth: number): void {
    for (const histogram of this.#depths) histogram.observe(depth);
  }
}

export interface ReadTools {
  readonly reconstructor: Reconstructor;
  readonly pacer: Pacer;
  readonly statistics: ReadStatistics;
  /** Null: nothing is taken from the cache, nor kept. */
  readonly pages: PageReads | null;
}

/** A read that was answered without waiting, or is to be made. */
type Started = { readonly page: Uint8Array; readonly fromLsn: Lsn; readonly depth: number; readonly cached: CachedPage | null } | KeyRead;

function startRead(source: ReadSource, key: Key, at: ReadTools & { readonly lsn: Lsn }): Started {
  const { lsn, pages, reconstructor, statistics } = at;
  const cached = pages?.lookUp(key, lsn) ?? null;
  if (nowRead.run(source, key, { lsn, cached, usesCache: pages !== null })) {
    try {
      const page = reconstructor.reconstructNow(key, nowRead.found, nowRead.base).slice();
      statistics.layers += nowRead.depth;
      statistics.redoMs += reconstructor.tookMs;
      return { page, fromLsn: nowRead.newestLsn, depth: nowRead.depth, cached };
    } catch {
      // Met again below, and told.
    }
  }
  return new KeyRead(key, source, { end: lsn + 1, cached });
}

/** Each result is bytes of the caller's own, or the error that key met. */
export async function readVectored(
  source: ReadSource,
  request: { readonly keys: readonly Key[]; readonly lsn: Lsn; readonly context: ReadContext },
  tools: ReadTools,
): Promise<(Uint8Array | Error)[]> {
  const { keys, lsn, context } = request;
  const reads: Started[] = [];
  for (const key of keys) {
    reads.push(startRead(source, key, { lsn, ...tools }));
    const pause = tools.pacer.pause();
    if (pause !== undefined) await pause;
  }
  let pending = reads.filter((read) => read instanceof KeyRead);
  while (pending.length > 0) {
    context.signal?.throwIfAborted();
    const groups = new Map<Layer | InMemoryLayer, { reads: KeyRead[]; floors: Lsn[] }>();
    for (const read of pending) {
      const step = nextLayer(read) ?? (read.done ? null : await stepIntoAncestor(read, request));
      if (step === null) continue;
      const group = groups.get(step.layer) ?? { reads: [], floors: [] };
      group.reads.push(read);
      group.floors.push(step.floor);
      groups.set(step.layer, group);
    }
    tools.statistics.layers += groups.size;
    for (const [layer, group] of groups) await visitLayer(layer, group, context);
    pending = pending.filter((read) => !read.done);
  }
  if (reads.some((read) => tools.pages?.isOvertaken(read.cached, lsn) === true)) return readVectored(source, request, { ...tools, pages: null });
  const results: (Uint8Array | Error)[] = [];
  for (let i = 0; i < reads.length; i++) {
    const read = reads[i];
    tools.statistics.keyRead(read.depth);
    const result = read instanceof KeyRead ? await resultOf(read, tools) : read.page;
    if (result instanceof Uint8Array) tools.pages?.keep(keys[i], { page: result, fromLsn: read instanceof KeyRead ? read.newestLsn : read.fromLsn, lsn });
    results.push(result);
    const pause = tools.pacer.pause();
    if (pause !== undefined) await pause;
  }
  return results;
}

async function resultOf(read: KeyRead, tools: Pick<ReadTools, "reconstructor" | "pacer" | "statistics">): Promise<Uint8Array | Error> {
  if (read.error !== null) return asError(read.error);
  try {
    return await tools.reconstructor.reconstruct({ key: read.key, values: read.values, base: read.base }, tools.pacer, tools.statistics);
  } catch (error) {
    return asError(error);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Goes on in the ancestors; null when the key has ended (missing, failed, or done). */
async function stepIntoAncestor(read: KeyRead, request: { lsn: Lsn; context: ReadContext }): Promise<Step | null> {
  for (;;) {
    const below = isInheritedKey(read.key) ? read.source.ancestorSource(request.context.signal) : null;
    if (below === null) {
      read.fail(missingKey(read, request.lsn));
      return null;
    }
    try {
      const { source, lsn } = await below;
      read.source = source;
      read.end = Math.min(read.end, lsn + 1);
    } catch (error) {
      read.fail(error);
      return null;
    }
    const step = nextLayer(read);
    if (step !== null || read.done) return step;
  }
}

function missingKey(read: KeyRead, lsn: Lsn): StrataError {
  const records = read.values.length;
  const { visited } = read;
  return new StrataError("not-found", "missing-key", `key ${keyToHex(read.key)} has no image at or below LSN ${lsnToString(lsn)} (${records} records found, layers visited: ${visited || "none"})`, {
    details: { key: keyToHex(read.key), lsn: lsnToString(lsn), records, depth: read.depth, visited },
  });
}

async function visitLayer(layer: Layer | InMemoryLayer, group: { reads: KeyRead[]; floors: Lsn[] }, context: ReadContext): Promise<void> {
  const { reads, floors } = group;
  const queries = () => reads.map((read, i) => ({ key: read.key, lsnFloor: floors[i], lsnEnd: read.end }));
  for (const read of reads) read.visit(layer);
  try {
    if (layer instanceof InMemoryLayer) takeDeltas(group, await layer.read(queries()));
    else if (layer.name.kind === "delta") takeDeltas(group, await layer.withFile((file) => readDelta(file, queries()), context.signal, context.task));
    else await visitImages(layer, group, context);
  } catch (error) {
    for (const read of reads) if (!mayLookAgain(error, read, layer)) read.fail(error);
  }
}

/** A layer that was replaced while we were on our way to it: what took its place will be found. */
function mayLookAgain(error: unknown, read: KeyRead, layer: Layer | InMemoryLayer): boolean {
  const gone = isStrataError(error, "layer-deleted") || (!(layer instanceof InMemoryLayer) && read.source.stack.map.get(layer.name) !== layer);
  return gone && ++read.vanished <= VANISHED_MAX;
}

function takeDeltas(group: { reads: KeyRead[]; floors: Lsn[] }, found: readonly (readonly StoredValue[])[]): void {
  for (let i = 0; i < group.reads.length; i++) {
    const read = group.reads[i];
    for (const value of found[i]) read.values.push(value);
    read.done = found[i].length > 0 && found[i][found[i].length - 1].willInit;
    read.end = group.floors[i];
  }
}

async function visitImages(layer: Layer, group: { reads: KeyRead[]; floors: Lsn[] }, context: ReadContext): Promise<void> {
  const order = group.reads.map((_, i) => i).sort((a, b) => compareKeys(group.reads[a].key, group.reads[b].key));
  const images = await layer.withFile((file) => readImages(file, order.map((i) => group.reads[i].key)), context.signal, context.task);
  for (let at = 0; at < order.length; at++) {
    const read = group.reads[order[at]];
    const image = images[at];
    read.end = group.floors[order[at]];
    const imageLsn = layer.name.kind === "image" ? layer.name.lsn : read.end;
    if (image !== undefined) read.takeImage(image, imageLsn);
    // An image layer over a sparse range holds all there is: a key it lacks was removed before.
    else if (isSparseKey(read.key)) read.fail(missingKey(read, imageLsn));
  }
}
