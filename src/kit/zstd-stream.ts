/**
 * Zstandard for what is too large to be held whole: one frame, made and read piece by piece on the runtime's pool, so that the loop
 * goes on meanwhile. Memory: the encoder's window (2 MiB at level 3), the decoder's of the frame, at most 128 MiB.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as zlib from "node:zlib";
import { StrataError } from "./errors.ts";

const WINDOW_LOG_MAX = 27;

/** One frame with a checksum. @param level 1 (fast) to 19 @throws what `parts` throws */
export async function* zstdCompressStream(parts: AsyncIterable<Uint8Array>, level: number): AsyncGenerator<Uint8Array> {
  const { ZSTD_c_compressionLevel, ZSTD_c_checksumFlag } = zlib.constants;
  yield* through(parts, zlib.createZstdCompress({ params: { [ZSTD_c_compressionLevel]: level, [ZSTD_c_checksumFlag]: 1 } }));
}

/**
 * What frames hold; the chunks belong to the consumer.
 * @throws StrataError corrupt `bad-zstd` for anything that is not frames, and as soon as they hold more than `maxBytes`. Frames that
 *  are cut short may go unnoticed: see `areWholeZstdFrames`
 */
export async function* zstdDecompressStream(parts: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  const decoder = zlib.createZstdDecompress({ params: { [zlib.constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX } });
  let total = 0;
  try {
    for await (const chunk of through(parts, decoder)) {
      total += chunk.length;
      if (total > maxBytes) throw new StrataError("corrupt", "bad-zstd", `more than ${maxBytes} bytes decompressed`);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Error && !(error instanceof StrataError) && isZstdError(error)) throw new StrataError("corrupt", "bad-zstd", "not zstd frames", { cause: error });
    throw error;
  }
}

/** What is raised by the decoder itself, not by where its bytes come from or go to. */
function isZstdError(error: Error & { code?: unknown }): boolean {
  return typeof error.code === "string" && (error.code.startsWith("ZSTD_") || error.code.startsWith("Z_") || error.code.startsWith("ERR_Z"));
}

async function* through(parts: AsyncIterable<Uint8Array>, codec: zlib.ZstdCompress | zlib.ZstdDecompress): AsyncGenerator<Uint8Array> {
  const feeding = pipeline(Readable.from(parts), codec);
  feeding.catch(() => {});
  try {
    for await (const chunk of codec) yield chunk as Uint8Array;
    await feeding;
  } finally {
    codec.destroy();
  }
}
