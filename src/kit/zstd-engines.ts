/**
 * The two implementations behind `zstd.ts`: the runtime's native code, and the WebAssembly of zstd-codec for runtimes that
 * have none (Node before 22.15), where our client modules run as well.
 *
 * zstd-codec aborts at 8 MiB and allocates what a frame claims, so that engine takes only frames that state their size,
 * and inputs of at most `CODEC_MAX_BYTES`.
 */
import * as zlib from "node:zlib";
import { StrataError } from "./errors.ts";
import { areWholeZstdFrames, zstdContentSize } from "./zstd-frame.ts";

export interface ZstdEngine {
  readonly name: "native" | "zstd-codec";
  /** One frame. @param level 1 (fast) to 22 */
  compress(bytes: Uint8Array, level: number): Uint8Array;
  /** @throws any error when `bytes` are not frames of at most `maxBytes` decompressed */
  decompress(bytes: Uint8Array, maxBytes: number): Uint8Array;
}

const BUN_LEVEL_MAX = 22;
export const CODEC_MAX_BYTES = 4 * 1024 * 1024;

/** Null where the runtime has no zstd. */
export function nativeEngine(): ZstdEngine | null {
  const { zstdCompressSync, zstdDecompressSync, constants } = zlib as Partial<typeof zlib> & Pick<typeof zlib, "constants">;
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined) return null;
  return {
    name: "native",
    compress(bytes, level) {
      // The same frames in half the time, of a page.
      if (typeof Bun !== "undefined" && level >= 1 && level <= BUN_LEVEL_MAX) return Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>, { level });
      return zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: level } });
    },
    decompress(bytes, maxBytes) {
      const size = zstdContentSize(bytes);
      // Eight times quicker than node:zlib for a page, but it allocates what the frame claims: so only when that is in bounds.
      if (typeof Bun !== "undefined" && size >= 0 && size <= maxBytes) return Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>);
      // node:zlib gives what it has of a frame that is cut short, without a word.
      if (!areWholeZstdFrames(bytes)) throw new StrataError("corrupt", "bad-zstd", "not whole frames");
      return zstdDecompressSync(bytes, { maxOutputLength: maxBytes });
    },
  };
}

interface CodecBinding {
  readonly Simple: new () => { compress(bytes: Uint8Array, level: number): Uint8Array | null; decompress(bytes: Uint8Array): Uint8Array | null };
}

function bounded(size: number, maxBytes: number, what: string): void {
  if (size > Math.min(maxBytes, CODEC_MAX_BYTES)) throw new StrataError("fix-input", "zstd-too-large", `${what} of ${size} bytes is more than zstd-codec takes here (${Math.min(maxBytes, CODEC_MAX_BYTES)})`);
}

/** Loads the WebAssembly once; about 1 MB. */
export async function codecEngine(): Promise<ZstdEngine> {
  const { ZstdCodec } = await import("zstd-codec");
  const binding = await new Promise<CodecBinding>((resolve) => ZstdCodec.run(resolve));
  const simple = new binding.Simple();
  return {
    name: "zstd-codec",
    compress(bytes, level) {
      bounded(bytes.length, CODEC_MAX_BYTES, "an input");
      const frame = simple.compress(bytes, level);
      if (frame === null) throw new StrataError("unavailable", "zstd-failed", `zstd-codec could not compress ${bytes.length} bytes`);
      return frame;
    },
    decompress(bytes, maxBytes) {
      const size = zstdContentSize(bytes);
      if (size < 0) throw new StrataError("corrupt", "bad-zstd", "not one whole frame that states its size");
      bounded(size, maxBytes, "a frame");
      if (size === 0) return new Uint8Array(0);
      const plain = simple.decompress(bytes);
      if (plain === null || plain.length !== size) throw new StrataError("corrupt", "bad-zstd", "zstd-codec refuses the frame");
      return plain;
    },
  };
}
