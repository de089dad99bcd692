/**
 * What has to be remembered of the past to tell whether an invariant holds: who was elected, what was acknowledged, what was
 * committed. It is part of a state, so that each state is judged by all pasts that lead to it.
 */
import type { Lsn } from "../../../../src/kit/lsn.ts";
import type { Configuration as Membership } from "../../../../src/safekeeper/api/membership.ts";
import { historyUpTo, type Term, type TermHistory } from "../../../../src/safekeeper/api/term-history.ts";
import { Violation } from "../../violation.ts";
import { type CoreNode, FIRST_LSN } from "../core-node.ts";
import { entryBy } from "./compute-states.ts";
import { historyKey } from "./messages.ts";
import type { NodeStates } from "./node-states.ts";
import { Interner, PairTable } from "./tables.ts";

export interface ElectedEvent {
  readonly writer: number;
  readonly term: Term;
  readonly startLsn: Lsn;
  readonly history: TermHistory;
}

export interface AcknowledgedEvent {
  readonly term: Term;
  readonly fromLsn: Lsn;
  readonly lsn: Lsn;
  readonly entries: readonly number[];
  readonly membership: Membership;
}

export interface Ghost {
  readonly leaders: readonly ElectedEvent[];
  /** The highest of each term. */
  readonly acknowledged: readonly { readonly term: Term; readonly lsn: Lsn }[];
  /** From FIRST_LSN on. */
  readonly committed: readonly number[];
}

const NO_GHOST: Ghost = { leaders: [], acknowledged: [], committed: [] };

export class Ghosts {
  readonly #interner = new Interner<Ghost>(NO_GHOST);
  readonly #nodes: NodeStates;
  readonly #looked = new PairTable();
  readonly #holds = new PairTable();
  readonly acknowledgedLsn: number[] = [0];

  constructor(nodes: NodeStates) {
    this.#nodes = nodes;
    this.#interner.onNew = (_, { acknowledged }) => this.acknowledgedLsn.push(acknowledged.reduce((highest, { lsn }) => Math.max(highest, lsn), 0));
  }

  get size(): number {
    return this.#interner.size;
  }

  at(id: number): Ghost {
    return this.#interner.values[id];
  }

  keyOf(id: number): string {
    return this.#interner.keys[id];
  }

  add(ghost: Ghost): number {
    const leaders = [...ghost.leaders].sort((a, b) => a.term - b.term);
    const acknowledged = [...ghost.acknowledged].sort((a, b) => a.term - b.term);
    const key = `${leaders.map(({ writer, term, history }) => `${term}:${writer}:${historyKey(history)}`).join(";")}|${acknowledged.map(({ term, lsn }) => `${term}:${lsn}`).join()}|${ghost.committed.join(".")}`;
    return this.#interner.add(key, { leaders, acknowledged, committed: ghost.committed });
  }

  elected(id: number, event: ElectedEvent): number {
    const ghost = this.at(id);
    const other = ghost.leaders.find(({ term }) => term === event.term);
    if (other !== undefined) throw new Violation(`writers ${other.writer} and ${event.writer} were both elected in term ${event.term}`);
    for (const { term, lsn } of ghost.acknowledged) {
      if (term < event.term && lsn > event.startLsn) throw new Violation(`term ${event.term} begins at ${event.startLsn}, below the commit at ${lsn} acknowledged in term ${term}`);
    }
    return this.add({ ...ghost, leaders: [...ghost.leaders, event] });
  }

  /** @param nodes states of all of them */
  acknowledged(id: number, event: AcknowledgedEvent, nodes: readonly number[]): number {
    const ghost = this.at(id);
    const { term, lsn, membership } = event;
    const durable = (node: number): boolean => this.#nodes.flushLsn[nodes[node]] >= lsn;
    for (const set of quorumSets(membership, nodes.length)) {
      if (2 * set.filter(durable).length <= set.length) throw new Violation(`a commit at ${lsn} was acknowledged, which is durable on ${set.filter(durable).length} of ${set.length}`);
    }
    for (const leader of ghost.leaders) {
      if (leader.term > term && leader.startLsn < lsn) throw new Violation(`a commit at ${lsn} was acknowledged in term ${term}; term ${leader.term} began at ${leader.startLsn}`);
    }
    const committed = merged(ghost.committed, event, "the acknowledging compute");
    return this.add({ leaders: ghost.leaders, committed, acknowledged: [...ghost.acknowledged.filter((ack) => ack.term !== term), { term, lsn }] });
  }

