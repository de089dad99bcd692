/**
 * The last checkpoint in a timeline's WAL before an LSN: where a standby that has the pages of that LSN begins to replay.
 *
 * Nobody keeps its position, so segments are read from a safekeeper, the newest first, until one holds a checkpoint that
 * began within the stream. Each compute's WAL begins with one (the starter record), so there is always one to be found.
 *
 * Source: PostgreSQL catalog/pg_control.h (XLOG_CHECKPOINT_*, XLOG_PARAMETER_CHANGE), access/xlog_internal.h
 * (xl_parameter_change).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { type CheckPoint, decodeCheckPoint } from "../../postgres/control-file/checkpoint.ts";
import { RMGR, WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { findFirstRecord, type WalRange } from "../../postgres/wal/find-records.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";

const CHECKPOINT_SHUTDOWN = 0x00;
const CHECKPOINT_ONLINE = 0x10;
const PARAMETER_CHANGE = 0x60;
const INFO_MASK = 0xf0;
/** A checkpoint record that begins in a segment may end on the first page of the next. */
const OVERHANG_BYTES = WAL_PAGE_SIZE;

/** What a standby must have at least as much of as the primary. */
export interface PrimaryParameters {
  readonly maxConnections: number;
  readonly maxWorkerProcesses: number;
  readonly maxWalSenders: number;
  readonly maxPreparedXacts: number;
  readonly maxLocksPerXact: number;
}

export interface LastCheckpoint {
  /** Start of its record. */
  readonly lsn: Lsn;
  readonly checkpoint: CheckPoint;
  /** The newest ones told in the WAL that was read; null when it told none. */
  readonly parameters: PrimaryParameters | null;
}

/** Bytes of `[from, to)`. @throws StrataError not-found when the timeline begins later */
export type ReadWal = (from: Lsn, to: Lsn) => Promise<Uint8Array>;

/** @throws StrataError unavailable `no-checkpoint` when no compute has written one yet; what `read` throws */
export async function findLastCheckpoint(read: ReadWal, geometry: WalGeometry, endLsn: Lsn): Promise<LastCheckpoint> {
  const { segmentSize } = geometry;
  let parameters: PrimaryParameters | null = null;
  for (let segment = Math.floor((endLsn - 1) / segmentSize); segment >= 0; segment--) {
    const lsn = segment * segmentSize;
    const range = await readSegment(read, { ...geometry, lsn, endLsn });
    if (range === null) break;
    const found = scan(range, lsn + segmentSize);
    parameters ??= found.parameters;
    if (found.checkpoint !== null) return { ...found.checkpoint, parameters };
    if (found.isFirst) break;
  }
  throw new StrataError("unavailable", "no-checkpoint", `the timeline has no checkpoint below ${lsnToString(endLsn)}: a replica can start when its first primary has`);
}

async function readSegment(read: ReadWal, at: WalGeometry & { readonly lsn: Lsn; readonly endLsn: Lsn }): Promise<WalRange | null> {
  const { lsn, endLsn, version, segmentSize } = at;
  try {
    return { bytes: await read(lsn, Math.min(endLsn, lsn + segmentSize + OVERHANG_BYTES)), lsn, version, segmentSize };
  } catch (error) {
    if (error instanceof StrataError && error.kind === "not-found") return null;
    throw error;
  }
}

interface Scan {
  readonly checkpoint: { readonly lsn: Lsn; readonly checkpoint: CheckPoint } | null;
  readonly parameters: PrimaryParameters | null;
  /** The timeline begins in this segment. */
  readonly isFirst: boolean;
}

function scan(range: WalRange, segmentEnd: Lsn): Scan {
  const start = startOfWal(range);
  const isFirst = start !== null && start.firstPageOffset > 0;
  let checkpoint: Scan["checkpoint"] = null;
  let parameters: PrimaryParameters | null = null;
  if (start === null) return { checkpoint, parameters, isFirst };
  const decoder = new WalStreamDecoder(start.lsn, range.version, range.segmentSize);
  const record = new WalRecord();
  decoder.feed(range.bytes.subarray(start.lsn - range.lsn));
  while (decoder.next(record) && record.lsn < segmentEnd) {
    if (record.rmid !== RMGR.XLOG) continue;
    const kind = record.info & INFO_MASK;
    const data = record.bytes.subarray(record.mainDataOffset, record.mainDataOffset + record.mainDataLength);
    if (kind === CHECKPOINT_SHUTDOWN || kind === CHECKPOINT_ONLINE) checkpoint = { lsn: record.lsn, checkpoint: decodeCheckPoint(data, range.version) };
    else if (kind === PARAMETER_CHANGE) parameters = decodeParameters(data);
  }
  return { checkpoint, parameters, isFirst };
}

/** The first record that begins in the range. The part of a timeline's first segment before its start is zeros but for page headers. */
function startOfWal(range: WalRange): { readonly lsn: Lsn; readonly firstPageOffset: number } | null {
  const view = dataViewOf(range.bytes);
  for (let at = 0; at + 4 <= range.bytes.length; at += WAL_PAGE_SIZE) {
    if (view.getUint16(at, true) === 0) continue;
    const lsn = findFirstRecord(range, range.lsn + at);
    if (lsn === null) return null;
    const offset = lsn - range.lsn;
    if (offset + 4 <= range.bytes.length && view.getUint32(offset, true) !== 0) return { lsn, firstPageOffset: at };
  }
  return null;
}

/** @throws StrataError corrupt `truncated` */
function decodeParameters(data: Uint8Array): PrimaryParameters {
  if (data.length < 20) throw new StrataError("corrupt", "truncated", `parameter change record of ${data.length} bytes`);
  const view = dataViewOf(data);
  const i32 = (at: number): number => view.getInt32(at, true);
  return { maxConnections: i32(0), maxWorkerProcesses: i32(4), maxWalSenders: i32(8), maxPreparedXacts: i32(12), maxLocksPerXact: i32(16) };
}
