/** Merging L0 layers into L1 layers, file to file: a job that can run on any thread. */
import type { TenantId } from "../../kit/ids.ts";
import { compareKeys, type Key, nextKey } from "../../keyspace/key.ts";
import { isSparseKey } from "../../keyspace/mapping.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { JobCancel } from "../../platform/job-threads.ts";
import { BlockCache } from "../layers/block-cache.ts";
import { compareEntries, type DeltaEntry, iterateDelta } from "../layers/delta-layer.ts";
import { LayerFile } from "../layers/layer-file.ts";
import type { LayerName, LsnRange } from "../layers/layer-name.ts";
import { DeltaLayerWriter, type JobTarget, type LayerTarget, type WrittenLayer } from "../layers/layer-writer.ts";
import type { Pacer } from "../layers/pacer.ts";

/** A collection each time about so much has gone through a merge. */
const COLLECT_EVERY_BYTES = 12 * 1024 * 1024;
/** What an entry takes for a moment, besides its value. */
const ENTRY_OBJECTS_BYTES = 300;
/** Index blocks of the inputs; values are read once. */
const CACHE_BYTES = 4 * 1024 * 1024;

/** A layer in a local file. */
export interface LayerInput {
  readonly path: string;
  readonly name: LayerName;
  /** From index_part. */
  readonly crc: number | null;
}

export interface CompactL0Job {
  readonly inputs: readonly LayerInput[];
  readonly tenantId: TenantId;
  readonly lsnRange: LsnRange;
  /** Layers are cut at about this size. */
  readonly targetBytes: number;
  /** Its unique name is continued by numbers. */
  readonly target: JobTarget;
}

interface Tools {
  readonly files: FileSystem;
  readonly pacer: Pacer;
  readonly cancel: JobCancel;
  readonly collect?: () => void;
}

/** One input of the merge, a chunk in memory at a time. */
class MergeInput {
  #chunk: DeltaEntry[] = [];
  #at = 0;
  readonly #chunks: AsyncGenerator<DeltaEntry[]>;

  constructor(file: LayerFile, pacer: Pacer) {
    this.#chunks = iterateDelta(file, pacer);
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
  readonly #target: LayerTarget;
  readonly #lsnRange: LsnRange;
  readonly #targetBytes: number;
  #writer: DeltaLayerWriter | null = null;
  #firstKey: Key | null = null;
  #lastKey: Key | null = null;

  constructor(options: { target: LayerTarget; lsnRange: LsnRange; targetBytes: number }) {
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
    this.#writer = await DeltaLayerWriter.create({ ...this.#target, uniqueName: `${this.#target.uniqueName}-${this.written.length}` });
    this.#firstKey = entry.key;
    this.#lastKey = entry.key;
    await this.#writer.put(entry);
  }

  async finish(): Promise<void> {
    if (this.#writer === null || this.#firstKey === null || this.#lastKey === null) return;
    this.written.push(await this.#writer.finish({ start: this.#firstKey, end: nextKey(this.#lastKey) }, this.#lsnRange));
    this.#writer = null;
  }

  /** Removes everything written. */
  async abort(): Promise<void> {
    await this.#writer?.abort();
    for (const { path } of this.written) await this.#target.files.remove(path).catch(() => {});
  }
}

/** @throws StrataError corrupt, not-found, from the inputs; what `cancel` throws. Nothing is left behind then */
export async function compactL0Files(job: CompactL0Job, tools: Tools): Promise<WrittenLayer[]> {
  const { inputs, tenantId, lsnRange, targetBytes, target } = job;
  const { files } = tools;
  const cache = new BlockCache({ capacityBytes: CACHE_BYTES });
  const output = new L1Output({ target: { ...target, files }, lsnRange, targetBytes });
  const opened: LayerFile[] = [];
  try {
    for (const { path, name, crc } of inputs) opened.push(await LayerFile.open({ files, path, cache, tenantId, name, expectedCrc: crc }));
    await merge(opened, output, tools);
    await output.finish();
  } catch (error) {
    await output.abort();
    throw error;
  } finally {
    for (const file of opened) await file.close();
  }
  return output.written;
}

async function merge(files: readonly LayerFile[], output: L1Output, { pacer, cancel, collect }: Tools): Promise<void> {
  const inputs = files.map((file) => new MergeInput(file, pacer));
  for (const input of inputs) await input.load();
  let last: DeltaEntry | null = null;
  let passedBytes = 0;
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
    passedBytes += entry.bytes.length + ENTRY_OBJECTS_BYTES;
    if (passedBytes > COLLECT_EVERY_BYTES) {
      passedBytes = 0;
      collect?.();
    }
    const waitNext = least.advance() ?? pacer.pause();
    if (waitNext !== undefined) {
      await waitNext;
      cancel.throwIfAborted();
    }
  }
}
