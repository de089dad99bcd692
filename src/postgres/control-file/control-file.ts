/**
 * pg_control: 8192 bytes, of which the first ~300 count.
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u64 | system_identifier |
 * | 8 | u32 | pg_control_version |
 * | 12 | u32 | catalog_version_no |
 * | 16 | u32 | state |
 * | 24 | i64 | time, seconds since 1970 |
 * | 32 | u64 | checkPoint: LSN of the last checkpoint record |
 * | 40 | 88 | checkPointCopy |
 * | 128 | u64 | unloggedLSN |
 * | 136 | u64 | minRecoveryPoint |
 * | 144 | u32 | minRecoveryPointTLI |
 * | 152 | u64 | backupStartPoint |
 * | 160 | u64 | backupEndPoint |
 * | 168 | bool | backupEndRequired |
 * | 172 | i32 | wal_level |
 * | 176 | bool | wal_log_hints |
 * | 180 | 5 × i32 | MaxConnections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact |
 * | 200 | bool | track_commit_timestamp |
 * | 204 | u32 | maxAlign |
 * | 208 | f64 | floatFormat |
 * | 216 | u32 | blcksz |
 * | 220 | u32 | relseg_size |
 * | 224 | u32 | xlog_blcksz |
 * | 228 | u32 | xlog_seg_size |
 * | 232 | 4 × u32 | nameDataLen, indexMaxKeys, toast_max_chunk_size, loblksize |
 * | 248 | bool | float8ByVal |
 * | 252 | u32 | data_checksum_version |
 * | 256 | bool | default_char_signedness, from 18 on |
 * | 256, 257 in 18 | 32 | mock_authentication_nonce |
 * | 288, 292 in 18 | u32 | crc: CRC-32C of the bytes before it |
 *
 * Little-endian, the gaps zero, the same in 14 to 17. Source: PostgreSQL catalog/pg_control.h.
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { copyBytes } from "../../kit/copy.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import { VERSION_CONSTANTS } from "../versions/constants.ts";
import { PG_MAJORS, type PgMajor } from "../versions/major.ts";
import { CHECKPOINT_SIZE, type CheckPoint, type WalLevel, decodeCheckPoint, encodeCheckPoint } from "./checkpoint.ts";

export const CONTROL_FILE_SIZE = 8192;

/** DBState. */
export const DB_STATES = [
  "startup",
  "shut-down",
  "shut-down-in-recovery",
  "shutting-down",
  "in-crash-recovery",
  "in-archive-recovery",
  "in-production",
] as const;
export type DbState = (typeof DB_STATES)[number];

const CHECKPOINT_COPY = 40;
const FLOAT_FORMAT = 1234567.0;

interface TailLayout {
  readonly charSignedness: number | null;
  readonly nonce: number;
  readonly crc: number;
}

const TAIL_14: TailLayout = { charSignedness: null, nonce: 256, crc: 288 };
const TAIL_18: TailLayout = { charSignedness: 256, nonce: 257, crc: 292 };
const NONCE_SIZE = 32;

export interface ControlFile {
  readonly version: PgMajor;
  readonly systemId: bigint;
  readonly catalogVersion: number;
  readonly state: DbState;
  /** Seconds since 1970 of the last update. */
  readonly timeSeconds: bigint;
  readonly checkpointLsn: Lsn;
  readonly checkpoint: CheckPoint;
  readonly unloggedLsn: Lsn;
  readonly minRecoveryPoint: Lsn;
  readonly minRecoveryPointTimelineId: number;
  readonly backupStartPoint: Lsn;
  readonly backupEndPoint: Lsn;
  readonly backupEndRequired: boolean;
  readonly walLevel: WalLevel;
  readonly walLogHints: boolean;
  readonly maxConnections: number;
  readonly maxWorkerProcesses: number;
  readonly maxWalSenders: number;
  readonly maxPreparedXacts: number;
  readonly maxLocksPerXact: number;
  readonly trackCommitTimestamp: boolean;
  readonly segmentSize: number;
  readonly relationSegmentBlocks: number;
  /** 0: pages carry no checksums. */
  readonly dataChecksumVersion: number;
  /** From 18 on; true before. */
  readonly defaultCharSigned: boolean;
  /** 32 bytes. */
  readonly mockAuthenticationNonce: Uint8Array;
}

/**
 * Decodes a pg_control of any supported version; at least its first 296 bytes. 14, 15 and 16 share a control version: the
 * catalog version tells them apart.
 *
 * @throws StrataError corrupt `truncated`, `bad-control-file`; fix-input `unsupported-control-file`
 */
export function decodeControlFile(bytes: Uint8Array): ControlFile {
  if (bytes.length < TAIL_18.crc + 4) throw new StrataError("corrupt", "truncated", `pg_control has ${bytes.length} bytes`);
  const view = dataViewOf(bytes);
  const version = versionOf(view);
  const tail = tailOf(version);
  if (view.getUint32(tail.crc, true) !== crc32c(bytes, 0, tail.crc)) throw badControlFile("checksum is wrong");
  if (view.getUint32(204, true) !== 8 || view.getFloat64(208, true) !== FLOAT_FORMAT) throw badControlFile("written on another architecture");
  if (view.getUint32(216, true) !== 8192 || view.getUint32(224, true) !== 8192) throw badControlFile("page size is not 8192");
  const state = DB_STATES[view.getUint32(16, true)];
  if (state === undefined) throw badControlFile(`state ${view.getUint32(16, true)}`);
  const lsn = (at: number) => readLsn(view, at);
  return {
    version,
    systemId: view.getBigUint64(0, true),
    catalogVersion: view.getUint32(12, true),
    state,
    timeSeconds: view.getBigInt64(24, true),
    checkpointLsn: lsn(32),
    checkpoint: decodeCheckPoint(bytes, version, CHECKPOINT_COPY),
    unloggedLsn: lsn(128),
    minRecoveryPoint: lsn(136),
    minRecoveryPointTimelineId: view.getUint32(144, true),
    backupStartPoint: lsn(152),
    backupEndPoint: lsn(160),
    backupEndRequired: bytes[168] !== 0,
    ...decodeSettings(view),
    segmentSize: view.getUint32(228, true),
    relationSegmentBlocks: view.getUint32(220, true),
    dataChecksumVersion: view.getUint32(252, true),
    defaultCharSigned: tail.charSignedness === null || bytes[tail.charSignedness] !== 0,
    mockAuthenticationNonce: new Uint8Array(bytes.subarray(tail.nonce, tail.nonce + NONCE_SIZE)),
  };
}

