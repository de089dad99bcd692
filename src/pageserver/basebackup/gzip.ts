/**
 * Compresses a stream of pieces into one gzip member, no faster than the result is taken. Pieces that are `ZEROS` (zeros.ts) are
 * packed once and for all: what comes between is deflated by itself, and ends at a byte without a last block, so that the
 * parts are one deflate stream.
 *
 * | part | content |
 * | --- | --- |
 * | header | 1F 8B, method 8, no flags, no time, 0, system 3 |
 * | parts | deflate blocks, each part ended by a full flush |
 * | end | 03 00: an empty last block |
 * | trailer | CRC-32 and length modulo 2^32 of the content, little-endian |
 *
 * Source: RFC 1951, RFC 1952.
 */
import { constants, crc32, createDeflateRaw, deflateRawSync, type ZlibOptions } from "node:zlib";
import { ZEROS } from "./zeros.ts";

/** The lowest level that packs runs of zeros a thousandfold: for archives that are mostly an empty WAL segment. */
export const GZIP_SMALL = 4;
/** For archives with relations, where time counts. */
export const GZIP_FAST = 1;

/** What may wait to be compressed while the next pieces are read, and how much comes out at once. */
const INPUT_WAITING_BYTES = 4 * 1024 * 1024;
const OUTPUT_BYTES = 256 * 1024;
const HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3);
const LAST_BLOCK = Uint8Array.of(0x03, 0x00);
const packedZeros = new Map<number, Uint8Array>();

function zerosAt(level: number): Uint8Array {
  const known = packedZeros.get(level);
  if (known !== undefined) return known;
  const packed = new Uint8Array(deflateRawSync(ZEROS, { level, finishFlush: constants.Z_FULL_FLUSH }));
  packedZeros.set(level, packed);
  return packed;
}

/** The pieces one after the other, and what the trailer says of them. */
class Pieces {
  /** Null: there are no more. */
  current: Uint8Array | null = null;
  readonly #source: AsyncIterator<Uint8Array>;
  #crc = 0;
  #sizeBytes = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async advance(): Promise<void> {
    const next = await this.#source.next();
    this.current = next.done === true ? null : next.value;
    if (this.current === null) return;
    this.#crc = crc32(this.current, this.#crc);
    this.#sizeBytes += this.current.length;
  }

  /** From the current one to those that are not packed already. */
  async *otherThanZeros(): AsyncGenerator<Uint8Array> {
    for (; this.current !== null && this.current !== ZEROS; await this.advance()) yield this.current;
  }

  trailer(): Uint8Array {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.#crc, true);
    view.setUint32(4, this.#sizeBytes % 0x1_0000_0000, true);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}

export async function* gzipped(pieces: AsyncIterable<Uint8Array>, level: number): AsyncGenerator<Uint8Array> {
  const source = new Pieces(pieces);
  try {
    yield HEADER;
    await source.advance();
    while (source.current !== null) {
      if (source.current === ZEROS) {
        yield zerosAt(level);
        await source.advance();
      } else {
        yield* deflated(source.otherThanZeros(), level);
      }
    }
    yield LAST_BLOCK;
    yield source.trailer();
  } finally {
    await source.close();
  }
}

async function* deflated(pieces: AsyncIterable<Uint8Array>, level: number): AsyncGenerator<Uint8Array> {
  const deflate = createDeflateRaw({ level, chunkSize: OUTPUT_BYTES, writableHighWaterMark: INPUT_WAITING_BYTES, finishFlush: constants.Z_FULL_FLUSH } as ZlibOptions);
  const feed = async (): Promise<void> => {
    for await (const piece of pieces) {
      if (deflate.destroyed) return;
      if (!deflate.write(piece)) await writable(deflate);
    }
    deflate.end();
  };
  const feeding = feed().catch((error: Error) => {
    deflate.destroy(error);
    throw error;
  });
  feeding.catch(() => {});
  try {
    for await (const chunk of deflate) yield chunk as Uint8Array;
    await feeding;
  } finally {
    deflate.destroy();
  }
}

function writable(deflate: ReturnType<typeof createDeflateRaw>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      deflate.off("drain", done);
      deflate.off("close", done);
      resolve();
    };
    deflate.on("drain", done);
    deflate.on("close", done);
  });
}
