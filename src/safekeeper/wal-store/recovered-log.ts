/** What is done with a log found at a start, before it is relied on. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { missingSegment, openSegment, segmentOf } from "./segments.ts";

const CHUNK_BYTES = 1024 * 1024;

export interface RecoveredRange {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  /** Those that are here. */
  readonly segments: readonly number[];
  readonly segmentSize: number;
}

/** @throws StrataError corrupt `wal-lost` when the segment of `commitLsn` does not reach it */
export async function checkPresent(files: FileSystem, directory: string, position: { readonly commitLsn: Lsn; readonly segmentSize: number }): Promise<void> {
  const { commitLsn, segmentSize } = position;
  const offset = commitLsn % segmentSize;
  if (offset === 0) return;
  const open = await openSegment(files, directory, { segment: segmentOf(commitLsn, segmentSize), segmentSizeBytes: segmentSize, mode: "read" });
  const size = (await open?.file.sizeBytes()) ?? 0;
  await open?.file.close();
  if (size >= offset) return;
  throw new StrataError("corrupt", "wal-lost", `WAL is committed up to ${lsnToString(commitLsn)}, but its segment in ${directory} has ${size} bytes of ${offset}`, { details: { path: directory } });
}

/**
 * Everything from `fromLsn`, below which it was durable before, is written back as it is and synced: pages that the kernel
 * holds as clean after a failed fsync of an earlier process become dirty again.
 */
export async function makeDurable(files: FileSystem, directory: string, range: RecoveredRange): Promise<void> {
  const { segmentSize } = range;
  for (const segment of range.segments) {
    const open = await openSegment(files, directory, { segment, segmentSizeBytes: segmentSize, mode: "read-write" });
    if (open === null) throw missingSegment(segment, segmentSize, directory);
    const start = segment * segmentSize;
    const from = Math.max(0, range.fromLsn - start);
    try {
      await writeBack(open.file, from - (from % WAL_PAGE_SIZE), Math.min(segmentSize, range.toLsn - start));
      await open.file.sync();
    } finally {
      await open.file.close();
    }
  }
  await files.syncDirectory(directory);
}

async function writeBack(file: FileHandle, from: number, to: number): Promise<void> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at = from; at < to; ) {
    const length = await file.read(chunk.subarray(0, Math.min(chunk.length, to - at)), at);
    if (length === 0) throw new StrataError("corrupt", "wal-lost", `${file.path} became shorter`);
    await file.write(chunk.subarray(0, length), at);
    at += length;
  }
}
