/** A pg_control for tests that need one and do not care what it says. */
import { encodeControlFile, type ControlFile } from "../../src/postgres/control-file/control-file.ts";
import type { CheckPoint } from "../../src/postgres/control-file/checkpoint.ts";
import { VERSION_CONSTANTS } from "../../src/postgres/versions/constants.ts";
import type { PgMajor } from "../../src/postgres/versions/major.ts";

export function plainControlFile(version: PgMajor, checkpoint: CheckPoint, changes: Partial<ControlFile> = {}): Uint8Array {
  return encodeControlFile({
    version, systemId: 7_000_000_000_000_000_001n, catalogVersion: VERSION_CONSTANTS[version].catalogVersion, state: "shut-down", timeSeconds: 0n, checkpointLsn: 0x28, checkpoint,
    unloggedLsn: 0x3e8, minRecoveryPoint: 0, minRecoveryPointTimelineId: 0, backupStartPoint: 0, backupEndPoint: 0, backupEndRequired: false,
    walLevel: 1, walLogHints: false, maxConnections: 100, maxWorkerProcesses: 8, maxWalSenders: 10, maxPreparedXacts: 0, maxLocksPerXact: 64, trackCommitTimestamp: false,
    segmentSize: 16 * 1024 * 1024, relationSegmentBlocks: 131072, dataChecksumVersion: 0, defaultCharSigned: true, mockAuthenticationNonce: new Uint8Array(32), ...changes,
  });
}
