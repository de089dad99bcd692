/**
 * How much WAL a timeline must keep. Segments wholly below the horizon may go from this disk.
 * Source: the peer safekeeper/src/remove_wal.rs.
 */
import type { Lsn } from "../../kit/lsn.ts";

export interface HorizonInput {
  /** As persisted: what a restart would know. */
  readonly persisted: { readonly commitLsn: Lsn; readonly backupLsn: Lsn; readonly remoteConsistentLsn: Lsn; readonly peerHorizonLsn: Lsn };
  readonly flushLsn: Lsn;
  /** With a backup, lagging peers fetch from there; without, from us. */
  readonly backupEnabled: boolean;
  /** The least position of connected readers, when they are to be waited for. */
  readonly readersLsn: Lsn | null;
}

export function walRemovalHorizon(input: HorizonInput): Lsn {
  const { commitLsn, backupLsn, remoteConsistentLsn, peerHorizonLsn } = input.persisted;
  return Math.min(
    // The pageserver could not rebuild itself from less.
    remoteConsistentLsn,
    // The search for the end of the log starts here after a restart.
    commitLsn,
    input.flushLsn,
    input.backupEnabled ? backupLsn : peerHorizonLsn,
    input.readersLsn ?? Number.POSITIVE_INFINITY,
  );
}
