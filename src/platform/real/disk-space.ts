/** How full a file system is. */
import { statfsSync } from "node:fs";

export interface DiskSpace {
  readonly totalBytes: number;
  /** What is not used, as `df` counts. */
  readonly freeBytes: number;
  /** Of that, what is not reserved for root. */
  readonly availableBytes: number;
}

/** Of the file system that `path` is on. @throws the system's error when there is no such path */
export function diskSpace(path: string): DiskSpace {
  const { bsize, blocks, bfree, bavail } = statfsSync(path);
  return { totalBytes: blocks * bsize, freeBytes: bfree * bsize, availableBytes: bavail * bsize };
}
