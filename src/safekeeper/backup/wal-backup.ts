/**
 * WAL in object storage: whole segments, uploaded by one elected safekeeper of the timeline once they are committed, under
 * `<tenant>/<timeline>/<segment>`; the bytes are those of the local file. Where a reader wants a segment that is not on
 * this disk any more, it is fetched from there.
 *
 * Source: the peer safekeeper/src/wal_backup.rs.
 */
import { isStrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { downloadBytes, listAll, type RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { SafekeeperConfig } from "../config.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { missingSegment, openSegment, segmentName, segmentOf } from "../wal-store/segments.ts";
import { electOffloader } from "./elect-offloader.ts";
import { MemoryFile } from "./memory-file.ts";

/** Objects of one timeline that a deletion looks through. */
const MAX_OBJECTS = 1_000_000;

export interface WalBackupOptions {
  readonly storage: RemoteStorage;
  readonly files: FileSystem;
  readonly config: SafekeeperConfig;
  readonly metrics: SafekeeperMetrics;
  readonly signal: AbortSignal;
}

export class WalBackup {
  readonly #options: WalBackupOptions;
  /** Whose end is noticed. */
  readonly #watched = new WeakSet<Timeline>();

  constructor(options: WalBackupOptions) {
    this.#options = options;
  }

  /** Uploads what is due, when it is our turn; backup_lsn advances segment by segment. Returns how many were uploaded. */
  async backUp(timeline: Timeline): Promise<number> {
    const { volatile } = timeline.acceptor;
    const { walSegmentSizeBytes } = timeline.state;
    const upTo = segmentOf(volatile.commitLsn, walSegmentSizeBytes);
    let next = segmentOf(volatile.backupLsn, walSegmentSizeBytes);
    const elected = timeline.state.timelineStartLsn !== 0 && next < upTo && this.#isOurTurn(timeline);
    if (elected !== timeline.backingUp) this.#noteTurn(timeline, elected);
    if (!elected) return 0;
    const first = next;
    while (next < upTo && !timeline.signal.aborted && !this.#options.signal.aborted) {
      const batch = Array.from({ length: Math.min(upTo - next, this.#options.config.walBackupParallelJobs) }, (_, index) => next + index);
      await Promise.all(batch.map((segment) => this.#upload(timeline, segment)));
      next += batch.length;
      volatile.backupLsn = Math.max(volatile.backupLsn, next * walSegmentSizeBytes);
    }
    return next - first;
  }

  #noteTurn(timeline: Timeline, elected: boolean): void {
    const { metrics } = this.#options;
    timeline.backingUp = elected;
    if (!elected) return metrics.backupTasksFinished.inc();
    metrics.backupReelections.inc();
    metrics.backupTasksStarted.inc();
    if (this.#watched.has(timeline)) return;
    this.#watched.add(timeline);
    timeline.signal.addEventListener("abort", () => {
      if (timeline.backingUp) this.#noteTurn(timeline, false);
    }, { once: true });
  }

  #isOurTurn(timeline: Timeline): boolean {
    const own = timeline.info();
    const candidates = [own, ...timeline.alivePeers().filter((peer) => peer.safekeeperId !== own.safekeeperId)];
    const { backupLsn } = timeline.acceptor.volatile;
    return electOffloader(candidates, { backupLsn, maxLagBytes: this.#options.config.maxOffloaderLagBytes, timelineId: timeline.id.timelineId }) === own.safekeeperId;
  }

  async #upload(timeline: Timeline, segment: number): Promise<void> {
    const { storage, files, metrics, signal } = this.#options;
    const segmentSizeBytes = timeline.state.walSegmentSizeBytes;
    try {
      const open = await openSegment(files, timeline.directory, { segment, segmentSizeBytes, mode: "read" });
      if (open === null) throw missingSegment(segment, segmentSizeBytes, timeline.directory);
      const bytes = new Uint8Array(segmentSizeBytes);
      try {
        // Committed to its end, so complete: anything less must not become the backup.
        if (open.partial || (await open.file.read(bytes, 0)) !== segmentSizeBytes) throw missingSegment(segment, segmentSizeBytes, timeline.directory);
      } finally {
        await open.file.close();
      }
      await storage.upload(keyOf(timeline.id, segment, segmentSizeBytes), { bytes }, { signal });
      metrics.backedUpSegments.inc();
    } catch (error) {
      metrics.backupErrors.inc();
      throw error;
    }
  }

  /** A segment as it is in object storage; null when it is not there. */
  async fetch(id: TenantTimelineId, segment: number, segmentSizeBytes: number): Promise<FileHandle | null> {
    const key = keyOf(id, segment, segmentSizeBytes);
    try {
      return new MemoryFile(key, await downloadBytes(this.#options.storage, key, { maxBytes: segmentSizeBytes, signal: this.#options.signal }));
    } catch (error) {
      if (isStrataError(error, "object-not-found")) return null;
      throw error;
    }
  }

  /** Whole segments of one timeline, also for another. */
  async copySegments(from: TenantTimelineId, to: TenantTimelineId, names: readonly string[]): Promise<void> {
    const { storage, config, signal } = this.#options;
    for (let at = 0; at < names.length; at += config.walBackupParallelJobs) {
      await Promise.all(names.slice(at, at + config.walBackupParallelJobs).map((name) => storage.copy(`${from.tenantId}/${from.timelineId}/${name}`, `${to.tenantId}/${to.timelineId}/${name}`, { signal })));
    }
  }

  /** All of a timeline's objects, after it was deleted for good. */
  async deleteAll(id: TenantTimelineId): Promise<void> {
    const { storage, signal } = this.#options;
    const { objects } = await listAll(storage, { prefix: `${id.tenantId}/${id.timelineId}/`, maxTotal: MAX_OBJECTS, signal });
    await storage.delete(objects.map((object) => object.key), { signal });
  }
}

function keyOf(id: TenantTimelineId, segment: number, segmentSizeBytes: number): string {
  return `${id.tenantId}/${id.timelineId}/${segmentName(segment, segmentSizeBytes)}`;
}

/** Whether anything is to be uploaded by anyone: then the timeline stays active, for its peers must know. */
export function backupIsBehind(timeline: Timeline): boolean {
  const { commitLsn, backupLsn }: { commitLsn: Lsn; backupLsn: Lsn } = timeline.acceptor.volatile;
  return segmentOf(commitLsn, timeline.state.walSegmentSizeBytes) > segmentOf(backupLsn, timeline.state.walSegmentSizeBytes);
}
