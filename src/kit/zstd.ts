/** Zstandard frames, RFC 8878: by the runtime's native code, or by zstd-codec where it has none (`zstd-engines.ts`). */
import { StrataError } from "./errors.ts";
import { codecEngine, nativeEngine } from "./zstd-engines.ts";

const engine = nativeEngine() ?? (await codecEngine());

/** One frame. @param level 1 (fast) to 22; 1 suits single pages, 3 larger pieces */
export function zstdCompress(bytes: Uint8Array, level: number): Uint8Array {
  return engine.compress(bytes, level);
}

/** @throws StrataError corrupt `bad-zstd` for anything that is not frames of at most `maxBytes` decompressed */
export function zstdDecompress(bytes: Uint8Array, maxBytes: number): Uint8Array {
  try {
    return engine.decompress(bytes, maxBytes);
  } catch (error) {
    throw new StrataError("corrupt", "bad-zstd", `${bytes.length} bytes are not a zstd frame of at most ${maxBytes} bytes`, { cause: error });
  }
}
