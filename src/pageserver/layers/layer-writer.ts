/**
 * Writing a layer file in one pass: values in key (and LSN) order, then the index, then checksums and summary. The file
 * has a temporary name until it is complete and synced; the caller syncs the directory before naming the layer anywhere.
 */
import { allocateBytes } from "../../kit/buffers.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { invariant } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { encodeKeyInto, type Key, KEY_SIZE } from "../../keyspace/key.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { encodeBlob } from "./blob.ts";
import { encodeDeltaKeyInto, DELTA_KEY_SIZE } from "./delta-layer.ts";
import { BtreeBuilder } from "./disk-btree.ts";
import { type Generation, type LayerName, localLayerFileName, type LsnRange } from "./layer-name.ts";
import { BLOCK_SIZE, encodeSummary, summaryCrc } from "./summary.ts";

/** Files that end so are never complete; start-up removes them. */
export const TEMPORARY_LAYER_SUFFIX = ".___temp";
const BUFFER_BYTES = 32 * BLOCK_SIZE;

export interface LayerTarget {
  readonly files: FileSystem;
  /** Where the file goes; must exist. */
  readonly directory: string;
  /** Makes temporary names unique within the directory. */
  readonly uniqueName: string;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly generation: Generation;
}

export interface WrittenLayer {
  readonly name: LayerName;
  readonly path: string;
  readonly sizeBytes: number;
  /** For index_part. */
  readonly crc: number;
}

class LayerWriter {
  readonly #target: LayerTarget;
  readonly #file: FileHandle;
  readonly #temporaryPath: string;
  readonly #tree: BtreeBuilder;
  readonly #buffer = allocateBytes(BUFFER_BYTES);
  /** CRC of each block written, by number. */
  readonly #crcs: number[] = [0];
  /** Where the buffer begins in the file, a multiple of the block size. */
  #flushed = BLOCK_SIZE;
  #buffered = 0;

  constructor(target: LayerTarget, file: FileHandle, keySize: number) {
    this.#target = target;
    this.#file = file;
    this.#temporaryPath = file.path;
    this.#tree = new BtreeBuilder(keySize);
  }

  get position(): number {
    return this.#flushed + this.#buffered;
  }

  /** Size of the file if it were finished now, roughly. */
  get sizeBytes(): number {
    return this.position + this.#tree.sizeBytes;
  }

  /** Appends a blob and its index entry. Waits for the disk when the buffer is full. */
  put(indexKey: Uint8Array, indexValue: number, blob: { header: Uint8Array; body: Uint8Array }): Promise<void> | undefined {
    this.#tree.append(indexKey, indexValue);
    if (this.#buffered + blob.header.length + blob.body.length <= BUFFER_BYTES) {
      this.#buffer.set(blob.header, this.#buffered);
      this.#buffer.set(blob.body, this.#buffered + blob.header.length);
      this.#buffered += blob.header.length + blob.body.length;
      return undefined;
    }
    return this.#writeAll([blob.header, blob.body]);
  }

