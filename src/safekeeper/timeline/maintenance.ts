/**
 * What a timeline needs done from time to time, off the path of its WAL: its control file saved, old segments removed,
 * its being active kept up to date.
 * Source: the peer safekeeper/src/timeline_manager.rs.
 */
import { backupIsBehind } from "../backup/wal-backup.ts";
import type { SafekeeperConfig } from "../config.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { segmentOf } from "../wal-store/segments.ts";
import { walRemovalHorizon } from "./horizon.ts";
import type { Timeline } from "./timeline.ts";

export interface MaintenanceOptions {
  readonly config: SafekeeperConfig;
  readonly metrics: SafekeeperMetrics;
  readonly backupEnabled: boolean;
  readonly nowMs: number;
}

const COMMIT_REST_MS = 1000;

/** One round for one timeline. Failures are logged: the next round tries again. */
export async function maintain(timeline: Timeline, options: MaintenanceOptions): Promise<void> {
  if (timeline.gate.isClosed) return;
  const leave = timeline.gate.enter();
  options.metrics.managerIterations.inc();
  try {
    updateActive(timeline, options);
    if (shouldSave(timeline, options)) await timeline.save();
    await removeOldWal(timeline, options);
  } catch (error) {
    if (timeline.store.failure === null) timeline.log.warn("timeline maintenance failed", { error });
  } finally {
    leave();
  }
}

function updateActive(timeline: Timeline, options: MaintenanceOptions): void {
  const { volatile } = timeline.acceptor;
  // Peers' positions also tell what is committed when no proposer does.
  const active = timeline.receivers.count.value > 0 || volatile.commitLsn < timeline.acceptor.flushLsn || volatile.remoteConsistentLsn < volatile.commitLsn || (options.backupEnabled && backupIsBehind(timeline));
  if (active === timeline.active) return;
  timeline.active = active;
  options.metrics.managerActiveChanges.inc();
  timeline.log.info(active ? "timeline is active" : "timeline is idle", { commitLsn: volatile.commitLsn, remoteConsistentLsn: volatile.remoteConsistentLsn });
}

/**
 * At once when a restart would have to look through more than a segment for the end of the log; soon when commits have come to
 * rest, for nobody tells a restart what was committed before the next proposer does; else now and then.
 */
function shouldSave(timeline: Timeline, options: MaintenanceOptions): boolean {
  const { state, acceptor } = timeline;
  const { volatile } = acceptor;
  const pending = (["commitLsn", "backupLsn", "peerHorizonLsn", "remoteConsistentLsn"] as const).filter((key) => volatile[key] > state[key]);
  if (pending.length === 0 || timeline.store.failure !== null) return false;
  if (pending.some((key) => volatile[key] - state[key] >= state.walSegmentSizeBytes)) return true;
  if (commitRests(timeline, options.nowMs) && volatile.commitLsn > state.commitLsn) return true;
  return options.nowMs - timeline.lastPersistMs >= options.config.controlFileSaveIntervalMs;
}

function commitRests(timeline: Timeline, nowMs: number): boolean {
  const { commitLsn } = timeline.acceptor.volatile;
  if (timeline.restingCommit.lsn !== commitLsn) timeline.restingCommit = { lsn: commitLsn, sinceMs: nowMs };
  return nowMs - timeline.restingCommit.sinceMs >= COMMIT_REST_MS;
}

async function removeOldWal(timeline: Timeline, options: MaintenanceOptions): Promise<void> {
  if (timeline.walRemovalHolds > 0) return;
  const { state, acceptor } = timeline;
  const horizon = walRemovalHorizon({
    persisted: state,
    flushLsn: acceptor.flushLsn,
    backupEnabled: options.backupEnabled,
    readersLsn: options.config.walSendersKeepHorizon ? timeline.senders.leastPositionLsn : null,
  });
  const below = segmentOf(horizon, state.walSegmentSizeBytes);
  if (below <= timeline.removedBelowSegment) return;
  const removed = await timeline.store.removeBefore(below);
  timeline.removedBelowSegment = below;
  if (removed > 0) timeline.log.info("old WAL segments removed", { removed, horizon });
}
