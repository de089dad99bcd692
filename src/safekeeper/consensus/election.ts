/** Greeting, vote and elected: how a proposer comes to be the one whose WAL is taken. */
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import { configurationToString, isMember } from "../api/membership.ts";
import type { AcceptorGreeting, ProposerElected, ProposerGreeting, VoteRequest, VoteResponse } from "../api/proposer-messages.ts";
import { highestCommonPoint, termHistoryToString } from "../api/term-history.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import type { Acceptor, Steps } from "./acceptor.ts";

/**
 * Checks that the proposer writes the WAL that this timeline holds, takes over a newer configuration, and says the term.
 * @throws StrataError conflict `wrong-timeline`, `server-mismatch`, `not-a-member`
 */
export function* handleGreeting(acceptor: Acceptor, greeting: ProposerGreeting): Steps<AcceptorGreeting> {
  const state = acceptor.persisted;
  checkIdentity(state, greeting);
  // A proposer that only synchronizes knows no system id and sends 0; a timeline that none has written to has none.
  if (greeting.systemId !== 0n && state.systemId === 0n) {
    yield* acceptor.persist({ systemId: greeting.systemId, pgVersion: greeting.pgVersion === 0 ? state.pgVersion : greeting.pgVersion });
  }
  const { configuration } = greeting;
  if (configuration.generation > acceptor.persisted.configuration.generation && !isMember(configuration, acceptor.nodeId)) {
    throw new StrataError("conflict", "not-a-member", `node ${acceptor.nodeId} is not a member of configuration ${configurationToString(configuration)}`);
  }
  yield* acceptor.switchConfiguration(configuration);
  return { kind: "greeting", nodeId: acceptor.nodeId, configuration: acceptor.persisted.configuration, term: acceptor.persisted.term };
}

function checkIdentity(state: TimelinePersistentState, greeting: ProposerGreeting): void {
  if (greeting.tenantId !== state.tenantId || greeting.timelineId !== state.timelineId) {
    throw new StrataError("conflict", "wrong-timeline", `greeting for ${greeting.tenantId}/${greeting.timelineId} on a connection of ${state.tenantId}/${state.timelineId}`);
  }
  // The WAL format is the major version's; minor releases may follow each other on one timeline.
  const major = (version: number): number => Math.floor(version / 10000);
  if (greeting.pgVersion !== 0 && major(greeting.pgVersion) !== major(state.pgVersion)) {
    throw new StrataError("conflict", "server-mismatch", `PostgreSQL ${greeting.pgVersion} cannot go on with the WAL of ${state.pgVersion}`);
  }
  if (greeting.systemId !== 0n && state.systemId !== 0n && greeting.systemId !== state.systemId) {
    throw new StrataError("conflict", "server-mismatch", `system identifier is ${greeting.systemId} at the proposer, ${state.systemId} here: its WAL is another database cluster's`);
  }
  if (greeting.walSegmentSizeBytes !== state.walSegmentSizeBytes) {
    throw new StrataError("conflict", "server-mismatch", `WAL segment size is ${greeting.walSegmentSizeBytes} at the proposer, ${state.walSegmentSizeBytes} here`);
  }
}

/**
 * Votes once a term; not at all while recovering: what this node once voted and acknowledged is not known to it, so that a
 * majority with its vote would prove nothing (Raft 5.2, 5.4.1: votes and logs are durable). The term is raised all the same, so
 * that whoever is elected by the others is followed.
 * @throws StrataError conflict `generation-mismatch`
 */
export function* handleVoteRequest(acceptor: Acceptor, request: VoteRequest): Steps<VoteResponse> {
  acceptor.checkGeneration(request.generation);
  // Everything received goes into the vote: after it older proposers are refused, so the log cannot grow behind the
  // back of the one who counts on this answer.
  yield { kind: "flush-wal" };
  const isNewTerm = acceptor.persisted.term < request.term;
  const voteGiven = isNewTerm && !acceptor.persisted.recovering;
  // Raft 5.1, 5.2: the term is durable before the vote leaves, or a restart could vote twice.
  if (isNewTerm) yield* acceptor.persist({ term: request.term });
  return {
    kind: "vote",
    generation: acceptor.persisted.configuration.generation,
    term: acceptor.persisted.term,
    voteGiven,
    flushLsn: acceptor.flushLsn,
    truncateLsn: acceptor.volatile.peerHorizonLsn,
    termHistory: acceptor.logHistory,
  };
}

