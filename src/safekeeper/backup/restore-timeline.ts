/**
 * A timeline from its WAL backup, when all safekeepers have lost it: each of the new ones makes it for itself, from the same objects.
 *
 * What is made is like a copy (`timeline/copy-timeline.ts`): its WAL is of term 0, and it gives no votes before all the other
 * safekeepers have answered that they have no proposer's WAL and not more than is here (`receive-wal/admission.ts`). Where one of
 * them is left, `pull_timeline` from that one is right and this is not: so it is refused when the broker hears of more. Whole
 * segments stay in object storage, and are fetched when they are read; only what comes after is put on this disk.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { FileSystem } from "../../platform/files.ts";
import { writeControlFile } from "../control-file/control-file.ts";
import { newTimelineState, type PartialRemoteSegment, type TimelinePersistentState } from "../control-file/state.ts";
import type { Newness } from "../timeline/newness.ts";
import type { Timelines } from "../timeline/timelines.ts";
import { PARTIAL_SUFFIX, segmentName } from "../wal-store/segments.ts";
import { type BackedUpWal, type BackupSource, readBackedUpWal } from "./backed-up-wal.ts";

export interface RestoreOptions {
  readonly timelines: Timelines;
  readonly files: FileSystem;
  readonly sync: boolean;
  readonly nodeId: number;
  readonly nowMs: number;
  /** Whether others have more than up to an LSN, as far as the broker knows them. */
  readonly askOthers: (id: TenantTimelineId, madeWithLsn: Lsn) => Promise<Newness>;
}

/** @throws StrataError conflict `timeline-exists`, `timeline-elsewhere`, `backup-has-gap`; not-found `no-wal-backup`; corrupt `bad-wal-backup` */
export async function restoreTimeline(source: BackupSource, options: RestoreOptions): Promise<BackedUpWal> {
  const { timelines, files, sync } = options;
  const { id } = source;
  if (timelines.find(id) !== null) throw new StrataError("conflict", "timeline-exists", `timeline ${id.tenantId}/${id.timelineId} exists`);
  const wal = await readBackedUpWal(source);
  const others = await options.askOthers(id, wal.flushLsn);
  if (others.kind === "known") {
    throw new StrataError("conflict", "timeline-elsewhere", `safekeeper ${others.by} has WAL of the timeline beyond ${lsnToString(wal.flushLsn)}, where its backup ends: pull it from there`);
  }
  const timeline = await timelines.addFrom(id, async (directory) => {
    for (const piece of wal.tail) await writePiece(wal, piece, { files, directory, sync });
    await writeControlFile(files, directory, { state: stateOf(wal, id, options), sync });
  });
  timeline.log.warn("timeline made from its WAL backup: it gives no votes before all other safekeepers have answered that they have no more", {
    startLsn: lsnToString(wal.startLsn), commitLsn: lsnToString(wal.commitLsn), flushLsn: lsnToString(wal.flushLsn), from: wal.partial?.name,
  });
  return wal;
}

function stateOf(wal: BackedUpWal, id: TenantTimelineId, options: RestoreOptions): TimelinePersistentState {
  const { geometry: { version, segmentSize }, systemId, startLsn, commitLsn } = wal;
  const fresh = newTimelineState({ ...id, pgVersion: version * 10_000, systemId, walSegmentSizeBytes: segmentSize, startLsn, commitLsn, createdMs: options.nowMs, recovering: true });
  return {
    ...fresh,
    backupLsn: Math.max(startLsn, commitLsn - (commitLsn % segmentSize)),
    peerHorizonLsn: commitLsn,
    partialBackup: earlierPartials(wal, options.nodeId),
  };
}

/**
 * All that are there, also those of nodes that are gone: removed when this one has uploaded its own, which has what they have. Terms
 * begin again with a restored timeline, and the next restoration must not take an old object of a high term for the newest.
 */
function earlierPartials(wal: BackedUpWal, nodeId: number): PartialRemoteSegment[] {
  return wal.partials.map(({ name, term, flushLsn, commitLsn, nodeId: of }) => ({ status: name === wal.partial?.name && of === nodeId ? "uploaded" : "deleting", name, term, flushLsn, commitLsn }));
}

async function writePiece(wal: BackedUpWal, piece: BackedUpWal["tail"][number], { files, directory, sync }: { files: FileSystem; directory: string; sync: boolean }): Promise<void> {
  const { segmentSize } = wal.geometry;
  const file = await files.open(`${directory}/${segmentName(piece.segment, segmentSize)}${piece.bytes.length < segmentSize ? PARTIAL_SUFFIX : ""}`, "create-new");
  try {
    await file.write(piece.bytes, 0);
    if (sync) await file.sync();
  } finally {
    await file.close();
  }
}
