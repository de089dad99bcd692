/**
 * The acceptor: one timeline's side of the consensus, without I/O, clock or randomness.
 *
 * A handler is a generator: it yields the effects it needs done, in order, and is resumed when each is durable, or has
 * the failure thrown into it; it returns the answer for the proposer. One message at a time: the caller runs a handler
 * to its end before it starts the next. `persisted` changes only after its effect succeeded, so a crash between two
 * effects leaves what the disk has, no more.
 *
 * Source of the rules: the peer (neondatabase/neon) docs/safekeeper-protocol.md and safekeeper/src/safekeeper.rs. It is
 * Raft's log replication with the leader outside the group (Ongaro, Ousterhout, "In Search of an Understandable
 * Consensus Algorithm", section 5): vote = RequestVote, elected + append = AppendEntries.
 */
import { StrataError } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { type Configuration, INVALID_GENERATION } from "../api/membership.ts";
import { type AppendResponse, EMPTY_HOT_STANDBY_FEEDBACK } from "../api/proposer-messages.ts";
import { historyUpTo, lastLogTerm, type Term, type TermHistory } from "../api/term-history.ts";
import { checkPatch } from "../control-file/check-patch.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";

/** What the shell must do before the handler goes on. */
export type Effect =
  /** Control file, durably. */
  | { readonly kind: "persist"; readonly state: TimelinePersistentState }
  | { readonly kind: "initialize-first-segment"; readonly lsn: Lsn }
  /** Cut the log at `lsn`, a record boundary: durably, and before anything is written. */
  | { readonly kind: "truncate-wal"; readonly lsn: Lsn }
  | { readonly kind: "write-wal"; readonly lsn: Lsn; readonly bytes: Uint8Array }
  | { readonly kind: "flush-wal" }
  | { readonly kind: "note"; readonly level: "info" | "warn"; readonly message: string; readonly fields: Readonly<Record<string, string>> };

export type Steps<T> = Generator<Effect, T, void>;

/** Where the log stands. Effects move it; the acceptor only looks. */
export interface LogView {
  /** End of what was taken in, perhaps inside a record, perhaps not durable; 0 = no log yet. */
  readonly writeLsn: Lsn;
  /** End of the last whole record that is durable: what the protocol calls flush_lsn. 0 = no log yet. */
  readonly flushRecordLsn: Lsn;
  /** True after a start or a failure until a truncation succeeded: nothing may be appended. */
  readonly needsTruncation: boolean;
}

/** Newer than what is persisted, at most a little: the timeline's manager writes them out off the hot path. */
export interface VolatileState {
  commitLsn: Lsn;
  backupLsn: Lsn;
  peerHorizonLsn: Lsn;
  remoteConsistentLsn: Lsn;
}

export class Acceptor {
  readonly nodeId: NodeId;
  readonly log: LogView;
  readonly volatile: VolatileState;
  /** Where the term followed now began; reaching it with commit_lsn is what a proposer's sync waits for. */
  termStartLsn: Lsn = 0;
  #persisted: TimelinePersistentState;

  constructor(options: { nodeId: NodeId; state: TimelinePersistentState; log: LogView }) {
    this.nodeId = options.nodeId;
    this.log = options.log;
    this.#persisted = options.state;
    const { commitLsn, backupLsn, peerHorizonLsn, remoteConsistentLsn } = options.state;
    this.volatile = { commitLsn, backupLsn, peerHorizonLsn, remoteConsistentLsn };
  }

  get persisted(): TimelinePersistentState {
    return this.#persisted;
  }