function decodeSettings(view: DataView) {
  return {
    walLevel: view.getInt32(172, true),
    walLogHints: view.getUint8(176) !== 0,
    maxConnections: view.getInt32(180, true),
    maxWorkerProcesses: view.getInt32(184, true),
    maxWalSenders: view.getInt32(188, true),
    maxPreparedXacts: view.getInt32(192, true),
    maxLocksPerXact: view.getInt32(196, true),
    trackCommitTimestamp: view.getUint8(200) !== 0,
  };
}

/** The whole file, 8192 bytes. */
export function encodeControlFile(control: ControlFile): Uint8Array {
  const bytes = new Uint8Array(CONTROL_FILE_SIZE);
  const view = dataViewOf(bytes);
  const u32 = (at: number, value: number) => view.setUint32(at, value, true);
  view.setBigUint64(0, control.systemId, true);
  u32(8, VERSION_CONSTANTS[control.version].controlVersion);
  u32(12, control.catalogVersion);
  u32(16, DB_STATES.indexOf(control.state));
  view.setBigInt64(24, control.timeSeconds, true);
  writeLsn(view, 32, control.checkpointLsn);
  copyBytes(encodeCheckPoint(control.checkpoint, control.version), 0, bytes, CHECKPOINT_COPY, CHECKPOINT_SIZE);
  writeLsn(view, 128, control.unloggedLsn);
  writeLsn(view, 136, control.minRecoveryPoint);
  u32(144, control.minRecoveryPointTimelineId);
  writeLsn(view, 152, control.backupStartPoint);
  writeLsn(view, 160, control.backupEndPoint);
  bytes[168] = control.backupEndRequired ? 1 : 0;
  encodeSettings(control, view);
  encodeBuildConstants(view);
  u32(220, control.relationSegmentBlocks);
  u32(228, control.segmentSize);
  u32(252, control.dataChecksumVersion);
  const tail = tailOf(control.version);
  if (tail.charSignedness !== null) bytes[tail.charSignedness] = control.defaultCharSigned ? 1 : 0;
  copyBytes(control.mockAuthenticationNonce, 0, bytes, tail.nonce, NONCE_SIZE);
  u32(tail.crc, crc32c(bytes, 0, tail.crc));
  return bytes;
}

function encodeSettings(control: ControlFile, view: DataView): void {
  view.setInt32(172, control.walLevel, true);
  view.setUint8(176, control.walLogHints ? 1 : 0);
  view.setInt32(180, control.maxConnections, true);
  view.setInt32(184, control.maxWorkerProcesses, true);
  view.setInt32(188, control.maxWalSenders, true);
  view.setInt32(192, control.maxPreparedXacts, true);
  view.setInt32(196, control.maxLocksPerXact, true);
  view.setUint8(200, control.trackCommitTimestamp ? 1 : 0);
}

/** What a 64-bit little-endian build with default sizes has. */
function encodeBuildConstants(view: DataView): void {
  view.setUint32(204, 8, true);
  view.setFloat64(208, FLOAT_FORMAT, true);
  view.setUint32(216, 8192, true);
  view.setUint32(224, 8192, true);
  view.setUint32(232, 64, true);
  view.setUint32(236, 32, true);
  view.setUint32(240, 1996, true);
  view.setUint32(244, 2048, true);
  view.setUint8(248, 1);
}

function versionOf(view: DataView): PgMajor {
  const controlVersion = view.getUint32(8, true);
  const catalogVersion = view.getUint32(12, true);
  for (const major of PG_MAJORS) {
    const known = VERSION_CONSTANTS[major];
    if (known.controlVersion === controlVersion && known.catalogVersion === catalogVersion) return major;
  }
  const message = `pg_control has version ${controlVersion} and catalog version ${catalogVersion}, of no supported PostgreSQL`;
  throw new StrataError("fix-input", "unsupported-control-file", message, { details: { controlVersion, catalogVersion } });
}

function tailOf(version: PgMajor): TailLayout {
  return version >= 18 ? TAIL_18 : TAIL_14;
}

function readLsn(view: DataView, at: number): Lsn {
  try {
    return lsnFromHalves(view.getUint32(at + 4, true), view.getUint32(at, true));
  } catch (cause) {
    throw new StrataError("corrupt", "bad-control-file", `pg_control: LSN at offset ${at} out of range`, { cause });
  }
}

function writeLsn(view: DataView, at: number, lsn: Lsn): void {
  view.setUint32(at, lsnLow(lsn), true);
  view.setUint32(at + 4, lsnHigh(lsn), true);
}

function badControlFile(what: string): StrataError {
  return new StrataError("corrupt", "bad-control-file", `pg_control: ${what}`);
}
