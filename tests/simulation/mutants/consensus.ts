/** Mistakes in the rules of the acceptor: what a safekeeper may promise, take and forget. */
import type { Mutant } from "./mutant.ts";

const ELECTION = "safekeeper/consensus/election.ts";
const ACCEPTOR = "safekeeper/consensus/acceptor.ts";
const APPEND = "safekeeper/consensus/append.ts";
const HISTORY = "safekeeper/api/term-history.ts";

export const CONSENSUS_MUTANTS: readonly Mutant[] = [
  { name: "two-votes-a-term", rule: "a vote is given once a term", file: ELECTION, find: "const isNewTerm = acceptor.persisted.term < request.term;", replace: "const isNewTerm = acceptor.persisted.term <= request.term;" },
  {
    name: "vote-before-persisted", rule: "the term is durable before the vote leaves", file: ACCEPTOR,
    find: `    if (sameState(next, this.#persisted)) return;\n    yield { kind: "persist", state: next };`,
    replace: `    if (sameState(next, this.#persisted)) return;\n    if (!("term" in patch)) yield { kind: "persist", state: next };`,
  },
  {
    name: "history-before-truncation", rule: "the log is cut before the new history is adopted", file: ELECTION,
    find: `  yield { kind: "truncate-wal", lsn: elected.startStreamingAt };\n  // Only now: the history must never claim a term for WAL of another one (Raft's log matching).\n  yield* acceptor.persist({ ...adopted(acceptor, elected, first.lsn), safekeeperCount });`,
    replace: `  yield* acceptor.persist({ ...adopted(acceptor, elected, first.lsn), safekeeperCount });\n  yield { kind: "truncate-wal", lsn: elected.startStreamingAt };`,
  },
  { name: "elected-of-older-term", rule: "a superseded proposer cuts no log", file: ELECTION, find: "if (acceptor.persisted.term > elected.term) return null;", replace: "" },
  { name: "truncation-unchecked", rule: "the point of truncation is computed anew where it happens", file: ELECTION, find: "  checkTruncationPoint(acceptor, elected, first.lsn);\n", replace: "" },
  { name: "peer-commit-of-other-term", rule: "a peer's commit_lsn counts only when both logs end in one term", file: APPEND, find: "|| peer.lastLogTerm !== acceptor.lastLogTerm) return;", replace: ") return;" },
  { name: "minority-is-committed", layer: "world", rule: "a commit is derived from a majority", file: "safekeeper/consensus/derived-commit.ts", find: "Math.floor(size / 2)", replace: "Math.floor(size / 2) - 1" },
  { name: "last-log-term-is-term", rule: "last_log_term is the term of the last byte, not the term voted for", file: ACCEPTOR, find: "return lastLogTerm(this.#persisted.termHistory, this.flushLsn);", replace: "return this.#persisted.term;" },
  { name: "commit-beyond-flush", rule: "commit_lsn is at most flush_lsn", file: ACCEPTOR, find: "Math.max(this.volatile.commitLsn, Math.min(candidate, this.flushLsn))", replace: "Math.max(this.volatile.commitLsn, candidate)" },
  { name: "commit-goes-back", rule: "commit_lsn never goes back", file: ACCEPTOR, find: "Math.max(this.volatile.commitLsn, Math.min(candidate, this.flushLsn))", replace: "Math.min(candidate, this.flushLsn)" },
  { name: "append-anywhere", rule: "an append continues the log", file: APPEND, find: "if (writeLsn === beginLsn) return;", replace: "if (writeLsn !== -1 || beginLsn > 0) return;" },
  { name: "own-term-end-only", rule: "logs part where the first of the two ends the common term", file: HISTORY, find: "Math.min(acceptorTermEnd, proposerTermEnd)", replace: "acceptorTermEnd" },
  { name: "history-beyond-log", rule: "a log's history holds only the terms it has reached", file: HISTORY, find: "return end < 0 ? history : history.slice(0, end);", replace: "return end < -1 ? [] : history;" },
];
