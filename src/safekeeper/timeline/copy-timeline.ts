/**
 * A new timeline with the committed WAL of another one up to an LSN: segments that are in object storage are copied there, the
 * rest is read and written here. All of it is called committed in the copy, so it must be in the source: what is not may yet be cut.
 *
 * The copy gives no votes until it is proved that nobody has more of it (`receive-wal/admission.ts`): made once more, on a disk that
 * had lost it, it would lack what was written since the first time.
 *
 * Source: the peer safekeeper/src/copy_timeline.rs.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { FileSystem } from "../../platform/files.ts";
import { writeControlFile } from "../control-file/control-file.ts";
import { newTimelineState, type TimelinePersistentState } from "../control-file/state.ts";
import { PARTIAL_SUFFIX, segmentName, segmentOf } from "../wal-store/segments.ts";
import { isRecordEnd } from "./record-end.ts";
import type { Timeline } from "./timeline.ts";
import type { Timelines } from "./timelines.ts";

/** WAL that is not backed up, and so would be copied on this disk, in segments. */
const MAX_LOCAL_SEGMENTS = 10;
const CHUNK_BYTES = 1024 * 1024;

export interface CopyRequest {
  readonly source: TenantTimelineId;
  readonly target: TenantTimelineId;
  readonly untilLsn: Lsn;
}

export interface CopyOptions {
  readonly timelines: Timelines;
  readonly files: FileSystem;
  readonly sync: boolean;
  readonly nowMs: number;
  /** Copies whole segments in object storage; null without one. */
  readonly copySegments: ((from: TenantTimelineId, to: TenantTimelineId, segments: readonly string[]) => Promise<void>) | null;
}

/**
 * Nothing happens when the target exists.
 * @throws StrataError not-found; fix-input `bad-range`; conflict `not-committed`; unavailable `backup-is-behind`
 */
export async function copyTimeline(request: CopyRequest, options: CopyOptions): Promise<void> {
  if (options.timelines.find(request.target) !== null) return;
  const source = options.timelines.get(request.source);
  await source.gate.run(async () => {
    const plan = planOf(source, request.untilLsn, options);
    source.walRemovalHolds++;
    try {
      if (!(await isRecordEnd(source, plan.untilLsn))) throw new StrataError("fix-input", "bad-range", `no record ends at ${lsnToString(plan.untilLsn)}`);
      await options.copySegments?.(request.source, request.target, plan.remoteSegments);
      await options.timelines.addFrom(request.target, (directory) => fill(source, directory, { plan, request, options }));
    } finally {
      source.walRemovalHolds--;
    }
  });
}

interface Plan {
  readonly startLsn: Lsn;
  readonly untilLsn: Lsn;
  readonly backupLsn: Lsn;
  readonly remoteSegments: readonly string[];
}

function planOf(source: Timeline, untilLsn: Lsn, options: CopyOptions): Plan {
  const { timelineStartLsn: startLsn, walSegmentSizeBytes } = source.state;
  const { flushLsn, volatile } = source.acceptor;
  if (startLsn === 0 || untilLsn < startLsn || untilLsn > flushLsn) {
    throw new StrataError("fix-input", "bad-range", `${lsnToString(untilLsn)} is not within ${lsnToString(startLsn)}–${lsnToString(flushLsn)}`);
  }
  if (untilLsn > volatile.commitLsn) throw new StrataError("conflict", "not-committed", `WAL is known to be committed up to ${lsnToString(volatile.commitLsn)}, not yet up to ${lsnToString(untilLsn)}`);
  const last = segmentOf(untilLsn, walSegmentSizeBytes);
  const backedUp = options.copySegments === null ? startLsn : Math.min(volatile.backupLsn, last * walSegmentSizeBytes);
  const backupLsn = Math.max(startLsn, backedUp);
  if (untilLsn - backupLsn > MAX_LOCAL_SEGMENTS * walSegmentSizeBytes) {
    throw new StrataError("unavailable", "backup-is-behind", `WAL from ${lsnToString(backupLsn)} to ${lsnToString(untilLsn)} is not backed up yet: too much to be copied here`);
  }
  const remoteSegments: string[] = [];
  if (backupLsn > startLsn) for (let segment = segmentOf(startLsn, walSegmentSizeBytes); segment < segmentOf(backupLsn, walSegmentSizeBytes); segment++) remoteSegments.push(segmentName(segment, walSegmentSizeBytes));
  return { startLsn, untilLsn, backupLsn, remoteSegments };
}

async function fill(source: Timeline, directory: string, job: { readonly plan: Plan; readonly request: CopyRequest; readonly options: CopyOptions }): Promise<void> {
  const { plan, request, options } = job;
  const { walSegmentSizeBytes, pgVersion, systemId } = source.state;
  for (let segment = segmentOf(plan.backupLsn, walSegmentSizeBytes); segment * walSegmentSizeBytes < plan.untilLsn; segment++) {
    await copySegment(source, directory, { segment, untilLsn: plan.untilLsn, options });
  }
  const { startLsn, untilLsn, backupLsn } = plan;
  const fresh = newTimelineState({ ...request.target, pgVersion, systemId, walSegmentSizeBytes, startLsn, commitLsn: untilLsn, createdMs: options.nowMs, recovering: true });
  const state: TimelinePersistentState = { ...fresh, backupLsn, peerHorizonLsn: untilLsn };
  await writeControlFile(options.files, directory, { state, sync: options.sync });
}

async function copySegment(source: Timeline, directory: string, job: { readonly segment: number; readonly untilLsn: Lsn; readonly options: CopyOptions }): Promise<void> {
  const { segment, untilLsn, options } = job;
  const { walSegmentSizeBytes } = source.state;
  const from = segment * walSegmentSizeBytes;
  const to = Math.min(untilLsn, from + walSegmentSizeBytes);
  const name = segmentName(segment, walSegmentSizeBytes) + (to < from + walSegmentSizeBytes ? PARTIAL_SUFFIX : "");
  const reader = source.reader(from);
  const file = await options.files.open(`${directory}/${name}`, "create-new");
  const chunk = new Uint8Array(CHUNK_BYTES);
  try {
    for (let at = from; at < to; ) {
      const length = await reader.read(at, chunk.subarray(0, Math.min(chunk.length, to - at)));
      await file.write(chunk.subarray(0, length), at - from);
      at += length;
    }
    if (options.sync) await file.sync();
  } finally {
    await file.close();
    await reader.close();
  }
}
