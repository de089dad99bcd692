/** WAL as it lies on a virtual disk, read behind everybody's back. */
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { VirtualDisk } from "../../../src/platform/virtual/virtual-disk.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { PARTIAL_SUFFIX, segmentName } from "../../../src/safekeeper/wal-store/segments.ts";
import { Violation } from "../violation.ts";

/** Pieces of the range, one a segment; segments that were removed as no longer needed are left out. @throws Violation */
export function readDurable(disk: VirtualDisk, timeline: Timeline, range: { from: Lsn; to: Lsn }): { lsn: Lsn; bytes: Uint8Array }[] {
  const { walSegmentSizeBytes: segmentSize, remoteConsistentLsn } = timeline.state;
  const pieces: { lsn: Lsn; bytes: Uint8Array }[] = [];
  for (let lsn = range.from; lsn < range.to; ) {
    const segment = Math.floor(lsn / segmentSize);
    const end = Math.min(range.to, (segment + 1) * segmentSize);
    const content = segmentContent(disk, `${timeline.directory}/${segmentName(segment, segmentSize)}`);
    if (content === null && (segment + 1) * segmentSize > remoteConsistentLsn) throw new Violation(`${timeline.directory} lacks the segment of ${lsn}, which is called durable`);
    if (content !== null) {
      const bytes = content.subarray(lsn % segmentSize, (lsn % segmentSize) + (end - lsn));
      if (bytes.length < end - lsn) throw new Violation(`${timeline.directory}: the segment of ${lsn} is too short for what is called durable`);
      pieces.push({ lsn, bytes });
    }
    lsn = end;
  }
  return pieces;
}

function segmentContent(disk: VirtualDisk, path: string): Uint8Array | null {
  for (const name of [path, path + PARTIAL_SUFFIX]) {
    try {
      return disk.fileAt(name).content;
    } catch (error) {
      if (!isStrataError(error, "file-not-found")) throw error;
    }
  }
  return null;
}
