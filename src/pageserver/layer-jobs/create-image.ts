/**
 * Making an image layer of the layers below it, file to file: a job that can run on any thread. Pages are read as everywhere
 * (timeline/read-path.ts), only from these files alone: with a block cache of the job's own, without memory layers or downloads.
 */
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { compareKeys, decodeKey, encodeKeyInto, type Key, KEY_SIZE, type KeyRange, nextKey } from "../../keyspace/key.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { JobCancel } from "../../platform/job-threads.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { StrataError } from "../../kit/errors.ts";
import type { ReadCounts } from "../counts/read-counts.ts";
import { BlockCache } from "../layers/block-cache.ts";
import { Layer, type LayerEnvironment, type LayerMetadata } from "../layers/layer.ts";
import type { LayerName } from "../layers/layer-name.ts";
import { ImageLayerWriter, type JobTarget, type WrittenLayer } from "../layers/layer-writer.ts";
import { OpenLayerFiles } from "../layers/open-layer-files.ts";
import type { Pacer } from "../layers/pacer.ts";
import { QuickReads } from "../layers/quick-reads.ts";
import { LayerStack, type ReadSource } from "../timeline/layer-stack.ts";
import { ReadStatistics, readVectored } from "../timeline/read-path.ts";
import { Reconstructor } from "../timeline/reconstruct.ts";
import { keysInSparseRange, presentOf } from "../timeline/scan.ts";

const KEYS_PER_READ = 64;
const CACHE_BYTES = 8 * 1024 * 1024;
const OPEN_FILES_MAX = 64;
/** A collection each time about so much has gone through. */
const COLLECT_EVERY_BYTES = 12 * 1024 * 1024;
/** What comes and goes for a page of the image: what it was made of, the page, and what is written of it. */
const PASSED_PER_PAGE_BYTES = 4 * 8192;
const KEY_RANGE_SIZE = 2 * KEY_SIZE;

/** One timeline's part in an image. */
export interface ImageSource {
  readonly timelineId: TimelineId;
  readonly directory: string;
  /** In local files, which stay there while the job lasts. */
  readonly layers: readonly { readonly name: LayerName; readonly metadata: LayerMetadata }[];
  /** It is read as of this LSN, whose changes and all before are in files. */
  readonly lsn: Lsn;
}

export interface CreateImageJob {
  readonly tenantId: TenantId;
  readonly pgVersion: PgMajor;
  /** The timeline itself, then its ancestors as far as they are needed. */
  readonly sources: readonly ImageSource[];
  /** What the layer covers. */
  readonly keyRange: KeyRange;
  /** Where in it keys are, packed by `packRanges`: there may be many. */
  readonly ranges: Uint8Array;
  readonly sparse: boolean;
  readonly lsn: Lsn;
  readonly target: JobTarget;
}

interface Tools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly pacer: Pacer;
  readonly cancel: JobCancel;
  readonly collect?: () => void;
  /** Told what reads did. */
  readonly counts: ReadCounts;
}

/** Start and end of each, encoded as in layers. */
export function packRanges(ranges: readonly KeyRange[]): Uint8Array {
  const packed = new Uint8Array(ranges.length * KEY_RANGE_SIZE);
  const view = new DataView(packed.buffer);
  for (let i = 0; i < ranges.length; i++) {
    encodeKeyInto(ranges[i].start, view, i * KEY_RANGE_SIZE);
    encodeKeyInto(ranges[i].end, view, i * KEY_RANGE_SIZE + KEY_SIZE);
  }
  return packed;
}

function* unpackRanges(packed: Uint8Array): Generator<KeyRange> {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  for (let at = 0; at < packed.length; at += KEY_RANGE_SIZE) yield { start: decodeKey(view, at), end: decodeKey(view, at + KEY_SIZE) };
}

/**
 * Null when the image would be empty. Nothing is left behind after an error.
 * @throws StrataError not-found `missing-key` when the sources do not have a key; corrupt and not-found, from the files; what redo
 * throws: an image that lacks a key would hide it; what `cancel` throws
 */
