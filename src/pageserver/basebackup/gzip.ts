/** Compresses a stream of pieces, no faster than the result is taken. */
import { createGzip, type ZlibOptions } from "node:zlib";

/** The lowest level that packs runs of zeros a thousandfold: for archives that are mostly an empty WAL segment. */
export const GZIP_SMALL = 4;
/** For archives with relations, where time counts. */
export const GZIP_FAST = 1;

/** What may wait to be compressed while the next pieces are read, and how much comes out at once. */
const INPUT_WAITING_BYTES = 4 * 1024 * 1024;
const OUTPUT_BYTES = 256 * 1024;

export async function* gzipped(pieces: AsyncIterable<Uint8Array>, level: number): AsyncGenerator<Uint8Array> {
  const gzip = createGzip({ level, chunkSize: OUTPUT_BYTES, writableHighWaterMark: INPUT_WAITING_BYTES } as ZlibOptions);
  const feed = async (): Promise<void> => {
    for await (const piece of pieces) {
      if (gzip.destroyed) return;
      if (!gzip.write(piece)) await writable(gzip);
    }
    gzip.end();
  };
  const feeding = feed().catch((error: Error) => {
    gzip.destroy(error);
    throw error;
  });
  feeding.catch(() => {});
  try {
    for await (const chunk of gzip) yield chunk as Uint8Array;
    await feeding;
  } finally {
    gzip.destroy();
  }
}

function writable(gzip: ReturnType<typeof createGzip>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      gzip.off("drain", done);
      gzip.off("close", done);
      resolve();
    };
    gzip.on("drain", done);
    gzip.on("close", done);
  });
}