  async #writeAll(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      for (let at = 0; at < part.length; ) {
        const count = Math.min(BUFFER_BYTES - this.#buffered, part.length - at);
        this.#buffer.set(part.subarray(at, at + count), this.#buffered);
        this.#buffered += count;
        at += count;
        if (this.#buffered === BUFFER_BYTES) await this.#flush();
      }
    }
  }

  /** Pads to a whole block and writes. */
  async #flush(): Promise<void> {
    if (this.#buffered === 0) return;
    const whole = Math.ceil(this.#buffered / BLOCK_SIZE) * BLOCK_SIZE;
    this.#buffer.fill(0, this.#buffered, whole);
    for (let at = 0; at < whole; at += BLOCK_SIZE) this.#crcs.push(crc32c(this.#buffer, at, at + BLOCK_SIZE));
    await this.#file.write(this.#buffer.subarray(0, whole), this.#flushed);
    this.#flushed += whole;
    this.#buffered = 0;
  }

  async finish(name: LayerName): Promise<WrittenLayer> {
    const { tenantId, timelineId, files, directory, generation } = this.#target;
    await this.#flush();
    const indexStartBlock = this.#flushed / BLOCK_SIZE;
    const index = this.#tree.finish();
    await this.#writeAll(index.blocks);
    await this.#flush();
    const blockCount = this.#flushed / BLOCK_SIZE;
    invariant(this.#crcs.length === blockCount, "a checksum for every block");
    const trailer = new Uint8Array(blockCount * 4);
    const view = new DataView(trailer.buffer);
    for (let i = 0; i < blockCount; i++) view.setUint32(i * 4, this.#crcs[i]);
    await this.#file.write(trailer, this.#flushed);
    const checksums = { blockCount, trailerCrc: crc32c(trailer) };
    const summary = encodeSummary({ tenantId, timelineId, name, indexStartBlock, indexRootBlock: index.rootBlock, checksums });
    await this.#file.write(summary, 0);
    await this.#file.sync();
    await this.#file.close();
    const path = `${directory}/${localLayerFileName(name, generation)}`;
    await files.rename(this.#temporaryPath, path);
    return { name, path, sizeBytes: this.#flushed + trailer.length, crc: summaryCrc(summary) };
  }

  /** Removes what was written. */
  async abort(): Promise<void> {
    await this.#file.close().catch(() => {});
    await this.#target.files.remove(this.#temporaryPath).catch(() => {});
  }
}

async function openWriter(target: LayerTarget, keySize: number): Promise<LayerWriter> {
  const file = await target.files.open(`${target.directory}/${target.uniqueName}${TEMPORARY_LAYER_SUFFIX}`, "truncate");
  return new LayerWriter(target, file, keySize);
}

export class DeltaLayerWriter {
  readonly #writer: LayerWriter;
  readonly #key = new Uint8Array(DELTA_KEY_SIZE);
  readonly #view = new DataView(this.#key.buffer);
  keyCount = 0;

  private constructor(writer: LayerWriter) {
    this.#writer = writer;
  }

  static async create(target: LayerTarget): Promise<DeltaLayerWriter> {
    return new DeltaLayerWriter(await openWriter(target, DELTA_KEY_SIZE));
  }

  get sizeBytes(): number {
    return this.#writer.sizeBytes;
  }

  /** In rising (key, LSN) order. @param bytes the encoded value, copied before this returns or resolves */
  put(entry: { readonly key: Key; readonly lsn: Lsn; readonly willInit: boolean; readonly bytes: Uint8Array }): Promise<void> | undefined {
    encodeDeltaKeyInto(entry.key, entry.lsn, this.#view);
    this.keyCount++;
    return this.#writer.put(this.#key, this.#writer.position * 2 + (entry.willInit ? 1 : 0), encodeBlob(entry.bytes, null));
  }

  finish(keyRange: { readonly start: Key; readonly end: Key }, lsnRange: LsnRange): Promise<WrittenLayer> {
    invariant(this.keyCount > 0 && lsnRange.start < lsnRange.end, "a delta layer covers something");
    return this.#writer.finish({ kind: "delta", keyRange, lsnRange });
  }

  abort(): Promise<void> {
    return this.#writer.abort();
  }
}

export class ImageLayerWriter {
  readonly #writer: LayerWriter;
  readonly #zstdLevel: number | null;
  readonly #key = new Uint8Array(KEY_SIZE);
  readonly #view = new DataView(this.#key.buffer);
  keyCount = 0;

  private constructor(writer: LayerWriter, zstdLevel: number | null) {
    this.#writer = writer;
    this.#zstdLevel = zstdLevel;
  }

  /** @param zstdLevel null to store images as they are */
  static async create(target: LayerTarget, zstdLevel: number | null): Promise<ImageLayerWriter> {
    return new ImageLayerWriter(await openWriter(target, KEY_SIZE), zstdLevel);
  }

  get sizeBytes(): number {
    return this.#writer.sizeBytes;
  }

  /** In rising key order. */
  put(key: Key, image: Uint8Array): Promise<void> | undefined {
    encodeKeyInto(key, this.#view, 0);
    this.keyCount++;
    return this.#writer.put(this.#key, this.#writer.position, encodeBlob(image, this.#zstdLevel));
  }

  finish(keyRange: { readonly start: Key; readonly end: Key }, lsn: Lsn): Promise<WrittenLayer> {
    return this.#writer.finish({ kind: "image", keyRange, lsn });
  }

  abort(): Promise<void> {
    return this.#writer.abort();
  }
}
