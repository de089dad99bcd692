/** Carrying out what compaction-planner.ts decides: merging L0 layers into L1, writing image layers. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { compareKeys, type Key, nextKey } from "../../keyspace/key.ts";
import { isSparseKey } from "../../keyspace/mapping.ts";
import { compareEntries, type DeltaEntry, iterateDelta } from "../layers/delta-layer.ts";
import type { LayerFile } from "../layers/layer-file.ts";
import type { Layer } from "../layers/layer.ts";
import { layerLsnRange, type LsnRange } from "../layers/layer-name.ts";
import { DeltaLayerWriter, ImageLayerWriter, type LayerTarget, type WrittenLayer } from "../layers/layer-writer.ts";
import { Pacer } from "../layers/pacer.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { ImagePartition } from "./compaction-planner.ts";

const KEYS_PER_READ = 64;

/** One input of a merge, a chunk in memory at a time. */
class MergeInput {
  #chunk: DeltaEntry[] = [];
  #at = 0;
  readonly #chunks: AsyncGenerator<DeltaEntry[]>;

  constructor(file: LayerFile) {
    this.#chunks = iterateDelta(file);
  }

  get head(): DeltaEntry | undefined {
    return this.#chunk[this.#at];
  }

  /** Undefined when the next entry is there already; after the last one `head` is undefined. */
  advance(): Promise<void> | undefined {
    this.#at++;
    return this.#at < this.#chunk.length ? undefined : this.load();
  }

  async load(): Promise<void> {
    const next = await this.#chunks.next();
    this.#chunk = next.done === true ? [] : next.value;
    this.#at = 0;
  }
}

/** Cuts a sorted stream into L1 layers at key borders. */
class L1Output {
  readonly written: WrittenLayer[] = [];
  readonly #target: () => LayerTarget;
  readonly #lsnRange: LsnRange;
  readonly #targetBytes: number;
  #writer: DeltaLayerWriter | null = null;
  #firstKey: Key | null = null;
  #lastKey: Key | null = null;

  constructor(options: { target: () => LayerTarget; lsnRange: LsnRange; targetBytes: number }) {
    this.#target = options.target;
    this.#lsnRange = options.lsnRange;
    this.#targetBytes = options.targetBytes;
  }

  put(entry: DeltaEntry): Promise<void> | undefined {
    if (this.#writer === null || this.#lastKey === null || this.#cutsBefore(entry.key, this.#lastKey)) return this.#putInNext(entry);
    this.#lastKey = entry.key;
    return this.#writer.put(entry);
  }

  /** Dense keys and each kind of sparse ones get layers of their own: their images come apart, and GC needs those. */
  #cutsBefore(key: Key, last: Key): boolean {
    if (key.field1 !== last.field1 && (isSparseKey(key) || isSparseKey(last))) return true;
    return (this.#writer?.sizeBytes ?? 0) >= this.#targetBytes && compareKeys(last, key) !== 0;
  }

  async #putInNext(entry: DeltaEntry): Promise<void> {
    await this.finish();
    this.#writer = await DeltaLayerWriter.create(this.#target());
    this.#firstKey = entry.key;
    this.#lastKey = entry.key;
    await this.#writer.put(entry);
  }

  async finish(): Promise<void> {
    if (this.#writer === null || this.#firstKey === null || this.#lastKey === null) return;
    this.written.push(await this.#writer.finish({ start: this.#firstKey, end: nextKey(this.#lastKey) }, this.#lsnRange));
    this.#writer = null;
  }

  async abort(): Promise<void> {
    await this.#writer?.abort();
  }
}

/** Merges L0 layers into L1 layers and puts these in their place. Returns what was written. */
export async function compactL0(timeline: Timeline, batch: readonly Layer[], signal: AbortSignal): Promise<WrittenLayer[]> {
  const { platform } = timeline.deps;
  const ranges = batch.map((layer) => layerLsnRange(layer.name));
  const lsnRange = { start: Math.min(...ranges.map((range) => range.start)), end: Math.max(...ranges.map((range) => range.end)) };
  const output = new L1Output({ target: () => timeline.layerTarget(), lsnRange, targetBytes: timeline.config.compactionTargetSizeBytes });
  try {
    await withFiles(batch, (files) => merge(files, output, { pacer: new Pacer(platform.clock), signal }), signal);
    await output.finish();
    await platform.files.syncDirectory(timeline.directory);
  } catch (error) {
    await output.abort();
    for (const written of output.written) await platform.files.remove(written.path).catch(() => {});
    throw error;
  }
  timeline.replaceLayers(batch, output.written.map((written) => timeline.adoptWritten(written)));
  return output.written;
}

/** All files held open at once. */
async function withFiles<T>(layers: readonly Layer[], work: (files: LayerFile[]) => Promise<T>, signal: AbortSignal): Promise<T> {
  const [first, ...rest] = layers;
  if (first === undefined) return await work([]);
  return await first.withFile((file) => withFiles(rest, (files) => work([file, ...files]), signal), signal);
}

async function merge(files: readonly LayerFile[], output: L1Output, options: { pacer: Pacer; signal: AbortSignal }): Promise<void> {
  const inputs = files.map((file) => new MergeInput(file));
  for (const input of inputs) await input.load();
  let last: DeltaEntry | null = null;
  for (;;) {
    // A dozen inputs: looking at each is as quick as a heap.
    let least: MergeInput | null = null;
    for (const input of inputs) {
      if (input.head !== undefined && (least?.head === undefined || compareEntries(input.head, least.head) < 0)) least = input;
    }
    const entry = least?.head;
    if (least === null || entry === undefined) return;
    const repeated = last !== null && compareEntries(last, entry) === 0;
    const waitPut = repeated ? undefined : output.put(entry);
    if (waitPut !== undefined) await waitPut;
    last = entry;
    const waitNext = least.advance() ?? options.pacer.pause();
    if (waitNext !== undefined) {
      await waitNext;
      options.signal.throwIfAborted();
    }
  }
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