  /** Never below the start of the timeline, so that commit_lsn <= flush_lsn holds before there is any WAL. */
  get flushLsn(): Lsn {
    return Math.max(this.log.flushRecordLsn, this.#persisted.timelineStartLsn);
  }

  /** The history of the WAL that is here. */
  get logHistory(): TermHistory {
    return historyUpTo(this.#persisted.termHistory, this.flushLsn);
  }

  get lastLogTerm(): Term {
    return lastLogTerm(this.#persisted.termHistory, this.flushLsn);
  }

  /** Writes out `patch` together with the volatile positions; no effect when nothing differs. */
  *persist(patch: Partial<TimelinePersistentState> = {}): Steps<void> {
    const next: TimelinePersistentState = { ...this.#persisted, ...this.volatile, ...patch };
    if (sameState(next, this.#persisted)) return;
    yield { kind: "persist", state: next };
    this.#persisted = next;
    // Others may have moved the volatile positions on meanwhile: never back.
    for (const key of ["commitLsn", "backupLsn", "peerHorizonLsn", "remoteConsistentLsn"] as const) {
      this.volatile[key] = Math.max(this.volatile[key], next[key]);
    }
  }

  /**
   * Changes fields by an operator's hand: positions may go back, to what may be.
   * @throws StrataError fix-input `inconsistent-control-file`
   */
  *overwrite(patch: Partial<TimelinePersistentState>): Steps<void> {
    const before: TimelinePersistentState = { ...this.#persisted, ...this.volatile };
    const next: TimelinePersistentState = { ...before, ...patch };
    checkPatch({ before, after: next, fields: patch, logEndLsn: this.log.flushRecordLsn });
    yield { kind: "persist", state: next };
    this.#persisted = next;
    for (const key of ["commitLsn", "backupLsn", "peerHorizonLsn", "remoteConsistentLsn"] as const) this.volatile[key] = next[key];
  }

  /** Positions are written out by the caller: `persist()` with a state changed elsewhere (partial backup, eviction) goes through here too. */
  *switchConfiguration(to: Configuration): Steps<void> {
    // A configuration is decided once for its generation: an older or equal one has nothing new to say.
    if (to.generation <= this.#persisted.configuration.generation) return;
    yield* this.persist({ configuration: to });
  }

  /** Raises the term to `to` (one up when null), so that proposers of lower terms are refused from now on. */
  *bumpTerm(to: Term | null): Steps<{ previousTerm: Term; currentTerm: Term }> {
    const previousTerm = this.#persisted.term;
    const term = to === null ? previousTerm + 1 : Math.max(previousTerm, to);
    yield* this.persist({ term });
    return { previousTerm, currentTerm: term };
  }

  /** @throws StrataError conflict `generation-mismatch`: the proposer learns the right configuration from a new greeting */
  checkGeneration(generation: number): void {
    const ours = this.#persisted.configuration.generation;
    if (generation === ours) return;
    const said = generation === INVALID_GENERATION ? "none" : String(generation);
    throw new StrataError("conflict", "generation-mismatch", `membership generation ${said} in the message, ${ours} here`);
  }

  /**
   * Takes over a commit position said by the proposer or a peer, as far as the log reaches here. The caller has made
   * sure that the log is of the history in which that position was committed.
   */
  *advanceCommit(candidate: Lsn): Steps<void> {
    // Raft: commitIndex = min(leaderCommit, index of last new entry). Never back: the proposer may know less than peers do.
    const commitLsn = Math.max(this.volatile.commitLsn, Math.min(candidate, this.flushLsn));
    this.volatile.commitLsn = commitLsn;
    // A proposer that only synchronizes waits until the persisted commit_lsn of a quorum has reached the start of its
    // term, so that moment alone is persisted at once.
    if (commitLsn >= this.termStartLsn && this.#persisted.commitLsn < this.termStartLsn) yield* this.persist();
  }

  appendResponse(): AppendResponse {
    return {
      kind: "append",
      generation: this.#persisted.configuration.generation,
      term: this.#persisted.term,
      flushLsn: this.flushLsn,
      commitLsn: this.#persisted.commitLsn,
      hotStandbyFeedback: EMPTY_HOT_STANDBY_FEEDBACK,
      pageserverFeedback: null,
    };
  }
}

function sameState(a: TimelinePersistentState, b: TimelinePersistentState): boolean {
  return (Object.keys(a) as (keyof TimelinePersistentState)[]).every((key) => a[key] === b[key] || (key === "termHistory" && sameHistory(a.termHistory, b.termHistory)));
}

function sameHistory(a: TermHistory, b: TermHistory): boolean {
  return a.length === b.length && a.every((entry, i) => entry.term === b[i].term && entry.lsn === b[i].lsn);
}
