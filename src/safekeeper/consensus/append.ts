/** Append and flush: taking the elected proposer's WAL, and what peers know about its being committed. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { type AppendRequest, type AppendResponse, EMPTY_HOT_STANDBY_FEEDBACK } from "../api/proposer-messages.ts";
import type { Term } from "../api/term-history.ts";
import type { Acceptor, Steps } from "./acceptor.ts";

/**
 * Takes WAL in without waiting for the disk; `handleFlush` later makes it durable and answers for all appends so far.
 * Answers at once only when the proposer is superseded, or when durability advanced by itself (a segment was completed).
 * @throws StrataError conflict `generation-mismatch`, `not-elected`, `wal-not-continuous`
 */
export function* handleAppend(acceptor: Acceptor, request: AppendRequest): Steps<AppendResponse | null> {
  acceptor.checkGeneration(request.generation);
  const { term, termHistory } = acceptor.persisted;
  // Raft 5.1: the answer carries only the term, for a superseded proposer must run for election again, not reconnect.
  if (term > request.term) return termOnly(acceptor);
  if (term < request.term || termHistory.at(-1)?.term !== request.term || acceptor.log.needsTruncation) {
    throw new StrataError("conflict", "not-elected", `append of term ${request.term} before its proposer announced its election here`);
  }
  checkContinuous(acceptor.log.writeLsn, request.beginLsn);
  const flushedBefore = acceptor.flushLsn;
  if (request.walData.length > 0) yield { kind: "write-wal", lsn: request.beginLsn, bytes: request.walData };
  yield* learnFromProposer(acceptor, request);
  if (acceptor.persisted.recovering) yield* endRecovery(acceptor, request);
  return acceptor.flushLsn === flushedBefore ? null : acceptor.appendResponse();
}

/**
 * An elected proposer's log has all that was committed before its term (Raft's leader completeness), and an append without WAL
 * says that it has no more than is here: nothing that this node ever acknowledged to anyone is missing then.
 */
function* endRecovery(acceptor: Acceptor, request: AppendRequest): Steps<void> {
  if (request.walData.length > 0) return;
  yield { kind: "flush-wal" };
  yield* acceptor.persist({ recovering: false });
  const fields = { term: String(request.term), flushLsn: lsnToString(acceptor.flushLsn) };
  yield { kind: "note", level: "info", message: "recovered: the log has all that the proposer has, this safekeeper votes again", fields };
}

function* learnFromProposer(acceptor: Acceptor, request: AppendRequest): Steps<void> {
  if (request.commitLsn !== 0) yield* acceptor.advanceCommit(request.commitLsn);
  // The proposer may have forgotten (it restarted) what it told us before, so never back.
  // It is the least of all members' logs, so beyond the end of ours it can only be wrong.
  acceptor.volatile.peerHorizonLsn = Math.max(acceptor.volatile.peerHorizonLsn, Math.min(request.truncateLsn, acceptor.flushLsn));
}

/** An earlier connection of the proposer may still deliver what a later one has already sent: refused, nothing is written twice. */
function checkContinuous(writeLsn: Lsn, beginLsn: Lsn): void {
  if (writeLsn === beginLsn) return;
  const what = beginLsn < writeLsn ? "rewrites WAL" : "leaves a gap";
  throw new StrataError("conflict", "wal-not-continuous", `append at ${lsnToString(beginLsn)} ${what}: the log ends at ${lsnToString(writeLsn)}`);
}

function termOnly(acceptor: Acceptor): AppendResponse {
  const { configuration, term } = acceptor.persisted;
  const nothing = { flushLsn: 0, commitLsn: 0, hotStandbyFeedback: EMPTY_HOT_STANDBY_FEEDBACK, pageserverFeedback: null };
  return { kind: "append", generation: configuration.generation, term, ...nothing };
}

/**
 * Makes all WAL taken in durable and answers for it.
 * @param proposerCommit what the last append said was committed: more of it may be durable here now
 */
export function* handleFlush(acceptor: Acceptor, proposerCommit: Lsn): Steps<AppendResponse> {
  yield { kind: "flush-wal" };
  if (proposerCommit !== 0) yield* acceptor.advanceCommit(proposerCommit);
  return acceptor.appendResponse();
}

/**
 * What a peer says is committed. Its position is of use only when both logs end in the same term: then the shorter is a
 * prefix of the longer (log matching), and so are the committed parts.
 */
export function* handlePeerCommit(acceptor: Acceptor, peer: { readonly lastLogTerm: Term; readonly commitLsn: Lsn }): Steps<void> {
  if (peer.commitLsn === 0 || peer.lastLogTerm !== acceptor.lastLogTerm) return;
  yield* acceptor.advanceCommit(peer.commitLsn);
}
