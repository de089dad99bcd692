/**
 * WAL segment files: names as PostgreSQL's, with `.partial` behind the name until the segment is complete and durable.
 * Source: PostgreSQL access/xlog_internal.h (XLogFileName, XLogSegNoOffsetToRecPtr).
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { FileHandle, FileSystem, OpenMode } from "../../platform/files.ts";
import { parseWalSegmentName, walSegmentName } from "../../postgres/wal/segment-name.ts";

/** Stock PostgreSQL primaries that never failed over are on timeline 1, and a compute never does. */
export const POSTGRES_TIMELINE = 1;
export const PARTIAL_SUFFIX = ".partial";

export interface SegmentFile {
  readonly segment: number;
  readonly name: string;
  readonly partial: boolean;
}

export function segmentOf(lsn: Lsn, segmentSizeBytes: number): number {
  return Math.floor(lsn / segmentSizeBytes);
}

/** `000000010000000A000000FE`, without the `.partial`. */
export function segmentName(segment: number, segmentSizeBytes: number): string {
  return walSegmentName({ timelineId: POSTGRES_TIMELINE, lsn: segment * segmentSizeBytes, segmentSize: segmentSizeBytes });
}

/** Null for anything that is not a segment of ours. */
export function parseSegmentName(name: string, segmentSizeBytes: number): SegmentFile | null {
  const partial = name.endsWith(PARTIAL_SUFFIX);
  const parsed = parseWalSegmentName(partial ? name.slice(0, -PARTIAL_SUFFIX.length) : name, segmentSizeBytes);
  if (parsed === null || parsed.timelineId !== POSTGRES_TIMELINE) return null;
  return { segment: segmentOf(parsed.lsn, segmentSizeBytes), name, partial };
}

/** Ascending. Other files in the directory are none of our business. */
export async function listSegments(files: FileSystem, directory: string, segmentSizeBytes: number): Promise<SegmentFile[]> {
  const found: SegmentFile[] = [];
  for (const name of await files.list(directory)) {
    const segment = parseSegmentName(name, segmentSizeBytes);
    if (segment !== null) found.push(segment);
  }
  return found.sort((a, b) => a.segment - b.segment);
}

export interface OpenSegment {
  readonly file: FileHandle;
  readonly partial: boolean;
}

/** Opens the segment under whichever name it has; null when it is not here. */
export async function openSegment(files: FileSystem, directory: string, options: { segment: number; segmentSizeBytes: number; mode: OpenMode }): Promise<OpenSegment | null> {
  const path = `${directory}/${segmentName(options.segment, options.segmentSizeBytes)}`;
  // Complete, partial, and complete again: it may be renamed between two looks.
  for (const partial of [false, true, false]) {
    try {
      return { file: await files.open(partial ? path + PARTIAL_SUFFIX : path, options.mode), partial };
    } catch (error) {
      if (!isStrataError(error, "file-not-found")) throw error;
    }
  }
  return null;
}

export function missingSegment(segment: number, segmentSizeBytes: number, directory: string): StrataError {
  const name = segmentName(segment, segmentSizeBytes);
  return new StrataError("not-found", "wal-segment-missing", `WAL segment ${name} is not in ${directory}`, { details: { path: `${directory}/${name}` } });
}
