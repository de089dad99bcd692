/**
 * A frozen in-memory layer as plain data, and the L0 delta layer made of it: a job that can run on any thread, since frozen
 * layers do not change and their columns and chunks lie in shared memory.
 */
import { copyBytes } from "../../kit/copy.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { KEY_MAX, KEY_MIN } from "../../keyspace/key.ts";
import type { FileHandle } from "../../platform/files.ts";
import { CHUNK_BYTES } from "./chunk-pool.ts";
import type { EphemeralContent } from "./ephemeral-file.ts";
import { type IndexColumns, sortedRows } from "./key-index.ts";
import type { LsnRange } from "./layer-name.ts";
import { DeltaLayerWriter, type LayerTarget, type WrittenLayer } from "./layer-writer.ts";
import type { Pacer } from "./pacer.ts";

export interface FrozenContent {
  readonly columns: IndexColumns;
  readonly values: EphemeralContent;
  readonly lsnRange: LsnRange;
  /** Versions above it were never readable, and are left out. */
  readonly maxLsn: Lsn;
}

/** Spilled values up to this much are read at once; of more, each is read where it is. */
const READ_WHOLE_BYTES = 16 * 1024 * 1024;

/** Values by their offset: in chunks, or in the file that chunks were spilled to. */
class ValueSource {
  readonly #chunks: readonly (Uint8Array | null)[];
  readonly #file: FileHandle | null;
  readonly #spilledBytes: number;
  readonly #whole: Uint8Array | null;
  #scratch = new Uint8Array(CHUNK_BYTES);
  /** Where the value looked up last is. */
  bytes: Uint8Array = this.#scratch;
  start = 0;

  private constructor(content: EphemeralContent, file: FileHandle | null, whole: Uint8Array | null) {
    this.#chunks = content.chunks;
    this.#file = file;
    this.#whole = whole;
    this.#spilledBytes = spilledBytes(content);
  }

  static async open(content: EphemeralContent, target: LayerTarget): Promise<ValueSource> {
    const spilled = spilledBytes(content);
    if (spilled === 0) return new ValueSource(content, null, null);
    const file = await target.files.open(content.path, "read");
    try {
      const whole = spilled <= READ_WHOLE_BYTES ? new Uint8Array(spilled) : null;
      if (whole !== null && (await file.read(whole, 0)) < spilled) throw short(file, 0);
      return new ValueSource(content, file, whole);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }

  find(offset: number, length: number): void {
    const number = Math.floor(offset / CHUNK_BYTES);
    const within = offset - number * CHUNK_BYTES;
    const chunk = this.#chunks[number];
    if (this.#whole !== null && offset + length <= this.#whole.length) {
      this.bytes = this.#whole;
      this.start = offset;
    } else if (chunk !== null && within + length <= CHUNK_BYTES) {
      this.bytes = chunk;
      this.start = within;
    } else {
      this.#gather(offset, length);
    }
  }

  /** Puts a value together that lies in several chunks, or in the file. */
  #gather(offset: number, length: number): void {
    if (this.#scratch.length < length) this.#scratch = new Uint8Array(length * 2);
    this.bytes = this.#scratch;
    this.start = 0;
    const fromFile = Math.max(0, Math.min(length, this.#spilledBytes - offset));
    if (fromFile > 0) {
      const file = this.#file as FileHandle;
      if (file.readSync(this.#scratch.subarray(0, fromFile), offset) < fromFile) throw short(file, offset);
    }
    for (let at = fromFile; at < length; ) {
      const number = Math.floor((offset + at) / CHUNK_BYTES);
      const within = offset + at - number * CHUNK_BYTES;
      const count = Math.min(CHUNK_BYTES - within, length - at);
      copyBytes(this.#chunks[number] as Uint8Array, within, this.#scratch, at, count);
      at += count;
    }
  }
}

function spilledBytes(content: EphemeralContent): number {
  const inMemory = content.chunks.findIndex((chunk) => chunk !== null);
  return (inMemory < 0 ? content.chunks.length : inMemory) * CHUNK_BYTES;
}

function short(file: FileHandle, offset: number): StrataError {
  return new StrataError("corrupt", "ephemeral-file-short", `${file.path} ends before the value at ${offset}`);
}

/** Writes everything as an L0 delta layer, synced; the caller syncs the directory. */
export async function writeFrozen(content: FrozenContent, target: LayerTarget, pacer: Pacer): Promise<WrittenLayer> {
  const values = await ValueSource.open(content.values, target);
  try {
    const writer = await DeltaLayerWriter.create(target);
    try {
      await writeRows(content, { values, writer, pacer });
      return await writer.finish({ start: KEY_MIN, end: KEY_MAX }, content.lsnRange);
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } finally {
    await values.close();
  }
}

async function writeRows({ columns, maxLsn }: FrozenContent, to: { values: ValueSource; writer: DeltaLayerWriter; pacer: Pacer }): Promise<void> {
  const { values, writer, pacer } = to;
  const { fields, heads, lsns, older, offsets, lengths, willInit } = columns;
  const rows = await sortedRows(columns, pacer);
  const versions: number[] = [];
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    let count = 0;
    for (let at = heads[row]; at >= 0; at = older[at]) if (lsns[at] <= maxLsn) versions[count++] = at;
    if (count > 0) writer.beginKey(fields, row);
    while (count > 0) {
      const at = versions[--count];
      values.find(offsets[at], lengths[at]);
      const wait = writer.putVersion(lsns[at], willInit[at] === 1, values.bytes, values.start, lengths[at]);
      if (wait !== undefined) await wait;
    }
    // The clock is not asked for every key.
    const wait = (i & 15) === 0 ? pacer.pause() : undefined;
    if (wait !== undefined) await wait;
  }
}
