/** Zstandard frames, RFC 8878, by the runtime's native code. */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { StrataError } from "./errors.ts";
import { zstdContentSize } from "./zstd-frame.ts";

/** One frame. @param level 1 (fast) to 22; 1 suits single pages, 3 larger pieces */
export function zstdCompress(bytes: Uint8Array, level: number): Uint8Array {
  return zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: level } });
}

/** @throws StrataError corrupt `bad-zstd` for anything that is not frames of at most `maxBytes` decompressed */
export function zstdDecompress(bytes: Uint8Array, maxBytes: number): Uint8Array {
  try {
    // Eight times quicker than node:zlib for a page, but it allocates what the frame claims: so only when that is in bounds.
    if (typeof Bun !== "undefined" && isBelow(zstdContentSize(bytes), maxBytes)) return Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>);
    return zstdDecompressSync(bytes, { maxOutputLength: maxBytes });
  } catch (error) {
    throw new StrataError("corrupt", "bad-zstd", `${bytes.length} bytes are not a zstd frame of at most ${maxBytes} bytes`, { cause: error });
  }
}

function isBelow(size: number, maxBytes: number): boolean {
  return size >= 0 && size <= maxBytes;
}
