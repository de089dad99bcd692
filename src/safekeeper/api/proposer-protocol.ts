/**
 * Messages between a proposer (in the compute) and an acceptor (safekeeper), and their two wire forms. Each message
 * is the payload of one CopyData on a connection that said START_WAL_PUSH.
 *
 * A session: → greeting ← greeting → vote-request ← vote → elected (no answer), then → append … ← append. Version 3
 * (`proposer-protocol-v3.ts`) is big-endian and carries the membership generation; version 2
 * (`proposer-protocol-v2.ts`) is the same fields as little-endian C structs, without generations: decoded, its
 * messages have generation 0 and the empty configuration.
 *
 * Source: the peer safekeeper/src/safekeeper.rs, pgxn/neon/walproposer.[ch], docs/safekeeper-protocol.md.
 */
import { StrataError } from "../../kit/errors.ts";
import type { NodeId, TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Configuration } from "./membership.ts";
import type { PageserverFeedback } from "./pageserver-feedback.ts";
import * as v2 from "./proposer-protocol-v2.ts";
import * as v3 from "./proposer-protocol-v3.ts";
import type { Term, TermHistory } from "./term-history.ts";

export type ProposerProtocolVersion = 2 | 3;

export { MAX_APPEND_BYTES } from "./append-body.ts";

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

/** @throws StrataError fix-input `unsupported-protocol-version` */
export function parseProposerProtocolVersion(text: string): ProposerProtocolVersion {
  if (text === "2") return 2;
  if (text === "3") return 3;
  throw new StrataError("fix-input", "unsupported-protocol-version", `proposer protocol version "${text}" is not supported (2 and 3 are)`);
}

/**
 * The returned append's `walData` is a view of `bytes`.
 * @throws StrataError corrupt `truncated`, fix-input `bad-proposer-message`, `bad-lsn`, `bad-term-history`, `bad-configuration`
 */
export function decodeProposerMessage(bytes: Uint8Array, version: ProposerProtocolVersion): ProposerMessage {
  return version === 3 ? v3.decodeProposerMessage(bytes) : v2.decodeProposerMessage(bytes);
}

/** Of an append, header and WAL in one array. */
export function encodeProposerMessage(message: ProposerMessage, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeProposerMessage(message) : v2.encodeProposerMessage(message);
}

/** The bytes that go before `walData`: lets a sender pass the WAL itself on without a copy. */
export function encodeAppendHeader(request: AppendRequest, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeAppendHeader(request) : v2.encodeAppendHeader(request);
}

/** @throws StrataError corrupt `truncated`, fix-input `bad-acceptor-message`, `bad-lsn`, … */
export function decodeAcceptorMessage(bytes: Uint8Array, version: ProposerProtocolVersion): AcceptorMessage {
  return version === 3 ? v3.decodeAcceptorMessage(bytes) : v2.decodeAcceptorMessage(bytes);
}

export function encodeAcceptorMessage(message: AcceptorMessage, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeAcceptorMessage(message) : v2.encodeAcceptorMessage(message);
}
