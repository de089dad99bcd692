/**
 * The invariants, looked at after every step of a run:
 *
 * - one leader a term, and one history of each term;
 * - log matching: WAL of one term is the same bytes wherever it is durable;
 * - commit_lsn, the term and what is persisted of both never go back, and commit_lsn <= flush_lsn;
 * - committed WAL is one sequence of bytes; what was durable on a safekeeper is there after every crash;
 * - an acknowledged commit is durable on a majority, and no election or settled log begins below it;
 * - a safekeeper that lost its disk calls itself whole only with all that it once acknowledged;
 * - a reader is sent committed WAL only; nobody calls WAL dispensable that some safekeeper lacks.
 *
 * It looks at the running objects and at the bytes on the virtual disks, never at what messages claim.
 */
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import type { VirtualDisk } from "../../../src/platform/virtual/virtual-disk.ts";
import { termHistoryToString, type Term, type TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import type { TimelinePersistentState } from "../../../src/safekeeper/control-file/state.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { Violation } from "../violation.ts";
import { readDurable } from "./disk-wal.ts";
import { KnownLog } from "./known-log.ts";

/** What is known of one safekeeper; survives its crashes. */
export interface Watched {
  readonly name: string;
  readonly disk: VirtualDisk;
  /** Null while the process is down or has no timeline. */
  timeline: Timeline | null;
  /** Bits were flipped on its disk: it may show wrong bytes, if they are noticed. */
  damaged: boolean;
  /** Its timeline was deleted, or its disk is beyond repair: it is out of the game. */
  gone: boolean;
  /** It lost its disk, with all that it had acknowledged, and has not been made whole yet: up to where it had WAL. */
  wipedAt: Lsn | null;
  /** In an orderly stop: what it makes durable and answers for while it closes is seen after its start. */
  isStopping: boolean;
  seen: Seen | null;
}

interface Seen {
  timeline: Timeline;
  state: TimelinePersistentState;
  flushLsn: Lsn;
  commitLsn: Lsn;
}

interface Leader {
  readonly who: string;
  readonly startLsn: Lsn;
}

export class Checker {
  readonly safekeepers: Watched[];
  /** What has been committed; null before anything was. */
  committed: KnownLog | null = null;
  readonly #terms = new Map<Term, KnownLog>();
  readonly #histories = new Map<Term, string>();
  readonly #leaders = new Map<Term, Leader>();
  /** Highest acknowledged commit by the term of the compute's proposer. */
  readonly #acknowledged = new Map<Term, Lsn>();
  acknowledgedLsn: Lsn = 0;
  acknowledgements = 0;
  /** Bytes readers were sent. */
  readBytes = 0;
  /** Where the timeline begins; 0 before anybody knows. */
  #startLsn: Lsn = 0;
  #violation: Violation | null = null;

  constructor(safekeepers: Watched[]) {
    this.safekeepers = safekeepers;
  }

  /** For violations found where an exception might be swallowed: the next look reports it. */
  report(violation: unknown): void {
    this.#violation ??= violation instanceof Violation ? violation : new Violation(String(violation));
  }

  get elections(): number {
    return this.#leaders.size;
  }

  /** After every step. @throws Violation */
  look(): void {
    if (this.#violation !== null) throw this.#violation;
    for (const safekeeper of this.safekeepers) if (safekeeper.timeline !== null) this.#lookAt(safekeeper, safekeeper.timeline);
  }

  #lookAt(watched: Watched, timeline: Timeline): void {
    const { acceptor } = timeline;
    const state = acceptor.persisted;
    const flushLsn = flushOf(timeline);
    const { commitLsn } = acceptor.volatile;
    const seen = watched.seen;
    if (watched.wipedAt !== null && !state.recovering && state !== seen?.state) this.#madeWhole(watched, watched.wipedAt, flushLsn);
    if (seen === null || seen.timeline !== timeline) return this.#opened(watched, timeline);
    if (seen.state === state && seen.flushLsn === flushLsn && seen.commitLsn === commitLsn) return;
    if (seen.state !== state) this.#stateChanged(watched.name, seen.state, state);
    if (commitLsn < seen.commitLsn) throw new Violation(`${watched.name}: commit_lsn went back from ${lsnToString(seen.commitLsn)} to ${lsnToString(commitLsn)}`);
    const from = Math.min(seen.flushLsn, flushLsn);
    const wasCut = flushLsn < seen.flushLsn;
    watched.seen = { timeline, state, flushLsn, commitLsn };
    this.#checkPositions(watched, timeline);
    if (wasCut) this.#checkHolders(watched.name);
    // A history adopted anew may call bytes by another term that were there before.
    const changed = seen.state.termHistory !== state.termHistory;
    this.#checkLog(watched, timeline, changed ? Math.max(state.timelineStartLsn, commonEnd(seen.state.termHistory, state.termHistory)) : from);
    this.#checkCommitted(watched, timeline, seen.commitLsn);
  }

  #madeWhole(watched: Watched, wipedAt: Lsn, flushLsn: Lsn): void {
    const owed = Math.min(wipedAt, this.acknowledgedLsn);
    if (flushLsn < owed) throw new Violation(`${watched.name} calls itself whole at ${lsnToString(flushLsn)}, before it lost its disk it had acknowledged WAL up to ${lsnToString(owed)}`);
    watched.wipedAt = null;
  }

  /** A log was cut: what was acknowledged is on a majority all the same. */
  #checkHolders(who: string): void {
    const holders = this.safekeepers.filter(({ gone, damaged, wipedAt, seen }) => gone || damaged || wipedAt !== null || (seen?.flushLsn ?? 0) >= this.acknowledgedLsn);
    if (2 * holders.length <= this.safekeepers.length) throw new Violation(`the log of ${who} was cut, and what was acknowledged up to ${lsnToString(this.acknowledgedLsn)} is on ${holders.length} of ${this.safekeepers.length}`);
  }

  /** A process has opened the timeline: all that was seen must still be there. */
  #opened(watched: Watched, timeline: Timeline): void {
    const { acceptor } = timeline;
    const state = acceptor.persisted;
    const flushLsn = flushOf(timeline);
    const { commitLsn } = acceptor.volatile;
    const { name, seen } = watched;
    if (seen !== null && !watched.gone) {
      this.#stateChanged(name, seen.state, state);
      if (flushLsn < seen.flushLsn) throw new Violation(`${name}: WAL was durable up to ${lsnToString(seen.flushLsn)}, after a restart the log ends at ${lsnToString(flushLsn)}`);
    }
    watched.seen = { timeline, state, flushLsn, commitLsn };
    this.#checkHistory(name, state.termHistory);
    this.#checkPositions(watched, timeline);
    this.#checkLog(watched, timeline, state.timelineStartLsn);
    this.#checkCommitted(watched, timeline, state.timelineStartLsn);
  }

  #stateChanged(name: string, before: TimelinePersistentState, after: TimelinePersistentState): void {
    if (after.term < before.term) throw new Violation(`${name}: the term went back from ${before.term} to ${after.term}`);
    if (after.commitLsn < before.commitLsn) throw new Violation(`${name}: the persisted commit_lsn went back from ${lsnToString(before.commitLsn)} to ${lsnToString(after.commitLsn)}`);
    if (after.termHistory !== before.termHistory) this.#checkHistory(name, after.termHistory);
  }

  #checkHistory(name: string, history: TermHistory): void {
    const last = history.at(-1);
    if (last === undefined) return;
    const text = termHistoryToString(history);
    const known = this.#histories.get(last.term);
    if (known === undefined) this.#histories.set(last.term, text);
    else if (known !== text) throw new Violation(`${name}: the history of term ${last.term} is ${text}, elsewhere ${known}`);
    const leader = this.#leaders.get(last.term);
    if (leader !== undefined && leader.startLsn !== last.lsn) throw new Violation(`${name}: term ${last.term} begins at ${lsnToString(last.lsn)}, its leader says ${lsnToString(leader.startLsn)}`);
  }

  #checkPositions({ name }: Watched, timeline: Timeline): void {
    const { flushLsn, volatile, persisted } = timeline.acceptor;
    this.#startLsn = Math.max(this.#startLsn, persisted.timelineStartLsn);
    if (volatile.commitLsn > flushLsn) throw new Violation(`${name}: commit_lsn ${lsnToString(volatile.commitLsn)} is above flush_lsn ${lsnToString(flushLsn)}`);
    for (const other of this.safekeepers) {
      const otherFlush = other.seen?.flushLsn ?? 0;
      if (other.gone || other.wipedAt !== null || other.isStopping || volatile.peerHorizonLsn <= Math.max(otherFlush, this.#startLsn)) continue;
      throw new Violation(`${name} says that every safekeeper has WAL up to ${lsnToString(volatile.peerHorizonLsn)}, ${other.name} has it up to ${lsnToString(otherFlush)}`);
    }
  }

  /** The bytes from `from` on, each against the log of the term that the history says wrote it. */
  #checkLog(watched: Watched, timeline: Timeline, from: Lsn): void {
    const { flushLsn, persisted } = timeline.acceptor;
    const history = persisted.termHistory;
    history.forEach((entry, index) => {
      const end = Math.min(flushLsn, history[index + 1]?.lsn ?? Number.POSITIVE_INFINITY);
      if (entry.lsn >= end || end <= from) return;
      let log = this.#terms.get(entry.term);
      if (log === undefined) this.#terms.set(entry.term, (log = new KnownLog(`the log of term ${entry.term}`, entry.lsn)));
      if (log.startLsn !== entry.lsn) throw new Violation(`${watched.name}: term ${entry.term} begins at ${lsnToString(entry.lsn)}, elsewhere at ${lsnToString(log.startLsn)}`);
      const begin = Math.max(entry.lsn, Math.min(from, log.endLsn));
      this.#mergeFromDisk({ watched, timeline, log, from: begin, to: end });
    });
  }

  #checkCommitted(watched: Watched, timeline: Timeline, from: Lsn): void {
    const { persisted, volatile } = timeline.acceptor;
    if (persisted.timelineStartLsn === 0) return;
    this.committed ??= new KnownLog("the committed log", persisted.timelineStartLsn);
    const begin = Math.max(this.committed.startLsn, Math.min(from, this.committed.endLsn));
    if (begin < volatile.commitLsn) this.#mergeFromDisk({ watched, timeline, log: this.committed, from: begin, to: volatile.commitLsn });
  }

  #mergeFromDisk(piece: { watched: Watched; timeline: Timeline; log: KnownLog; from: Lsn; to: Lsn }): void {
    const { watched, timeline, log, from, to } = piece;
    for (const { lsn, bytes } of readDurable(watched.disk, timeline, { from, to })) {
      if (watched.damaged && log.firstDifference(lsn, bytes) !== null) continue;
      log.merge(lsn, bytes, watched.name);
    }
  }

  // What computes and readers tell.

  elected(who: string, term: Term, startLsn: Lsn): void {
    const other = this.#leaders.get(term);
    if (other !== undefined) throw new Violation(`${who} and ${other.who} were both elected in term ${term}`);
    this.#leaders.set(term, { who, startLsn });
    for (const [ackTerm, lsn] of this.#acknowledged) {
      if (ackTerm < term && lsn > startLsn) throw new Violation(`${who} was elected in term ${term} at ${lsnToString(startLsn)}, below the commit at ${lsnToString(lsn)} acknowledged in term ${ackTerm}`);
    }
  }

  /** A compute told its client that the transaction whose WAL ends at `lsn` is committed. */
  acknowledge(ack: { who: string; term: Term; fromLsn: Lsn; lsn: Lsn; bytes: Uint8Array }): void {
    const { who, term, lsn } = ack;
    this.acknowledgements++;
    this.acknowledgedLsn = Math.max(this.acknowledgedLsn, lsn);
    this.#acknowledged.set(term, Math.max(lsn, this.#acknowledged.get(term) ?? 0));
    // One whose timeline is being deleted, or whose disk is lost, may have answered once more.
    const holders = this.safekeepers.filter((safekeeper) => safekeeper.gone || safekeeper.wipedAt !== null || safekeeper.isStopping || (safekeeper.seen?.flushLsn ?? 0) >= lsn);
    if (2 * holders.length <= this.safekeepers.length) throw new Violation(`${who} acknowledged a commit at ${lsnToString(lsn)}, which is durable on ${holders.map(({ name }) => name).join(", ") || "nobody"} only`);
    this.committed ??= new KnownLog("the committed log", ack.fromLsn);
    this.committed.merge(ack.fromLsn, ack.bytes, who);
    for (const [leaderTerm, leader] of this.#leaders) {
      if (leaderTerm > term && leader.startLsn < lsn) throw new Violation(`${who} acknowledged a commit at ${lsnToString(lsn)} in term ${term}; term ${leaderTerm} began at ${lsnToString(leader.startLsn)}`);
    }
  }

  /** @param acknowledgedBefore highest acknowledged commit when settling began */
  settled(who: string, lsn: Lsn, acknowledgedBefore: Lsn): void {
    if (lsn < acknowledgedBefore) throw new Violation(`${who} settled the log at ${lsnToString(lsn)}, below the commit acknowledged at ${lsnToString(acknowledgedBefore)}`);
    if (lsn > (this.committed?.endLsn ?? 0)) throw new Violation(`${who} settled the log at ${lsnToString(lsn)}, committed is ${lsnToString(this.committed?.endLsn ?? 0)}`);
  }

  /** What a reader got. Returns whether the bytes are right; wrong ones are forgiven to a damaged disk. */
  read(from: Watched, lsn: Lsn, bytes: Uint8Array): boolean {
    const end = lsn + bytes.length;
    const committed = this.committed?.endLsn ?? 0;
    if (end > committed) throw new Violation(`${from.name} sent a reader WAL up to ${lsnToString(end)}, committed is ${lsnToString(committed)}`);
    this.readBytes += bytes.length;
    const difference = this.committed?.firstDifference(lsn, bytes) ?? null;
    if (difference !== null && !from.damaged) throw new Violation(`${from.name} sent a reader other bytes than were committed at ${lsnToString(difference)}`);
    return difference === null;
  }
}

/** Up to where WAL under one history is WAL under the other as well. */
function commonEnd(a: TermHistory, b: TermHistory): Lsn {
  let at = 0;
  while (at < a.length && at < b.length && a[at].term === b[at].term && a[at].lsn === b[at].lsn) at++;
  return Math.min(a[at]?.lsn ?? Number.POSITIVE_INFINITY, b[at]?.lsn ?? Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER);
}

/** What the safekeeper vouches for. Before it knows where the timeline begins there is nothing, however far the file is prepared. */
function flushOf({ acceptor }: Timeline): Lsn {
  return acceptor.persisted.timelineStartLsn === 0 ? 0 : acceptor.flushLsn;
}