  settled(id: number, lsn: Lsn, since: Lsn): void {
    if (lsn < since) throw new Violation(`the log was settled at ${lsn}, below the commit acknowledged at ${since}`);
    const committedLsn = FIRST_LSN + this.at(id).committed.length;
    if (lsn > committedLsn) throw new Violation(`the log was settled at ${lsn}, committed is ${committedLsn}`);
  }

  /** After something happened to a node. */
  look(id: number, node: number): number {
    let after = this.#looked.get(id, node);
    if (after === -1) this.#looked.set(id, node, (after = this.#lookNow(this.at(id), this.#nodes.at(node))));
    return after;
  }

  #lookNow(ghost: Ghost, node: CoreNode): number {
    const { acceptor, log, id } = node;
    if (acceptor === null || acceptor.persisted.timelineStartLsn === 0) return this.add(ghost);
    const history = acceptor.persisted.termHistory;
    const last = history.at(-1);
    const leader = ghost.leaders.find(({ term }) => term === last?.term);
    if (leader !== undefined && historyKey(leader.history) !== historyKey(history)) throw new Violation(`node ${id}: history ${historyKey(history)} of term ${last?.term}, the leader's is ${historyKey(leader.history)}`);
    const shown = historyUpTo(history, acceptor.flushLsn);
    shown.forEach(({ term, lsn }, index) => {
      const writer = ghost.leaders.find((one) => one.term === term)?.writer;
      const end = Math.min(acceptor.flushLsn, shown[index + 1]?.lsn ?? acceptor.flushLsn);
      for (let at = lsn; at < end && writer !== undefined; at++) {
        if (log.entries[at - log.startLsn] !== entryBy(writer, at)) throw new Violation(`node ${id}: the entry at ${at} is not what the leader of term ${term} wrote there`);
      }
    });
    const committed = merged(ghost.committed, { fromLsn: FIRST_LSN, entries: log.entries.slice(0, acceptor.volatile.commitLsn - FIRST_LSN) }, `node ${id}`);
    return this.add({ ...ghost, committed });
  }

  /** After a log was cut: whether the node has all that was acknowledged. */
  holds(id: number, node: number): boolean {
    let held = this.#holds.get(id, node);
    if (held === -1) {
      const { log } = this.#nodes.at(node);
      const lsn = this.acknowledgedLsn[id];
      const entries = this.at(id).committed.slice(0, Math.max(0, lsn - FIRST_LSN));
      held = this.#nodes.flushLsn[node] >= lsn && !differ(entries, log.entries) ? 1 : 0;
      this.#holds.set(id, node, held);
    }
    return held === 1;
  }
}

/** Indexes of the nodes of which each set must agree. */
export function quorumSets({ generation, members, newMembers }: Membership, nodes: number): readonly (readonly number[])[] {
  if (generation === 0) return [Array.from({ length: nodes }, (_, node) => node)];
  return [members, ...(newMembers === null ? [] : [newMembers])].map((set) => set.map(({ nodeId }) => nodeId));
}

function merged(committed: readonly number[], more: { readonly fromLsn: Lsn; readonly entries: readonly number[] }, who: string): readonly number[] {
  const at = more.fromLsn - FIRST_LSN;
  if (at > committed.length) throw new Violation(`${who} calls entries from ${more.fromLsn} committed, before them only ${FIRST_LSN + committed.length} was`);
  if (differ(committed.slice(at), more.entries)) throw new Violation(`${who} has other entries than were committed`);
  return at + more.entries.length > committed.length ? [...committed.slice(0, at), ...more.entries] : committed;
}

function differ(a: readonly number[], b: readonly number[]): boolean {
  for (let at = Math.min(a.length, b.length) - 1; at >= 0; at--) if (a[at] !== b[at]) return true;
  return false;
}
