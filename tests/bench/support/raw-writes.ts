/** What the disk allows: a bare loop of writes at the end of a file, each followed by fdatasync or not. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { median } from "./processes.ts";

export interface RawWrites {
  readonly writes: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Of one write and its fdatasync. */
  readonly medianUs: number;
}

export function rawWrites(directory: string, options: { readonly sizeBytes: number; readonly sync: boolean; readonly seconds: number; readonly maxBytes: number }): RawWrites {
  const path = join(directory, "raw");
  const fd = openSync(path, "w");
  const bytes = new Uint8Array(options.sizeBytes).fill(7);
  const start = performance.now();
  let writes = 0;
  const latencies: number[] = [];
  try {
    while (performance.now() - start < options.seconds * 1000 && writes * options.sizeBytes < options.maxBytes) {
      const before = performance.now();
      writeSync(fd, bytes);
      if (options.sync) fdatasyncSync(fd);
      latencies.push(performance.now() - before);
      writes++;
    }
  } finally {
    closeSync(fd);
    rmSync(path);
  }
  return { writes, bytes: writes * options.sizeBytes, seconds: (performance.now() - start) / 1000, medianUs: median(latencies) * 1000 };
}
