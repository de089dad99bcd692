/**
 * Writing a layer file in one pass: values in key (and LSN) order, then the index, then checksums and summary. The file
 * has a temporary name until it is complete and synced; the caller syncs the directory before naming the layer anywhere.
 */
import { allocateBytes } from "../../kit/buffers.ts";
import { copyBytes } from "../../kit/copy.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { invariant } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import { KEY_FIELDS } from "../../interpret/value-batch.ts";
import { encodeKeyInto, type Key, KEY_SIZE } from "../../keyspace/key.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { openWithDirectory } from "../../platform/open-with-directory.ts";
import { BLOB_HEADER_MAX, COMPRESS_MIN_BYTES, compressedBlob, writeBlobHeader } from "./blob.ts";
import { encodeDeltaKeyInto, DELTA_KEY_SIZE } from "./delta-layer.ts";
import { BtreeBuilder } from "./disk-btree.ts";
import { type Generation, type LayerName, localLayerFileName, type LsnRange } from "./layer-name.ts";
import { BLOCK_SIZE, encodeSummary, summaryCrc } from "./summary.ts";

/** Files that end so are never complete; start-up removes them. */
export const TEMPORARY_LAYER_SUFFIX = ".___temp";
const BUFFER_BYTES = 32 * BLOCK_SIZE;

export interface LayerTarget extends JobTarget {
  readonly files: FileSystem;
}

/** A target as plain data: the thread that does the work has files of its own. */
export interface JobTarget {
  /** Where the file goes; made if it is missing. */
  readonly directory: string;
  /** Makes temporary names unique within the directory. */
  readonly uniqueName: string;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly generation: Generation;
  /** For values large enough; null to store all as they are. */
  readonly zstdLevel: number | null;
}

export interface WrittenLayer {
  readonly name: LayerName;
  readonly path: string;
  readonly sizeBytes: number;
  /** For index_part. */
  readonly crc: number;
  /** Of an image layer: bytes of values as they came, those that might have been compressed, those that were, and what was written. */
  readonly compression?: { readonly inBytes: number; readonly consideredBytes: number; readonly chosenBytes: number; readonly outBytes: number };
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
  readonly compression = { inBytes: 0, consideredBytes: 0, chosenBytes: 0, outBytes: 0 };

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

  /**
   * Appends bytes[start, start + length) as a blob, and its index entry. Waits for the disk when the buffer is full.
   * Positional parameters on purpose: called for every value of a layer.
   */
  put(indexKey: Uint8Array, indexValue: number, bytes: Uint8Array, start: number, length: number): Promise<void> | undefined {
    this.#tree.append(indexKey, indexValue);
    const packed = length < COMPRESS_MIN_BYTES ? null : compressedBlob(bytes.subarray(start, start + length), this.#target.zstdLevel);
    const { compression } = this;
    compression.inBytes += length;
    if (length >= COMPRESS_MIN_BYTES && this.#target.zstdLevel !== null) compression.consideredBytes += length;
    compression.outBytes += packed === null ? length : packed.length;
    if (packed !== null) {
      compression.chosenBytes += length;
      return this.#append(packed, 0, packed.length, true);
    }
    return this.#append(bytes, start, length, false);
  }

  /** Positional parameters on purpose: as above. */
  #append(bytes: Uint8Array, start: number, length: number, compressed: boolean): Promise<void> | undefined {
    if (this.#buffered + BLOB_HEADER_MAX + length > BUFFER_BYTES) return this.#appendInParts(bytes.subarray(start, start + length), compressed);
    this.#buffered += writeBlobHeader(this.#buffer, this.#buffered, length, compressed);
    copyBytes(bytes, start, this.#buffer, this.#buffered, length);
    this.#buffered += length;
    return undefined;
  }

  async #appendInParts(bytes: Uint8Array, compressed: boolean): Promise<void> {
    const header = new Uint8Array(BLOB_HEADER_MAX);
    const headerSize = writeBlobHeader(header, 0, bytes.length, compressed);
    await this.#writeAll([header.subarray(0, headerSize), bytes]);
  }

  async #writeAll(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      for (let at = 0; at < part.length; ) {
        const count = Math.min(BUFFER_BYTES - this.#buffered, part.length - at);
        copyBytes(part, at, this.#buffer, this.#buffered, count);
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
  const file = await openWithDirectory(target.files, `${target.directory}/${target.uniqueName}${TEMPORARY_LAYER_SUFFIX}`, "truncate");
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
    return this.#writer.put(this.#key, this.#writer.position * 2 + (entry.willInit ? 1 : 0), entry.bytes, 0, entry.bytes.length);
  }

  /** The key, in row `row` of a column of six fields, that the next values are of. */
  beginKey(fields: Uint32Array, row: number): void {
    const at = row * KEY_FIELDS;
    const view = this.#view;
    view.setUint8(0, fields[at]);
    view.setUint32(1, fields[at + 1]);
    view.setUint32(5, fields[at + 2]);
    view.setUint32(9, fields[at + 3]);
    view.setUint8(13, fields[at + 4]);
    view.setUint32(14, fields[at + 5]);
  }

  /** `put` for the key begun last: the value is bytes[start, start + length). Positional parameters on purpose: called a value. */
  putVersion(lsn: Lsn, willInit: boolean, bytes: Uint8Array, start: number, length: number): Promise<void> | undefined {
    this.#view.setUint32(KEY_SIZE, lsnHigh(lsn));
    this.#view.setUint32(KEY_SIZE + 4, lsnLow(lsn));
    this.keyCount++;
    return this.#writer.put(this.#key, this.#writer.position * 2 + (willInit ? 1 : 0), bytes, start, length);
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
  readonly #key = new Uint8Array(KEY_SIZE);
  readonly #view = new DataView(this.#key.buffer);
  keyCount = 0;

  private constructor(writer: LayerWriter) {
    this.#writer = writer;
  }

  static async create(target: LayerTarget): Promise<ImageLayerWriter> {
    return new ImageLayerWriter(await openWriter(target, KEY_SIZE));
  }

  get sizeBytes(): number {
    return this.#writer.sizeBytes;
  }

  /** In rising key order. */
  put(key: Key, image: Uint8Array): Promise<void> | undefined {
    encodeKeyInto(key, this.#view, 0);
    this.keyCount++;
    return this.#writer.put(this.#key, this.#writer.position, image, 0, image.length);
  }

  async finish(keyRange: { readonly start: Key; readonly end: Key }, lsn: Lsn): Promise<WrittenLayer> {
    const { compression } = this.#writer;
    return { ...(await this.#writer.finish({ kind: "image", keyRange, lsn })), compression };
  }

  abort(): Promise<void> {
    return this.#writer.abort();
  }
}
