/**
 * Turns an unpacked data directory of pages at an LSN into that of a standby, as if it had been backed up from another
 * standby while it replayed: pg_control in archive recovery with minRecoveryPoint at that LSN, a backup_label that tells
 * where to begin, standby.signal. Between the two the pages are from the future of the WAL replayed, as in every online
 * backup; nobody is let in before minRecoveryPoint.
 *
 * Source: PostgreSQL access/transam/xlogrecovery.c (InitWalRecovery, read_backup_label, CheckRecoveryConsistency).
 */
import { utf8 } from "../../kit/bytes.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileSystem } from "../../platform/files.ts";
import { type ControlFile, encodeControlFile } from "../../postgres/control-file/control-file.ts";
import { walSegmentName } from "../../postgres/wal/segment-name.ts";
import type { LastCheckpoint } from "./last-checkpoint.ts";

const WAL_TIMELINE = 1;

export interface StandbyStart {
  readonly controlFile: ControlFile;
  readonly last: LastCheckpoint;
  /** Of the pages. */
  readonly backupLsn: Lsn;
}

export async function writeStandbyFiles(files: FileSystem, directory: string, start: StandbyStart): Promise<void> {
  await write(files, `${directory}/global/pg_control`, encodeControlFile(standbyControlFile(start)));
  await write(files, `${directory}/backup_label`, utf8(backupLabel(start)));
  await write(files, `${directory}/standby.signal`, new Uint8Array(0));
}

export function standbyControlFile({ controlFile, last, backupLsn }: StandbyStart): ControlFile {
  return {
    ...controlFile,
    ...last.parameters,
    state: "in-archive-recovery",
    checkpointLsn: last.lsn,
    checkpoint: last.checkpoint,
    minRecoveryPoint: backupLsn,
    minRecoveryPointTimelineId: WAL_TIMELINE,
    backupStartPoint: 0,
    backupEndPoint: 0,
    backupEndRequired: false,
  };
}

export function backupLabel({ controlFile, last }: StandbyStart): string {
  const { redo } = last.checkpoint;
  return [
    `START WAL LOCATION: ${lsnToString(redo)} (file ${walSegmentName({ timelineId: WAL_TIMELINE, lsn: redo, segmentSize: controlFile.segmentSize })})`,
    `CHECKPOINT LOCATION: ${lsnToString(last.lsn)}`,
    "BACKUP METHOD: streamed",
    "BACKUP FROM: standby",
    `START TIMELINE: ${WAL_TIMELINE}`,
    "",
  ].join("\n");
}

async function write(files: FileSystem, path: string, bytes: Uint8Array): Promise<void> {
  const file = await files.open(path, "truncate");
  await file.write(bytes, 0);
  await file.close();
}
