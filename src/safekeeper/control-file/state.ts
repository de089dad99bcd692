/** What a safekeeper remembers of a timeline across restarts: the content of its control file. */
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { majorFromVersionNum } from "../../postgres/versions/major.ts";
import { checkSegmentSize } from "../../postgres/wal/page-header.ts";
import { type Configuration, EMPTY_CONFIGURATION } from "../api/membership.ts";
import type { Term, TermHistory } from "../api/term-history.ts";

export type UploadStatus = "in-progress" | "uploaded" | "deleting";

/** A `.partial` segment in object storage. */
export interface PartialRemoteSegment {
  readonly status: UploadStatus;
  readonly name: string;
  readonly commitLsn: Lsn;
  readonly flushLsn: Lsn;
  /** Term of the WAL's last byte when it was uploaded. */
  readonly term: Term;
}

/** Whether the WAL files are on this disk, or (offloaded) only in object storage up to `flushLsn`. */
export type EvictionState = { readonly kind: "present" } | { readonly kind: "offloaded"; readonly flushLsn: Lsn };

export interface TimelinePersistentState {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly configuration: Configuration;
  /** The highest term voted for. */
  readonly term: Term;
  /** Of the proposer last followed; may reach beyond the WAL that is here. */
  readonly termHistory: TermHistory;
  /** PG_VERSION_NUM. */
  readonly pgVersion: number;
  readonly systemId: bigint;
  readonly walSegmentSizeBytes: number;
  /** 32 hex digits; only for people. */
  readonly proposerUuid: string;
  /** Where the timeline's WAL begins anywhere; 0 until the first proposer said so. */
  readonly timelineStartLsn: Lsn;
  /** Where this safekeeper's WAL began. */
  readonly localStartLsn: Lsn;
  /** Acknowledged by a quorum and present here: always the end of a record. */
  readonly commitLsn: Lsn;
  /** End of the last whole segment in object storage. */
  readonly backupLsn: Lsn;
  /** Below this no safekeeper of the timeline lacks WAL. */
  readonly peerHorizonLsn: Lsn;
  /** Below this the pageserver has everything in object storage. */
  readonly remoteConsistentLsn: Lsn;
  readonly partialBackup: readonly PartialRemoteSegment[];
  readonly evictionState: EvictionState;
  /** Milliseconds since the Unix epoch. */
  readonly createdMs: number;
  /**
   * This node may have promised and acknowledged what it does not know any more: the timeline was made anew here while others may
   * have WAL of it (a lost disk), or was copied. It gives no votes until an elected proposer has brought everything.
   */
  readonly recovering: boolean;
  /** Of how many safekeepers the elected proposer of the last term in the history makes its majorities; 0 = not said. */
  readonly safekeeperCount: number;
}

export interface NewTimeline {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly configuration?: Configuration;
  readonly pgVersion: number;
  readonly systemId: bigint;
  readonly walSegmentSizeBytes: number;
  /** 0 = unknown: learned from the first proposer. */
  readonly startLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly createdMs: number;
  /** False unless given: nobody has acknowledged anything of it yet. */
  readonly recovering?: boolean;
}

/** @throws StrataError fix-input: unknown PostgreSQL version, bad segment size, commitLsn below startLsn */
export function newTimelineState(timeline: NewTimeline): TimelinePersistentState {
  majorFromVersionNum(timeline.pgVersion);
  checkSegmentSize(timeline.walSegmentSizeBytes);
  const { startLsn, commitLsn } = timeline;
  if (commitLsn < startLsn) throw new StrataError("fix-input", "bad-commit-lsn", `commit LSN ${commitLsn} is below the start LSN ${startLsn}`);
  return {
    tenantId: timeline.tenantId,
    timelineId: timeline.timelineId,
    configuration: timeline.configuration ?? EMPTY_CONFIGURATION,
    term: 0,
    // With a known start every proposer must find a common point in the histories, or something is corrupt.
    termHistory: commitLsn === 0 ? [] : [{ term: 0, lsn: startLsn }],
    pgVersion: timeline.pgVersion,
    systemId: timeline.systemId,
    walSegmentSizeBytes: timeline.walSegmentSizeBytes,
    proposerUuid: "0".repeat(32),
    timelineStartLsn: startLsn,
    localStartLsn: startLsn,
    commitLsn,
    backupLsn: startLsn,
    peerHorizonLsn: startLsn,
    remoteConsistentLsn: 0,
    partialBackup: [],
    evictionState: { kind: "present" },
    createdMs: timeline.createdMs,
    recovering: timeline.recovering ?? false,
    safekeeperCount: 0,
  };
}