export async function createImageFile(job: CreateImageJob, tools: Tools): Promise<WrittenLayer | null> {
  const reader = new FilesReader(job, tools);
  try {
    const writer = await ImageLayerWriter.create({ ...job.target, files: tools.files });
    try {
      if (job.sparse) await writeSparse(job, writer, reader);
      else await writeDense(job, writer, reader);
      if (writer.keyCount > 0) return await writer.finish(job.keyRange, job.lsn);
      await writer.abort();
      return null;
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } finally {
    await reader.close();
  }
}

async function writeDense(job: CreateImageJob, writer: ImageLayerWriter, reader: FilesReader): Promise<void> {
  let keys: Key[] = [];
  const writeBatch = async (): Promise<void> => {
    const pages = await reader.read(keys);
    for (let i = 0; i < keys.length; i++) {
      const page = pages[i];
      if (page instanceof Error) throw page;
      const wait = writer.put(keys[i], page) ?? reader.pause();
      if (wait !== undefined) await wait;
    }
    keys = [];
  };
  for (const range of unpackRanges(job.ranges)) {
    for (let key = range.start; compareKeys(key, range.end) < 0; key = nextKey(key)) {
      keys.push(key);
      if (keys.length === KEYS_PER_READ) await writeBatch();
    }
  }
  if (keys.length > 0) await writeBatch();
}

async function writeSparse(job: CreateImageJob, writer: ImageLayerWriter, reader: FilesReader): Promise<void> {
  const keys = await reader.keysIn(job.keyRange);
  for (let at = 0; at < keys.length; at += KEYS_PER_READ) {
    const some = keys.slice(at, at + KEYS_PER_READ);
    for (const { key, bytes } of presentOf(some, await reader.read(some))) await writer.put(key, bytes);
  }
}

/** Reads as of one LSN from the layers of a job. */
class FilesReader {
  readonly #tools: Tools;
  readonly #lsn: Lsn;
  readonly #source: FileSource;
  readonly #openFiles = new OpenLayerFiles({ maxOpen: OPEN_FILES_MAX });
  readonly #layers: Layer[] = [];
  readonly #reconstructor: Reconstructor;
  #passedBytes = 0;

  constructor(job: CreateImageJob, tools: Tools) {
    this.#tools = tools;
    this.#lsn = job.lsn;
    this.#reconstructor = new Reconstructor(job.pgVersion, tools);
    const cache = new BlockCache({ capacityBytes: CACHE_BYTES });
    const quickReads = new QuickReads(tools.clock);
    const { files, clock } = tools;
    let below: FileSource | null = null;
    for (const { timelineId, directory, layers, lsn } of job.sources.toReversed()) {
      const environment: LayerEnvironment = { files, clock, log: SILENT, cache, openFiles: this.#openFiles, quickReads, tenantId: job.tenantId, directory, isUploaded: () => false, download: notHere };
      const source = new FileSource(timelineId, lsn, below);
      for (const { name, metadata } of layers) {
        const layer = new Layer(environment, { name, metadata, resident: true });
        source.stack.map.add(layer);
        this.#layers.push(layer);
      }
      below = source;
    }
    if (below === null) throw new StrataError("fix-input", "bad-job", "an image is made of some timeline's layers");
    this.#source = below;
  }

  async read(keys: readonly Key[]): Promise<(Uint8Array | Error)[]> {
    const { cancel, pacer, collect, clock, counts } = this.#tools;
    cancel.throwIfAborted();
    this.#passedBytes += keys.length * PASSED_PER_PAGE_BYTES;
    if (this.#passedBytes > COLLECT_EVERY_BYTES) {
      this.#passedBytes = 0;
      collect?.();
    }
    const startMs = clock.monotonicMs();
    const statistics = new ReadStatistics([counts.layers]);
    const pages = await readVectored(this.#source, { keys, lsn: this.#lsn, context: { task: "image-creation" } }, { reconstructor: this.#reconstructor, pacer, statistics, pages: null });
    counts.read("image-creation", { keys: keys.length, layers: statistics.layers, redoMs: statistics.redoMs, totalMs: clock.monotonicMs() - startMs });
    return pages;
  }

  keysIn(range: KeyRange): Promise<Key[]> {
    return keysInSparseRange(this.#source, range, { lsn: this.#lsn });
  }

  pause(): Promise<void> | undefined {
    return this.#tools.pacer.pause();
  }

  async close(): Promise<void> {
    for (const layer of this.#layers) await this.#openFiles.forget(layer);
  }
}

/** A timeline as far as it is in files. */
class FileSource implements ReadSource {
  readonly timelineId: TimelineId;
  readonly stack = new LayerStack();
  readonly #lsn: Lsn;
  readonly #below: FileSource | null;

  constructor(timelineId: TimelineId, lsn: Lsn, below: FileSource | null) {
    this.timelineId = timelineId;
    this.#lsn = lsn;
    this.#below = below;
  }

  ancestorSourceNow(): { source: ReadSource; lsn: Lsn } | null {
    return this.#below === null ? null : { source: this.#below, lsn: this.#below.#lsn };
  }

  ancestorSource(): Promise<{ source: ReadSource; lsn: Lsn }> | null {
    const below = this.ancestorSourceNow();
    return below === null ? null : Promise.resolve(below);
  }
}

async function notHere(layer: Layer): Promise<void> {
  throw new StrataError("not-found", "file-not-found", `${layer.path} was to stay while it is needed`);
}

/** What is wrong arrives at who asked for the job. */
const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => SILENT };
