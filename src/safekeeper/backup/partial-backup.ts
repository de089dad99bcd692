/**
 * The unfinished last segment in object storage: every safekeeper uploads its own, when the timeline has not changed
 * segments for `--partial-backup-timeout`, so that a timeline at rest is whole there. Its name says what it holds:
 *
 *     <segment>_<term>_<flush LSN, 16 hex digits>_<commit LSN, 16 hex digits>_sk<node id>.partial
 *
 * The control file names every object that may exist, before it exists: `in-progress` while it goes up, `uploaded` for the
 * one that counts, `deleting` for those it replaced. So a crash leaves nothing that would never be removed.
 *
 * Source: the peer safekeeper/src/wal_backup_partial.rs.
 */
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { Random } from "../../platform/random.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { SafekeeperConfig } from "../config.ts";
import type { PartialRemoteSegment } from "../control-file/state.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { missingSegment, openSegment, PARTIAL_SUFFIX, segmentName, segmentOf } from "../wal-store/segments.ts";

/** What the name of such an object says. */
export interface PartialName {
  readonly name: string;
  readonly term: number;
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly nodeId: number;
}

/** Null for the name of anything else. */
export function parsePartialName(name: string): PartialName | null {
  const match = /^[0-9A-F]{24}_(\d{1,16})_([0-9A-F]{16})_([0-9A-F]{16})_sk(\d{1,16})\.partial$/.exec(name);
  if (match === null) return null;
  const [term, flushLsn, commitLsn, nodeId] = [Number(match[1]), Number.parseInt(match[2], 16), Number.parseInt(match[3], 16), Number(match[4])];
  return [term, flushLsn, commitLsn, nodeId].every(Number.isSafeInteger) ? { name, term, flushLsn, commitLsn, nodeId } : null;
}

export interface PartialBackupOptions {
  readonly storage: RemoteStorage;
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly random: Random;
  readonly config: SafekeeperConfig;
  readonly metrics: SafekeeperMetrics;
  readonly signal: AbortSignal;
}

interface Wait {
  readonly segment: number;
  readonly dueMs: number;
}

export class PartialBackup {
  readonly #options: PartialBackupOptions;
  readonly #waits = new WeakMap<Timeline, Wait>();

  constructor(options: PartialBackupOptions) {
    this.#options = options;
  }

  /** Whether the timeline's last segment is to be uploaded now. Asked for regularly: it counts the time. */
  isDue(timeline: Timeline): boolean {
    const { clock, random, config } = this.#options;
    const segment = segmentOf(timeline.acceptor.flushLsn, timeline.state.walSegmentSizeBytes);
    if (!needsUpload(timeline)) return false;
    const wait = this.#waits.get(timeline);
    if (wait?.segment === segment) return clock.monotonicMs() >= wait.dueMs;
    // After a start all timelines are found at once: spread over the time.
    const delayMs = wait === undefined ? random.float() * config.partialBackupTimeoutMs : config.partialBackupTimeoutMs;
    this.#waits.set(timeline, { segment, dueMs: clock.monotonicMs() + delayMs });
    return false;
  }

  /** Uploads it, then removes what it replaces. */
  async upload(timeline: Timeline): Promise<void> {
    const { metrics, clock, config } = this.#options;
    const prepared = this.#describe(timeline);
    const { flushLsn } = prepared;
    this.#waits.set(timeline, { segment: segmentOf(flushLsn, timeline.state.walSegmentSizeBytes), dueMs: clock.monotonicMs() + config.partialBackupTimeoutMs });
    try {
      // An upload that broke off may have left objects behind under other names.
      await this.#collect(timeline);
      const before = timeline.state.partialBackup;
      await this.#save(timeline, [...before, { ...prepared, status: "in-progress" }]);
      const startMs = clock.monotonicMs();
      await this.#send(timeline, prepared);
      metrics.miscOperation.with("partial_do_upload").recordMs(clock.monotonicMs() - startMs);
      await this.#save(timeline, [...before.map((segment) => ({ ...segment, status: "deleting" as const })), { ...prepared, status: "uploaded" }]);
      await this.#collect(timeline);
      metrics.partialUploads.with("ok").inc();
    } catch (error) {
      metrics.partialUploads.with("error").inc();
      throw error;
    }
  }

