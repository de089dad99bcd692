/** How a disk behaves: its latency, and what of its operations fails. */
import type { DiskFaults, DiskOperationKind } from "../../../src/platform/virtual/virtual-disk.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";

export interface DiskTrouble {
  readonly error: "io-error" | "disk-full" | null;
  readonly kinds: readonly DiskOperationKind[];
  /** Of those operations, how many fail. */
  readonly share: number;
  readonly syncMaxMs?: number;
}

const SYNC_MAX_MS = 3;

export function baseDisk(random: SeededRandom): DiskFaults {
  return { latencyMs: ({ kind }) => (kind === "sync" || kind === "sync-directory" ? 0.1 + random.float() * SYNC_MAX_MS : 0) };
}

export function failingDisk(random: SeededRandom, trouble: DiskTrouble): DiskFaults {
  const { error, kinds, share, syncMaxMs = SYNC_MAX_MS } = trouble;
  return {
    fail: ({ kind }) => (error !== null && kinds.includes(kind) && random.chance(share) ? error : undefined),
    latencyMs: ({ kind }) => (kind === "sync" || kind === "sync-directory" ? 0.1 + random.float() * syncMaxMs : 0),
  };
}
