/**
 * The starter segment: WAL and pg_control that let a stock PostgreSQL begin to write at any LSN without recovery.
 *
 * It holds one record, a shutdown checkpoint at the given LSN. A server that finds it named by a pg_control in state
 * "shut down" starts at once, and its first own record follows at `endLsn`. The bytes of the checkpoint must be sent to the
 * safekeepers as well (`wal`, from `startLsn` on), then the log has no gap.
 *
 * On the page where the record starts, everything before it is declared the rest of an earlier record (zeros here), so that
 * readers can find the record's start. The segment's first page has its long header; other pages before are zero.
 *
 * Source: PostgreSQL access/transam/xlog.c (StartupXLOG, CreateCheckPoint, BootStrapXLOG), by experiment for the rest.
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { copyBytes } from "../../kit/copy.ts";
import { StrataError, invariant } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { CHECKPOINT_SIZE, type CheckPoint, encodeCheckPoint } from "../control-file/checkpoint.ts";
import { type ControlFile, encodeControlFile } from "../control-file/control-file.ts";
import { VERSION_CONSTANTS } from "../versions/constants.ts";
import type { PgMajor } from "../versions/major.ts";
import { RMGR, WAL_PAGE_SIZE, XLOG_CHECKPOINT_SHUTDOWN } from "./constants.ts";
import { encodeRecord } from "./encode-record.ts";
import { XLP_FIRST_IS_CONTRECORD, encodePageHeader, pageHeaderSize } from "./page-header.ts";
import { walSegmentName } from "./segment-name.ts";
import { WalWriter } from "./wal-writer.ts";

/** FirstNormalUnloggedLSN. */
const FIRST_UNLOGGED_LSN = 1000;

export interface StarterOptions {
  readonly version: PgMajor;
  readonly systemId: bigint;
  /** End of the log so far: 8-aligned, not inside a page header; may be the start of a page or segment. */
  readonly timelineLsn: Lsn;
  /** Start of the last record of the log so far; any lower LSN when unknown. */
  readonly prevLsn: Lsn;
  readonly timelineId: number;
  readonly segmentSize: number;
  /** `redo`, the timeline ids and `oldestActiveXid` are replaced. */
  readonly checkpoint: CheckPoint;
  /** Settings and identity that pg_control keeps besides; defaults are a new cluster's. */
  readonly template?: Partial<ControlFile>;
}

export interface StarterFile {
  /** Name in pg_wal. */
  readonly fileName: string;
  /** The segment's beginning; the file is to be as long as a segment, the rest zero. */
  readonly bytes: Uint8Array;
}

export interface StarterSegment {
  /** One file, or two when the record crosses into the next segment. */
  readonly files: readonly StarterFile[];
  readonly recordLsn: Lsn;
  /** Where the server's first own record goes. */
  readonly endLsn: Lsn;
  /** The log from `timelineLsn` to `endLsn`, page headers included: what the safekeepers are to get. */
  readonly wal: Uint8Array;
  /** pg_control, 8192 bytes. */
  readonly controlFile: Uint8Array;
}

/** @throws StrataError fix-input `bad-start-lsn`, `bad-segment-size` */
export function buildStarterSegment(options: StarterOptions): StarterSegment {
  const { timelineLsn, timelineId, version } = options;
  if (options.prevLsn >= timelineLsn) {
    throw new StrataError("fix-input", "bad-start-lsn", `a record at ${lsnToString(timelineLsn)} cannot follow one at ${lsnToString(options.prevLsn)}`);
  }
  const writer = new WalWriter({ ...options, startLsn: timelineLsn, previousLsn: options.prevLsn });
  const recordLsn = timelineLsn + (timelineLsn % WAL_PAGE_SIZE === 0 ? pageHeaderSize(timelineLsn, options.segmentSize) : 0);
  const checkpoint: CheckPoint = {
    ...options.checkpoint,
    redo: recordLsn,
    timelineId,
    previousTimelineId: timelineId,
    oldestActiveXid: 0,
  };
  const mainData = encodeCheckPoint(checkpoint, version);
  invariant(mainData.length === CHECKPOINT_SIZE, "a checkpoint has 88 bytes");
  const place = writer.append(encodeRecord({ version, rmid: RMGR.XLOG, info: XLOG_CHECKPOINT_SHUTDOWN, mainData }));
  invariant(place.lsn === recordLsn, "the starter record begins where its checkpoint says");
  const wal = writer.take();
  return { files: layOutFiles(options, wal), recordLsn, endLsn: place.endLsn, wal, controlFile: encodeControlFile(starterControlFile(options, checkpoint)) };
}

function layOutFiles(options: StarterOptions, wal: Uint8Array): StarterFile[] {
  const { timelineLsn, segmentSize, timelineId } = options;
  const endLsn = timelineLsn + wal.length;
  const files: StarterFile[] = [];
  for (let start = timelineLsn - (timelineLsn % segmentSize); start < endLsn; start += segmentSize) {
    const from = Math.max(start, timelineLsn);
    const to = Math.min(start + segmentSize, endLsn);
    const bytes = new Uint8Array(Math.ceil((to - start) / WAL_PAGE_SIZE) * WAL_PAGE_SIZE);
    copyBytes(wal, from - timelineLsn, bytes, from - start, to - from);
    files.push({ fileName: walSegmentName({ timelineId, lsn: start, segmentSize }), bytes });
  }
  writeLeadingHeaders(options, files[0].bytes);
  return files;
}

/** The headers of the segment's first page and of the page on which the record starts, when it starts behind them. */
function writeLeadingHeaders(options: StarterOptions, segment: Uint8Array): void {
  const { timelineLsn, segmentSize, timelineId, systemId } = options;
  const segmentLsn = timelineLsn - (timelineLsn % segmentSize);
  const inPage = timelineLsn % WAL_PAGE_SIZE;
  const pageLsn = timelineLsn - inPage;
  if (pageLsn !== segmentLsn) {
    encodePageHeader({ info: 0, timelineId, pageLsn: segmentLsn, remainingLength: 0, systemId }, options, dataViewOf(segment));
  }
  if (inPage === 0) return;
  const remainingLength = inPage - pageHeaderSize(pageLsn, segmentSize);
  const info = remainingLength > 0 ? XLP_FIRST_IS_CONTRECORD : 0;
  encodePageHeader({ info, timelineId, pageLsn, remainingLength, systemId }, options, dataViewOf(segment.subarray(pageLsn - segmentLsn)));
}

function starterControlFile(options: StarterOptions, checkpoint: CheckPoint): ControlFile {
  return {
    catalogVersion: VERSION_CONSTANTS[options.version].catalogVersion,
    timeSeconds: checkpoint.timeSeconds,
    unloggedLsn: FIRST_UNLOGGED_LSN,
    walLevel: checkpoint.walLevel,
    walLogHints: false,
    maxConnections: 100,
    maxWorkerProcesses: 8,
    maxWalSenders: 10,
    maxPreparedXacts: 0,
    maxLocksPerXact: 64,
    trackCommitTimestamp: false,
    relationSegmentBlocks: 131072,
    dataChecksumVersion: 0,
    defaultCharSigned: true,
    mockAuthenticationNonce: new Uint8Array(32),
    ...options.template,
    version: options.version,
    systemId: options.systemId,
    state: "shut-down",
    checkpointLsn: checkpoint.redo,
    checkpoint,
    minRecoveryPoint: 0,
    minRecoveryPointTimelineId: 0,
    backupStartPoint: 0,
    backupEndPoint: 0,
    backupEndRequired: false,
    segmentSize: options.segmentSize,
  };
}