  /** Removes all that is there, and forgets it when it is gone: for an operator's hand. Returns the names. */
  async reset(timeline: Timeline): Promise<string[]> {
    const doomed = timeline.state.partialBackup.map((segment) => ({ ...segment, status: "deleting" as const }));
    const names = doomed.map(({ name }) => name);
    await this.#save(timeline, doomed);
    await this.#delete(timeline, names);
    await this.#save(timeline, timeline.state.partialBackup.filter(({ name, status }) => status !== "deleting" || !names.includes(name)));
    return names;
  }

  #describe(timeline: Timeline): PartialRemoteSegment {
    const { flushLsn, lastLogTerm: term, volatile: { commitLsn }, nodeId } = timeline.acceptor;
    const { walSegmentSizeBytes } = timeline.state;
    const segment = segmentName(segmentOf(flushLsn, walSegmentSizeBytes), walSegmentSizeBytes);
    return { status: "in-progress", name: `${segment}_${term}_${hex(flushLsn)}_${hex(commitLsn)}_sk${nodeId}${PARTIAL_SUFFIX}`, commitLsn, flushLsn, term };
  }

  async #send(timeline: Timeline, prepared: PartialRemoteSegment): Promise<void> {
    const { storage, files, metrics, signal } = this.#options;
    const segmentSizeBytes = timeline.state.walSegmentSizeBytes;
    const segment = segmentOf(prepared.flushLsn, segmentSizeBytes);
    const open = await openSegment(files, timeline.directory, { segment, segmentSizeBytes, mode: "read" });
    if (open === null) throw missingSegment(segment, segmentSizeBytes, timeline.directory);
    await open.file.close();
    const sizeBytes = prepared.flushLsn % segmentSizeBytes;
    await storage.upload(keyOf(timeline, prepared.name), { filePath: open.file.path, sizeBytes }, { signal });
    metrics.partialUploadedBytes.inc(sizeBytes);
    // The log is cut only after the term has changed: in the same term the bytes were still what the name says.
    const { lastLogTerm, flushLsn } = timeline.acceptor;
    if (lastLogTerm !== prepared.term || flushLsn < prepared.flushLsn) throw new StrataError("retry", "term-changed", `the log changed while ${prepared.name} was uploaded`);
  }

  /** Removes all but the one that counts. */
  async #collect(timeline: Timeline): Promise<void> {
    const segments = timeline.state.partialBackup;
    const kept = segments.filter(({ status }) => status === "uploaded");
    if (kept.length === segments.length) return;
    const keptNames = new Set(kept.map(({ name }) => name));
    await this.#delete(timeline, segments.map(({ name }) => name).filter((name) => !keptNames.has(name)));
    await this.#save(timeline, kept);
  }

  async #delete(timeline: Timeline, names: readonly string[]): Promise<void> {
    const { storage, signal } = this.#options;
    if (names.length > 0) await storage.delete(names.map((name) => keyOf(timeline, name)), { signal });
  }

  async #save(timeline: Timeline, partialBackup: readonly PartialRemoteSegment[]): Promise<void> {
    await timeline.run("partial backup", (acceptor) => acceptor.persist({ partialBackup }));
  }
}

function needsUpload(timeline: Timeline): boolean {
  const { acceptor, state } = timeline;
  const { flushLsn, lastLogTerm, volatile } = acceptor;
  if (acceptor.log.flushRecordLsn === 0 || flushLsn % state.walSegmentSizeBytes === 0) return false;
  const uploaded = state.partialBackup.find(({ status }) => status === "uploaded");
  return uploaded === undefined || uploaded.flushLsn !== flushLsn || uploaded.commitLsn !== volatile.commitLsn || uploaded.term !== lastLogTerm;
}

function keyOf(timeline: Timeline, name: string): string {
  return `${timeline.id.tenantId}/${timeline.id.timelineId}/${name}`;
}

function hex(lsn: Lsn): string {
  return lsn.toString(16).toUpperCase().padStart(16, "0");
}
