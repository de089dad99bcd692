/** What the runtime tells of its heap. */
import { heapStats } from "bun:jsc";

export interface HeapTotals {
  readonly objectBytes: number;
  readonly externalBytes: number;
  readonly countsByType: Readonly<Record<string, number>>;
}

/** Takes some milliseconds. */
export function heapTotals(): HeapTotals {
  const { heapSize, extraMemorySize, objectTypeCounts } = heapStats();
  return { objectBytes: Math.max(0, heapSize - extraMemorySize), externalBytes: extraMemorySize, countsByType: objectTypeCounts };
}

/** All objects and what holds them, in V8's format. Nothing else runs meanwhile: seconds for a large heap. */
export function heapSnapshot(): string {
  return Bun.generateHeapSnapshot("v8");
}
