/** The invariants of the fast layer, and what has to be remembered to check them. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { historyUpTo, type Term, termHistoryToString } from "../../../src/safekeeper/api/term-history.ts";
import type { Election } from "../../../src/compute/proposer/core-types.ts";
import { Violation } from "../violation.ts";
import { type CoreNode, FIRST_LSN } from "./core-node.ts";

interface Leader {
  readonly writer: number;
  readonly startLsn: Lsn;
  readonly history: string;
}

interface Acknowledged {
  readonly term: Term;
  readonly lsn: Lsn;
}

interface Seen {
  readonly term: Term;
  readonly commitLsn: Lsn;
  readonly persistedCommitLsn: Lsn;
  readonly flushLsn: Lsn;
}

export class CoreChecker {
  leaders: ReadonlyMap<Term, Leader> = new Map();
  /** Entries of each term's log, from its start on, as far as somebody has shown them durable. */
  terms: ReadonlyMap<Term, readonly number[]> = new Map();
  /** From FIRST_LSN on. */
  committed: readonly number[] = [];
  acknowledged: readonly Acknowledged[] = [];
  seen: readonly (Seen | null)[];

  constructor(nodes: number) {
    this.seen = new Array<null>(nodes).fill(null);
  }

  get acknowledgedLsn(): Lsn {
    return this.acknowledged.reduce((highest, { lsn }) => Math.max(highest, lsn), 0);
  }

  get committedLsn(): Lsn {
    return FIRST_LSN + this.committed.length;
  }

  elected(writer: number, election: Election): void {
    const other = this.leaders.get(election.term);
    if (other !== undefined) throw new Violation(`writers ${other.writer} and ${writer} were both elected in term ${election.term}`);
    this.leaders = new Map([...this.leaders, [election.term, { writer, startLsn: election.startLsn, history: termHistoryToString(election.history) }]]);
    for (const { term, lsn } of this.acknowledged) {
      if (term < election.term && lsn > election.startLsn) throw new Violation(`term ${election.term} begins at ${election.startLsn}, below the commit at ${lsn} acknowledged in term ${term}`);
    }
  }

  acknowledge(ack: Acknowledged & { readonly fromLsn: Lsn; readonly entries: readonly number[] }, nodes: readonly CoreNode[]): void {
    const holders = nodes.filter((node) => node.log.flushed >= ack.lsn);
    if (2 * holders.length <= nodes.length) throw new Violation(`a commit at ${ack.lsn} was acknowledged, which is durable on ${holders.length} of ${nodes.length}`);
    this.#merge(ack.fromLsn, ack.entries, "the acknowledging compute");
    for (const [term, leader] of this.leaders) {
      if (term > ack.term && leader.startLsn < ack.lsn) throw new Violation(`a commit at ${ack.lsn} was acknowledged in term ${ack.term}; term ${term} began at ${leader.startLsn}`);
    }
    const rest = this.acknowledged.filter(({ term }) => term !== ack.term);
    this.acknowledged = [...rest, { term: ack.term, lsn: ack.lsn }];
  }

  settled(lsn: Lsn, acknowledgedBefore: Lsn): void {
    if (lsn < acknowledgedBefore) throw new Violation(`the log was settled at ${lsn}, below the commit acknowledged at ${acknowledgedBefore}`);
    if (lsn > this.committedLsn) throw new Violation(`the log was settled at ${lsn}, committed is ${this.committedLsn}`);
  }

  /** Looks at a node to which something happened. */
  look(node: CoreNode, nodes: readonly CoreNode[]): void {
    const { acceptor, log } = node;
    if (acceptor === null) return;
    const state = acceptor.persisted;
    const flushLsn = state.timelineStartLsn === 0 ? 0 : acceptor.flushLsn;
    const { commitLsn } = acceptor.volatile;
    if (commitLsn > flushLsn) throw new Violation(`node ${node.id}: commit_lsn ${commitLsn} is above flush_lsn ${flushLsn}`);
    const seen = this.seen[node.id];
    if (seen !== null) {
      if (state.term < seen.term) throw new Violation(`node ${node.id}: the term went back from ${seen.term} to ${state.term}`);
      if (commitLsn < seen.commitLsn) throw new Violation(`node ${node.id}: commit_lsn went back from ${seen.commitLsn} to ${commitLsn}`);
    }
    if (seen?.flushLsn !== flushLsn || seen.term !== state.term || seen.commitLsn !== commitLsn) this.#checkLog(node, flushLsn);
    if (seen !== null && flushLsn < seen.flushLsn) this.#checkHolders(nodes);
    if (commitLsn > (seen?.commitLsn ?? 0)) this.#merge(FIRST_LSN, log.entries.slice(0, commitLsn - FIRST_LSN), `node ${node.id}`);
    this.seen = this.seen.with(node.id, { term: state.term, commitLsn, persistedCommitLsn: state.commitLsn, flushLsn });
  }

  /** After a restart nothing that was durable may be gone. */
  lookAfterRestart(node: CoreNode, nodes: readonly CoreNode[]): void {
    const seen = this.seen[node.id];
    if (seen === null || node.acceptor === null) return;
    if (node.log.flushed < seen.flushLsn) throw new Violation(`node ${node.id}: the log was durable up to ${seen.flushLsn}, after a restart it ends at ${node.log.flushed}`);
    // commit_lsn in memory may be ahead of the control file.
    this.seen = this.seen.with(node.id, { ...seen, commitLsn: seen.persistedCommitLsn });
    this.look(node, nodes);
  }

  /** Power failed inside a handler: it may have cut the log before. */
  lookAtCut(node: CoreNode, nodes: readonly CoreNode[]): void {
    const seen = this.seen[node.id];
    if (seen === null || node.log.flushed >= seen.flushLsn) return;
    this.seen = this.seen.with(node.id, { ...seen, flushLsn: node.log.flushed });
    this.#checkHolders(nodes);
  }

  /** A log was cut: what was acknowledged is on a majority all the same. */
  #checkHolders(nodes: readonly CoreNode[]): void {
    const lsn = this.acknowledgedLsn;
    const acknowledged = this.committed.slice(0, Math.max(0, lsn - FIRST_LSN));
    const holders = nodes.filter(({ log }) => log.flushed >= lsn && !differ(acknowledged, log.entries));
    if (2 * holders.length <= nodes.length) throw new Violation(`a log was cut, and what was acknowledged up to ${lsn} is on ${holders.length} of ${nodes.length}`);
  }

  #checkLog(node: CoreNode, flushLsn: Lsn): void {
    const history = node.acceptor?.persisted.termHistory ?? [];
    const last = history.at(-1);
    const leader = last === undefined ? undefined : this.leaders.get(last.term);
    if (leader !== undefined && leader.history !== termHistoryToString(history)) throw new Violation(`node ${node.id}: history ${termHistoryToString(history)} of term ${last?.term}, the leader's is ${leader.history}`);
    historyUpTo(history, flushLsn).forEach((entry, index) => {
      const end = Math.min(flushLsn, history[index + 1]?.lsn ?? flushLsn);
      const shown = node.log.entries.slice(entry.lsn - node.log.startLsn, end - node.log.startLsn);
      const known = this.terms.get(entry.term) ?? [];
      if (differ(known, shown)) throw new Violation(`node ${node.id}: other entries of term ${entry.term} than elsewhere`);
      if (shown.length > known.length) this.terms = new Map([...this.terms, [entry.term, shown]]);
    });
  }

  #merge(fromLsn: Lsn, entries: readonly number[], who: string): void {
    const at = fromLsn - FIRST_LSN;
    if (at > this.committed.length) throw new Violation(`${who} calls entries from ${fromLsn} committed, before them only ${this.committedLsn} was`);
    if (differ(this.committed.slice(at), entries)) throw new Violation(`${who} has other entries than were committed`);
    if (at + entries.length > this.committed.length) this.committed = [...this.committed.slice(0, at), ...entries];
  }
}

function differ(a: readonly number[], b: readonly number[]): boolean {
  for (let at = Math.min(a.length, b.length) - 1; at >= 0; at--) if (a[at] !== b[at]) return true;
  return false;
}
