/**
 * A layer file opened for reading. Every block is checked against the trailer before anybody sees it, index blocks and
 * values alike (see summary.ts for where the checksums lie); layers without a trailer are the peer's and are trusted.
 */
import { allocateBytes, copyOfBytes } from "../../kit/buffers.ts";
import { dataViewOf } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { copyBytes } from "../../kit/copy.ts";
import { invariant, StrataError } from "../../kit/errors.ts";
import type { TenantId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { KEY_SIZE } from "../../keyspace/key.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import type { Pacer } from "../../platform/pacer.ts";
import { blobBodySize, blobHeaderSize, decodeBlobBody, isCompressedBlob } from "./blob.ts";
import type { BlockCache, FileBlocks } from "./block-cache.ts";
import { BtreeNode } from "./disk-btree.ts";
import type { FoundValues } from "./found-values.ts";
import { type LayerName, layerNameToString } from "./layer-name.ts";
import type { QuickReads } from "./quick-reads.ts";
import { BLOCK_SIZE, checksumMismatch, decodeSummary, type Summary, summaryCrc } from "./summary.ts";

export interface LayerFileOptions {
  readonly files: FileSystem;
  readonly path: string;
  readonly cache: BlockCache;
  readonly tenantId: TenantId;
  readonly name: LayerName;
  /** From index_part; null when it has none. */
  readonly expectedCrc: number | null;
  /** For reads without waiting of blocks that are not cached; absent: there are none. */
  readonly quickReads?: QuickReads;
}

/** One read takes at most this much. */
const READ_MAX_BLOCKS = 32;
/** Blocks not asked for are read along when fewer than this lie between two that are. */
const GAP_MAX_BLOCKS = 2;
/** Unpacked between two looks at the clock. */
const BLOBS_PER_LOOK = 16;

export class LayerFile {
  readonly summary: Summary;
  readonly path: string;
  readonly #file: FileHandle;
  readonly #cached: FileBlocks;
  readonly #quickReads: QuickReads | null;
  readonly #where: string;
  readonly #indexKeySize: number;
  /** Blocks before the trailer. */
  readonly #blockCount: number;
  readonly #crcs: DataView | null;

  private constructor(options: LayerFileOptions, file: FileHandle, checked: { summary: Summary; blockCount: number; crcs: DataView | null }) {
    this.summary = checked.summary;
    this.path = options.path;
    this.#file = file;
    this.#cached = options.cache.forFile();
    this.#quickReads = options.quickReads ?? null;
    this.#where = layerNameToString(options.name);
    this.#indexKeySize = options.name.kind === "delta" ? KEY_SIZE + 8 : KEY_SIZE;
    this.#blockCount = checked.blockCount;
    this.#crcs = checked.crcs;
  }

  /** @throws StrataError corrupt `layer-checksum-mismatch`, `layer-truncated`, `bad-layer-summary`; not-found `file-not-found` */
  static async open(options: LayerFileOptions): Promise<LayerFile> {
    const file = await options.files.open(options.path, "read");
    try {
      return new LayerFile(options, file, await readHead(file, options));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** An index block, counted from the first of them; shared, not to be written. */
  indexBlock(block: number): Uint8Array | Promise<Uint8Array> {
    const absolute = this.summary.indexStartBlock + block;
    return this.#cached.get(absolute) ?? this.#readOne(absolute);
  }

  /**
   * An index node, without waiting; null when that cannot be. It is kept with its block.
   * @throws StrataError corrupt `bad-layer-index`, `layer-checksum-mismatch`, `layer-truncated`
   */
  indexNodeNow(block: number): BtreeNode | null {
    const number = this.summary.indexStartBlock + block;
    const cached = this.#cached.entry(number);
    if (cached !== undefined) return (cached.node ??= new BtreeNode(cached.bytes, this.#indexKeySize));
    const bytes = this.#readOneNow(number);
    return bytes === null ? null : new BtreeNode(bytes, this.#indexKeySize);
  }

  #blockNow(block: number): Uint8Array | null {
    return this.#cached.get(block) ?? this.#readOneNow(block);
  }

  #readOneNow(block: number): Uint8Array | null {
    if (this.#quickReads === null) return null;
    if (block < 0 || block >= this.#blockCount) throw truncated(this.#where, `block ${block} of ${this.#blockCount}`);
    const bytes = new Uint8Array(BLOCK_SIZE);
    const got = this.#quickReads.read(this.#file, bytes, block * BLOCK_SIZE);
    if (got === null) return null;
    if (got < BLOCK_SIZE) throw truncated(this.#where, `${got} bytes at block ${block}`);
    this.#check(block, bytes);
    this.#cached.put(block, bytes);
    return bytes;
  }

  /**
   * The value of one blob, perhaps a view of shared memory, without waiting; null when that cannot be.
   * @throws StrataError corrupt `bad-blob`, `bad-zstd`, `layer-checksum-mismatch`, `layer-truncated`
   */
  blobNow(offset: number): Uint8Array | null {
    if (offset < BLOCK_SIZE || offset >= this.#dataEnd) throw this.#badBlob(offset);
    const number = Math.floor(offset / BLOCK_SIZE);
    const block = this.#blockNow(number);
    if (block === null) return null;
    const at = offset - number * BLOCK_SIZE;
    const first = block[at];
    const headerSize = blobHeaderSize(first);
    if (at + headerSize > BLOCK_SIZE) return this.#spanningBlobNow(offset);
    const size = blobBodySize(block, at);
    const end = at + headerSize + size;
    if (number * BLOCK_SIZE + end > this.#dataEnd) throw this.#badBlob(offset);
    return end <= BLOCK_SIZE ? decodeBlobBody(first, block.subarray(at + headerSize, end)) : this.#spanningBlobNow(offset);
  }

  /**
   * Adds the value of one blob to `into`, without waiting; false when that cannot be, and then `into` is not to be used.
   * @throws as `blobNow`
   */
  addBlobNow(offset: number, value: { readonly lsn: Lsn; readonly willInit: boolean }, into: FoundValues): boolean {
    const number = Math.floor(offset / BLOCK_SIZE);
    const block = number >= 1 && offset < this.#dataEnd ? this.#blockNow(number) : null;
    if (block !== null) {
      const at = offset - number * BLOCK_SIZE;
      const start = at + blobHeaderSize(block[at]);
      const end = start <= BLOCK_SIZE ? start + blobBodySize(block, at) : BLOCK_SIZE + 1;
      // Most are small and plain: copied from where they are.
      if (end <= BLOCK_SIZE && number * BLOCK_SIZE + end <= this.#dataEnd && !isCompressedBlob(block[at])) {
        const to = into.add(value.lsn, value.willInit, end - start);
        copyBytes(block, start, into.bytes, to, end - start);
        return true;
      }
    }
    const bytes = this.blobNow(offset);
    if (bytes === null) return false;
    const to = into.add(value.lsn, value.willInit, bytes.length);
    copyBytes(bytes, 0, into.bytes, to, bytes.length);
    return true;
  }

  /** One that runs over block borders. */
  #spanningBlobNow(offset: number): Uint8Array | null {
    const blocks = new Map<number, Uint8Array>();
    if (!this.#loadNow(blocks, offset, offset + 1)) return null;
    const headerEnd = offset + this.#headerSize(blocks, offset);
    if (!this.#loadNow(blocks, offset, headerEnd)) return null;
    const size = this.#bodySize(blocks, offset);
    return this.#loadNow(blocks, offset, headerEnd + size) ? this.#blob(blocks, offset, size) : null;
  }

  #loadNow(blocks: Map<number, Uint8Array>, start: number, end: number): boolean {
    const last = Math.floor((end - 1) / BLOCK_SIZE);
    for (let number = Math.floor(start / BLOCK_SIZE); number <= last; number++) {
      const block = blocks.get(number) ?? this.#blockNow(number);
      if (block === null) return false;
      blocks.set(number, block);
    }
    return true;
  }

  async #readOne(block: number): Promise<Uint8Array> {
    const blocks = new Map<number, Uint8Array>();
    await this.#readRun(block, 1, blocks);
    return blocks.get(block) as Uint8Array;
  }

  /** Reads, checks and caches `count` blocks from `first`. */
  async #readRun(first: number, count: number, into: Map<number, Uint8Array>): Promise<void> {
    if (first < 0 || first + count > this.#blockCount) throw truncated(this.#where, `block ${first + count - 1} of ${this.#blockCount}`);
    const buffer = allocateBytes(count * BLOCK_SIZE);
    const got = await this.#file.read(buffer, first * BLOCK_SIZE);
    if (got < buffer.length) throw truncated(this.#where, `${got} bytes at block ${first}`);
    for (let i = 0; i < count; i++) {
      const block = count === 1 ? buffer : copyOfBytes(buffer.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
      this.#check(first + i, block);
      this.#cached.put(first + i, block);
      into.set(first + i, block);
    }
  }

  #check(block: number, bytes: Uint8Array): void {
    if (this.#crcs === null || block === 0) return;
    if (crc32c(bytes) !== this.#crcs.getUint32(block * 4)) throw checksumMismatch(this.#where, block);
  }

  /**
   * The values of blobs, in the order of `offsets`; each may be a view of shared memory, not to be written.
   * @param offsets rising
   * @param guessBytes usual size of a blob, to read in one go
   * @param pacer for as many as a whole layer has
   */
  async readBlobs(offsets: readonly number[], guessBytes: number, pacer?: Pacer): Promise<Uint8Array[]> {
    const blocks = new Map<number, Uint8Array>();
    const wanted: number[] = [];
    for (const offset of offsets) addBlocks(wanted, offset, Math.min(offset + guessBytes, this.#dataEnd));
    await this.#load(wanted, blocks);
    // Headers may run into the next block, and so may bodies that are longer than guessed.
    const headers: number[] = [];
    for (const offset of offsets) addBlocks(headers, offset, offset + this.#headerSize(blocks, offset));
    await this.#load(headers, blocks);
    const bodies: number[] = [];
    const sizes = offsets.map((offset) => this.#bodySize(blocks, offset));
    for (let i = 0; i < offsets.length; i++) addBlocks(bodies, offsets[i], offsets[i] + this.#headerSize(blocks, offsets[i]) + sizes[i]);
    await this.#load(bodies, blocks);
    const blobs: Uint8Array[] = [];
    for (let i = 0; i < offsets.length; i++) {
      blobs.push(this.#blob(blocks, offsets[i], sizes[i]));
      // Pages may be packed so well that a thousand fit into what is read at once, and each takes a while to unpack.
      const pause = i % BLOBS_PER_LOOK === 0 ? pacer?.pause() : undefined;
      if (pause !== undefined) await pause;
    }
    return blobs;
  }

  get #dataEnd(): number {
    return this.summary.indexStartBlock * BLOCK_SIZE;
  }

  /** Brings the missing ones of `wanted` (rising) into `blocks`, neighbours with one read. */
  async #load(wanted: readonly number[], blocks: Map<number, Uint8Array>): Promise<void> {
    let first = -1;
    let last = -1;
    for (const block of wanted) {
      if (blocks.has(block)) continue;
      const cached = this.#cached.get(block);
      if (cached !== undefined) {
        blocks.set(block, cached);
        continue;
      }
      if (first >= 0 && block - last <= GAP_MAX_BLOCKS && block - first < READ_MAX_BLOCKS) {
        last = block;
        continue;
      }
      if (first >= 0) await this.#readRun(first, last - first + 1, blocks);
      first = last = block;
    }
    if (first >= 0) await this.#readRun(first, last - first + 1, blocks);
  }

  #headerSize(blocks: Map<number, Uint8Array>, offset: number): number {
    if (offset < BLOCK_SIZE || offset >= this.#dataEnd) throw this.#badBlob(offset);
    return blobHeaderSize((blocks.get(Math.floor(offset / BLOCK_SIZE)) as Uint8Array)[offset % BLOCK_SIZE]);
  }

  #bodySize(blocks: Map<number, Uint8Array>, offset: number): number {
    const headerSize = this.#headerSize(blocks, offset);
    const header = gather(blocks, offset, headerSize);
    const size = blobBodySize(header, 0);
    if (offset + headerSize + size > this.#dataEnd) throw this.#badBlob(offset);
    return size;
  }

  #blob(blocks: Map<number, Uint8Array>, offset: number, size: number): Uint8Array {
    const first = (blocks.get(Math.floor(offset / BLOCK_SIZE)) as Uint8Array)[offset % BLOCK_SIZE];
    return decodeBlobBody(first, gather(blocks, offset + blobHeaderSize(first), size));
  }

  #badBlob(offset: number): StrataError {
    return new StrataError("corrupt", "bad-blob", `layer ${this.#where}: blob at ${offset} runs out of the data part`, { details: { layer: this.#where } });
  }

  /** Reads the whole file once. @throws StrataError corrupt `layer-checksum-mismatch` */
  async verify(): Promise<void> {
    for (let first = 0; first < this.#blockCount; first += READ_MAX_BLOCKS) {
      const buffer = allocateBytes(Math.min(READ_MAX_BLOCKS, this.#blockCount - first) * BLOCK_SIZE);
      if ((await this.#file.read(buffer, first * BLOCK_SIZE)) < buffer.length) throw truncated(this.#where, `block ${first}`);
      for (let i = 0; i * BLOCK_SIZE < buffer.length; i++) this.#check(first + i, buffer.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
    }
  }
}

async function readHead(file: FileHandle, options: LayerFileOptions): Promise<{ summary: Summary; blockCount: number; crcs: DataView | null }> {
  const where = layerNameToString(options.name);
  const block = new Uint8Array(BLOCK_SIZE);
  if ((await file.read(block, 0)) < BLOCK_SIZE) throw truncated(where, "no whole first block");
  const summary = decodeSummary(block, where);
  const size = await file.sizeBytes();
  if (options.expectedCrc !== null && (summary.checksums === null || summaryCrc(block) !== options.expectedCrc)) throw checksumMismatch(where, 0);
  if (summary.tenantId !== options.tenantId || layerNameToString(summary.name) !== where) {
    throw new StrataError("corrupt", "bad-layer-summary", `layer ${where}: its first block names ${layerNameToString(summary.name)} of tenant ${summary.tenantId}`, { details: { layer: where } });
  }
  if (summary.checksums === null) return { summary, blockCount: Math.floor(size / BLOCK_SIZE), crcs: null };
  const { blockCount, trailerCrc } = summary.checksums;
  if (size !== blockCount * (BLOCK_SIZE + 4)) throw truncated(where, `${size} bytes, ${blockCount * (BLOCK_SIZE + 4)} expected`);
  const trailer = new Uint8Array(blockCount * 4);
  if ((await file.read(trailer, blockCount * BLOCK_SIZE)) < trailer.length) throw truncated(where, "trailer");
  if (crc32c(trailer) !== trailerCrc) throw checksumMismatch(where, "trailer");
  return { summary, blockCount, crcs: dataViewOf(trailer) };
}

/** Appends the blocks of [start, end) that are not the last of `to` already. */
function addBlocks(to: number[], start: number, end: number): void {
  const last = Math.floor((Math.max(end, start + 1) - 1) / BLOCK_SIZE);
  for (let block = Math.floor(start / BLOCK_SIZE); block <= last; block++) {
    if (to.length === 0 || to[to.length - 1] < block) to.push(block);
  }
}

/** Bytes that may run over block borders; a view when they do not. */
function gather(blocks: Map<number, Uint8Array>, offset: number, size: number): Uint8Array {
  const start = offset % BLOCK_SIZE;
  let number = Math.floor(offset / BLOCK_SIZE);
  if (start + size <= BLOCK_SIZE) {
    if (size === 0) return new Uint8Array(0);
    return (blocks.get(number) as Uint8Array).subarray(start, start + size);
  }
  const result = allocateBytes(size);
  for (let at = 0, from = start; at < size; number++, from = 0) {
    const block = blocks.get(number);
    invariant(block !== undefined, `block ${number} was loaded`);
    const part = block.subarray(from, from + Math.min(BLOCK_SIZE - from, size - at));
    result.set(part, at);
    at += part.length;
  }
  return result;
}

function truncated(where: string, what: string): StrataError {
  return new StrataError("corrupt", "layer-truncated", `layer ${where} is too short: ${what}`, { details: { layer: where } });
}
