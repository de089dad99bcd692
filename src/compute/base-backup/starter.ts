/** Puts the starter segment and the matching pg_control into an unpacked data directory. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileSystem } from "../../platform/files.ts";
import { buildStarterSegment } from "../../postgres/wal/starter-segment.ts";
import type { UnpackedBackup } from "./unpack.ts";

export interface Start {
  /** The backup's LSN: where the log ended, and this server's WAL begins. */
  readonly startLsn: Lsn;
  /** Behind the starter record. */
  readonly endLsn: Lsn;
}

/** @throws StrataError conflict `wrong-backup-lsn` when the backup is of another LSN than `settledLsn` (0: any) */
export async function writeStarter(files: FileSystem, directory: string, options: { backup: UnpackedBackup; settledLsn: Lsn }): Promise<Start> {
  const { controlFile, prevLsn } = options.backup;
  const startLsn = controlFile.checkpoint.redo;
  if (options.settledLsn !== 0 && startLsn !== options.settledLsn) {
    throw new StrataError("conflict", "wrong-backup-lsn", `the base backup is of ${lsnToString(startLsn)}, the log ends at ${lsnToString(options.settledLsn)}`);
  }
  const starter = buildStarterSegment({
    version: controlFile.version,
    systemId: controlFile.systemId,
    timelineLsn: startLsn,
    prevLsn: prevLsn ?? startLsn - 8,
    timelineId: 1,
    segmentSize: controlFile.segmentSize,
    checkpoint: controlFile.checkpoint,
    template: controlFile,
  });
  for (const { fileName, bytes } of starter.files) {
    const segment = await files.open(`${directory}/pg_wal/${fileName}`, "truncate");
    await segment.write(bytes, 0);
    await segment.truncate(controlFile.segmentSize);
    await segment.close();
  }
  const control = await files.open(`${directory}/global/pg_control`, "truncate");
  await control.write(starter.controlFile, 0);
  await control.close();
  return { startLsn, endLsn: starter.endLsn };
}
