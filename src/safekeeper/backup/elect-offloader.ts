/**
 * Which safekeeper uploads a timeline's WAL: every one computes the same answer from what the broker told all of them.
 * When they disagree for a moment two upload the same bytes under the same name, which does no harm.
 * Source: the peer safekeeper/src/wal_backup.rs (determine_offloader).
 */
import type { NodeId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";

export interface OffloadCandidate {
  readonly safekeeperId: NodeId;
  readonly commitLsn: Lsn;
  /** It has WAL from here on. */
  readonly localStartLsn: Lsn;
}

/** Null when no candidate has the WAL that comes next. Timelines are spread over the candidates by their id. */
export function electOffloader(candidates: readonly OffloadCandidate[], options: { readonly backupLsn: Lsn; readonly maxLagBytes: number; readonly timelineId: TimelineId }): NodeId | null {
  const capable = candidates.filter((candidate) => candidate.localStartLsn <= options.backupLsn);
  const threshold = Math.max(...capable.map((candidate) => candidate.commitLsn)) - options.maxLagBytes;
  const ids = [...new Set(capable.filter((candidate) => candidate.commitLsn >= threshold).map((candidate) => candidate.safekeeperId))].sort((a, b) => a - b);
  return ids.length === 0 ? null : ids[Number(BigInt(`0x${options.timelineId}`) % BigInt(ids.length))];
}