/**
 * Makes the log a prefix of the elected proposer's: cuts it where the two part, then adopts the proposer's history.
 * Silent when a higher term is known: the first append tells the proposer.
 * @param safekeeperCount of how many safekeepers the proposer makes its majorities; 0 = it did not say. It is remembered with the
 * term that was won, for it counts for that term's commits only: a greeting of someone who is not elected says nothing.
 * @throws StrataError conflict `generation-mismatch`, `wrong-truncation-point` (the proposer should reconnect),
 * `truncation-of-committed`, `term-history-mismatch`; fix-input `bad-term-history`
 */
export function* handleElected(acceptor: Acceptor, elected: ProposerElected, safekeeperCount = 0): Steps<null> {
  acceptor.checkGeneration(elected.generation);
  if (acceptor.persisted.term < elected.term) yield* acceptor.persist({ term: elected.term });
  if (acceptor.persisted.term > elected.term) return null;

  const first = elected.termHistory.at(0);
  const last = elected.termHistory.at(-1);
  if (first === undefined || last === undefined || last.term > elected.term) {
    throw new StrataError("fix-input", "bad-term-history", `history ${termHistoryToString(elected.termHistory)} of a proposer elected in term ${elected.term}`);
  }
  checkTruncationPoint(acceptor, elected, first.lsn);
  // The proposer's stream begins in the middle of a segment: the part before it is made here, so that the segment is whole.
  if (acceptor.log.flushRecordLsn === 0) yield { kind: "initialize-first-segment", lsn: elected.startStreamingAt };
  yield { kind: "truncate-wal", lsn: elected.startStreamingAt };
  // Only now: the history must never claim a term for WAL of another one (Raft's log matching).
  yield* acceptor.persist({ ...adopted(acceptor, elected, first.lsn), safekeeperCount });
  acceptor.termStartLsn = last.lsn;
  return null;
}

function checkTruncationPoint(acceptor: Acceptor, elected: ProposerElected, historyStart: number): void {
  const { startStreamingAt, termHistory } = elected;
  const common = highestCommonPoint(termHistory, acceptor.logHistory, acceptor.flushLsn)?.lsn ?? historyStart;
  const here = `log ends at ${lsnToString(acceptor.flushLsn)}, history ${termHistoryToString(acceptor.logHistory)}; proposer's ${termHistoryToString(termHistory)}`;
  // Another connection of the same proposer may have written since the vote: it computes the point anew after a reconnect.
  if (common !== startStreamingAt) {
    throw new StrataError("conflict", "wrong-truncation-point", `told to cut the log at ${lsnToString(startStreamingAt)}, it parts at ${lsnToString(common)}: ${here}`);
  }
  // Raft's leader completeness: whoever was elected has all that was committed, and so never asks for this.
  if (startStreamingAt < acceptor.volatile.commitLsn) {
    const committed = lsnToString(acceptor.volatile.commitLsn);
    throw new StrataError("conflict", "truncation-of-committed", `told to cut the log at ${lsnToString(startStreamingAt)}, committed up to ${committed}: ${here}`);
  }
}

function adopted(acceptor: Acceptor, elected: ProposerElected, historyStart: number): Partial<TimelinePersistentState> {
  const state = acceptor.persisted;
  const { volatile } = acceptor;
  const timelineStartLsn = state.timelineStartLsn === 0 ? historyStart : state.timelineStartLsn;
  return {
    termHistory: elected.termHistory,
    timelineStartLsn,
    localStartLsn: state.localStartLsn === 0 ? elected.startStreamingAt : state.localStartLsn,
    peerHorizonLsn: volatile.peerHorizonLsn === 0 ? timelineStartLsn : volatile.peerHorizonLsn,
    // From here on the end of the log is searched for from commit_lsn, which jumps over the hole before the first record.
    commitLsn: Math.max(volatile.commitLsn, timelineStartLsn),
    backupLsn: Math.max(volatile.backupLsn, timelineStartLsn),
    remoteConsistentLsn: Math.max(volatile.remoteConsistentLsn, timelineStartLsn),
  };
}
