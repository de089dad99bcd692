/**
 * WAL that the local server has flushed, for whoever needs to be sent it: the newest of it in memory, the rest from the
 * server's own segment files, which a physical slot keeps from being removed (within its bound).
 *
 * A busy server flushes commit by commit and sends as many small pieces; here they come to lie one behind the other in a slab, so
 * that what a safekeeper is sent next is all that there is, in one message.
 *
 * Invariant: the buffer is one unbroken range that ends at `endLsn`. Bytes of a slab are written once: views of it stay true.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileSystem } from "../../platform/files.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { walSegmentName } from "../../postgres/wal/segment-name.ts";

export interface LocalWalOptions {
  readonly files: FileSystem;
  /** `pg_wal` of the data directory. */
  readonly walDirectory: string;
  readonly segmentSizeBytes: number;
  readonly startLsn: Lsn;
  /** 32 MiB unless given. */
  readonly bufferMaxBytes?: number;
}

interface Chunk {
  readonly lsn: Lsn;
  /** Grows while it lies at the end of the slab. */
  bytes: Uint8Array;
}

const BUFFER_MAX_BYTES = 32 * 1024 * 1024;
const SLAB_BYTES = 256 * 1024;
/** Pieces up to this size are copied into the slab; larger ones stay as they are. */
const COPY_UP_TO_BYTES = 32 * 1024;
const PAGE_ADDRESS_OFFSET = 8;
const POSTGRES_TIMELINE = 1;

export class LocalWal {
  readonly #options: LocalWalOptions;
  readonly #bufferMaxBytes: number;
  #chunks: Chunk[] = [];
  /** Chunks before this index are dropped already; cut off now and then, not at every eviction. */
  #head = 0;
  #bufferedBytes = 0;
  readonly #slabBytes: number;
  #slab: Uint8Array;
  #slabUsed = 0;
  /** The newest chunk ends where the slab's free space begins. */
  #lastInSlab = false;
  #endLsn: Lsn;

  constructor(options: LocalWalOptions) {
    this.#options = options;
    this.#bufferMaxBytes = options.bufferMaxBytes ?? BUFFER_MAX_BYTES;
    this.#slabBytes = Math.min(SLAB_BYTES, this.#bufferMaxBytes);
    this.#slab = new Uint8Array(this.#slabBytes);
    this.#endLsn = options.startLsn;
  }

  get endLsn(): Lsn {
    return this.#endLsn;
  }

  /** Adds WAL that follows what is here. @throws StrataError corrupt `wal-not-continuous` */
  append(lsn: Lsn, bytes: Uint8Array): void {
    if (lsn !== this.#endLsn) {
      throw new StrataError("corrupt", "wal-not-continuous", `the server sent WAL at ${lsnToString(lsn)}, ${lsnToString(this.#endLsn)} was next`);
    }
    if (bytes.length <= Math.min(COPY_UP_TO_BYTES, this.#slabBytes)) this.#copyIn(lsn, bytes);
    else {
      // A small view would keep a whole receive buffer alive.
      this.#chunks.push({ lsn, bytes: bytes.buffer.byteLength > 2 * bytes.length ? bytes.slice() : bytes });
      this.#lastInSlab = false;
    }
    this.#bufferedBytes += bytes.length;
    this.#endLsn += bytes.length;
    while (this.#bufferedBytes > this.#bufferMaxBytes && this.#head < this.#chunks.length - 1) {
      this.#bufferedBytes -= this.#chunks[this.#head].bytes.length;
      this.#head++;
    }
    if (this.#head > 1024) {
      this.#chunks = this.#chunks.slice(this.#head);
      this.#head = 0;
    }
  }

  #copyIn(lsn: Lsn, bytes: Uint8Array): void {
    if (this.#slabUsed + bytes.length > this.#slabBytes) {
      this.#slab = new Uint8Array(this.#slabBytes);
      this.#slabUsed = 0;
      this.#lastInSlab = false;
    }
    const at = this.#slabUsed;
    this.#slab.set(bytes, at);
    this.#slabUsed += bytes.length;
    const last = this.#chunks.at(-1);
    if (this.#lastInSlab && last !== undefined) last.bytes = this.#slab.subarray(at - last.bytes.length, this.#slabUsed);
    else this.#chunks.push({ lsn, bytes: this.#slab.subarray(at, this.#slabUsed) });
    this.#lastInSlab = true;
  }

  /** Up to `maxBytes` from `lsn` on, at least one; null when this server does not have them (any more). */
  async read(lsn: Lsn, maxBytes: number): Promise<Uint8Array | null> {
    if (lsn < this.#options.startLsn || lsn >= this.#endLsn) return null;
    return this.buffered(lsn, maxBytes) ?? (await this.#fromFile(lsn, Math.min(maxBytes, this.#endLsn - lsn)));
  }

  /** The same of what is in memory; null when it begins elsewhere. */
  buffered(lsn: Lsn, maxBytes: number): Uint8Array | null {
    if (lsn >= this.#endLsn) return null;
    const newest = this.#chunks.at(-1);
    if (newest !== undefined && newest.lsn <= lsn) return newest.bytes.subarray(lsn - newest.lsn, Math.min(newest.bytes.length, lsn - newest.lsn + maxBytes));
    let low = this.#head;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const chunk = this.#chunks[middle];
      if (chunk.lsn + chunk.bytes.length <= lsn) low = middle + 1;
      else high = middle;
    }
    const chunk = this.#chunks[low];
    if (chunk === undefined || chunk.lsn > lsn) return null;
    return chunk.bytes.subarray(lsn - chunk.lsn, Math.min(chunk.bytes.length, lsn - chunk.lsn + maxBytes));
  }

  async #fromFile(lsn: Lsn, wantedBytes: number): Promise<Uint8Array | null> {
    const { files, walDirectory, segmentSizeBytes } = this.#options;
    const inSegment = lsn % segmentSizeBytes;
    // Whole pages, so that their headers tell whether the file is still the segment it is called after.
    const from = inSegment - (inSegment % WAL_PAGE_SIZE);
    const end = Math.min(segmentSizeBytes, inSegment + wantedBytes);
    const bytes = new Uint8Array(end - from);
    const path = `${walDirectory}/${walSegmentName({ timelineId: POSTGRES_TIMELINE, lsn, segmentSize: segmentSizeBytes })}`;
    if (!(await files.exists(path))) return null;
    const file = await files.open(path, "read");
    try {
      if ((await file.read(bytes, from)) < bytes.length) return null;
    } finally {
      await file.close();
    }
    if (!hasPageAddresses(bytes, lsn - inSegment + from)) return null;
    return bytes.subarray(inSegment - from);
  }
}

/** A segment that was recycled under us carries the addresses of another place, or of none. */
function hasPageAddresses(bytes: Uint8Array, lsn: Lsn): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + PAGE_ADDRESS_OFFSET + 8 <= bytes.length; at += WAL_PAGE_SIZE) {
    if (view.getBigUint64(at + PAGE_ADDRESS_OFFSET, true) !== BigInt(lsn + at)) return false;
  }
  return true;
}
