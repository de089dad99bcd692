/**
 * Messages between a proposer (in the compute) and an acceptor (safekeeper), whatever their wire form (`proposer-protocol.ts`). A
 * session: → greeting ← greeting → vote-request ← vote → elected (no answer), then → append … ← append.
 */
import type { NodeId, TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Configuration } from "./membership.ts";
import type { PageserverFeedback } from "./pageserver-feedback.ts";
import type { Term, TermHistory } from "./term-history.ts";

export interface ProposerGreeting {
  readonly kind: "greeting";
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly configuration: Configuration;
  /** PG_VERSION_NUM, e.g. 170010; 0 when not known. */
  readonly pgVersion: number;
  /** 0 when not known. */
  readonly systemId: bigint;
  readonly walSegmentSizeBytes: number;
}

export interface VoteRequest {
  readonly kind: "vote-request";
  readonly generation: number;
  readonly term: Term;
}

export interface ProposerElected {
  readonly kind: "elected";
  readonly generation: number;
  readonly term: Term;
  /** Where the appends to this acceptor will begin: its log is cut there first. */
  readonly startStreamingAt: Lsn;
  /** Of the proposer's log, its own term last. */
  readonly termHistory: TermHistory;
}

export interface AppendRequest {
  readonly kind: "append";
  readonly generation: number;
  readonly term: Term;
  readonly beginLsn: Lsn;
  /** beginLsn + walData.length; equal to beginLsn in a heartbeat. */
  readonly endLsn: Lsn;
  readonly commitLsn: Lsn;
  /** Below this every safekeeper has the WAL: none needs it for recovery. */
  readonly truncateLsn: Lsn;
  readonly walData: Uint8Array;
}

export type ProposerMessage = ProposerGreeting | VoteRequest | ProposerElected | AppendRequest;

export interface AcceptorGreeting {
  readonly kind: "greeting";
  readonly nodeId: NodeId;
  readonly configuration: Configuration;
  /** The highest term this acceptor has voted for. */
  readonly term: Term;
}

export interface VoteResponse {
  readonly kind: "vote";
  readonly generation: number;
  readonly term: Term;
  readonly voteGiven: boolean;
  readonly flushLsn: Lsn;
  readonly truncateLsn: Lsn;
  /** Of the WAL it has, so cut at flushLsn. */
  readonly termHistory: TermHistory;
}

/** Oldest transactions that standbys still need; all zero = no standby asked. */
export interface HotStandbyFeedback {
  /** Microseconds since 2000-01-01. */
  readonly timestamp: bigint;
  /** 64-bit (epoch-extended) transaction ids, 0 = none. */
  readonly xmin: bigint;
  readonly catalogXmin: bigint;
}

export const EMPTY_HOT_STANDBY_FEEDBACK: HotStandbyFeedback = { timestamp: 0n, xmin: 0n, catalogXmin: 0n };

export interface AppendResponse {
  readonly kind: "append";
  readonly generation: number;
  /** Higher than the proposer's own: it has been superseded. */
  readonly term: Term;
  /** 0 with a higher term: then only the term has a meaning. */
  readonly flushLsn: Lsn;
  /** The commit position in the acceptor's control file (persisted), which ends a proposer's sync. */
  readonly commitLsn: Lsn;
  readonly hotStandbyFeedback: HotStandbyFeedback;
  readonly pageserverFeedback: PageserverFeedback | null;
}

export type AcceptorMessage = AcceptorGreeting | VoteResponse | AppendResponse;
