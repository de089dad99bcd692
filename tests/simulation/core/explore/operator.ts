/**
 * An operator who changes the members of a timeline, as docs/rfcs/035-safekeeper-dynamic-membership-change.md of the peer
 * (neondatabase/neon) has it, by the one route that safekeepers have for it (PUT …/membership) and term bumps:
 *
 * 1. the joint configuration goes to safekeepers; a majority of the old members answers, with its term and the end of its log;
 * 2. the new members are brought to the highest of those terms; the running proposer, who needs both majorities now, brings WAL;
 * 3. when a majority of the new members has the joint configuration, that term and that log, the new configuration is decided.
 *
 * Nothing drives these steps in the shipping code; what is explored is whether its cores are safe under them.
 */
import type { Configuration as Membership } from "../../../../src/safekeeper/api/membership.ts";
import { Interner } from "./tables.ts";
import type { NodeStates } from "./node-states.ts";

interface Position {
  readonly term: number;
  readonly lastLogTerm: number;
  readonly flushLsn: number;
}

interface Progress {
  /** What each of the old members answered to the joint configuration. */
  readonly answers: readonly (Position | null)[];
  readonly decided: boolean;
}

export type OperatorStep = { readonly kind: "joint" | "new"; readonly node: number } | { readonly kind: "bump"; readonly node: number; readonly term: number };

export class Operator {
  readonly #interner = new Interner<Progress>({ answers: [], decided: false });
  readonly #nodes: NodeStates;
  readonly #old: readonly number[];
  readonly #new: readonly number[];
  readonly #careless: boolean;

  /** @param memberships the old, the joint and the new; none: nobody ever changes anything */
  constructor(nodes: NodeStates, memberships: readonly Membership[], careless: boolean) {
    this.#nodes = nodes;
    this.#old = memberships[0]?.members.map(({ nodeId }) => nodeId) ?? [];
    this.#new = memberships[2]?.members.map(({ nodeId }) => nodeId) ?? [];
    this.#careless = careless;
  }

  keyOf(id: number): string {
    return this.#interner.keys[id];
  }

  /** @param states of the nodes */
  steps(id: number, states: Int32Array): readonly OperatorStep[] {
    const progress = this.#interner.values[id];
    const steps: OperatorStep[] = [];
    const generation = (node: number): number => this.#nodes.generation[states[node]];
    for (const node of new Set([...this.#old, ...this.#new])) {
      if (generation(node) < 2 || (this.#old.includes(node) && (progress.answers[node] ?? null) === null)) steps.push({ kind: "joint", node });
    }
    const sync = this.#sync(progress);
    if (sync === null) return steps;
    for (const node of this.#new) if (this.#nodes.term[states[node]] < sync.term) steps.push({ kind: "bump", node, term: sync.term });
    if (progress.decided || this.#isReady(states, sync)) for (const node of this.#new) if (generation(node) < 3) steps.push({ kind: "new", node });
    return steps;
  }

  /** The furthest of a majority of the old members; null before one has answered. */
  #sync({ answers }: Progress): Position | null {
    const given = answers.filter((answer) => answer !== null);
    if (!this.#careless && 2 * given.length <= this.#old.length) return null;
    return given.reduce((best, answer) => ({ ...(isBehind(best, answer) ? answer : best), term: Math.max(best.term, answer.term) }), { term: 0, lastLogTerm: 0, flushLsn: 0 });
  }

  #isReady(states: Int32Array, sync: Position): boolean {
    const { generation, term, lastLogTerm, flushLsn } = this.#nodes;
    const ready = this.#new.filter((node) => {
      const state = states[node];
      return generation[state] >= 2 && term[state] >= sync.term && !isBehind({ term: 0, lastLogTerm: lastLogTerm[state], flushLsn: flushLsn[state] }, sync);
    });
    return this.#careless || 2 * ready.length > this.#new.length;
  }

  /** After the step: what the node is now goes into the answer. */
  after(id: number, step: OperatorStep, state: number): number {
    const progress = this.#interner.values[id];
    const { term, lastLogTerm, flushLsn } = this.#nodes;
    const answers = [...progress.answers];
    if (step.kind === "joint" && this.#old.includes(step.node)) {
      while (answers.length <= step.node) answers.push(null);
      answers[step.node] ??= { term: term[state], lastLogTerm: lastLogTerm[state], flushLsn: flushLsn[state] };
    }
    const next = { answers, decided: progress.decided || step.kind === "new" };
    return this.#interner.add(JSON.stringify(next), next);
  }
}

function isBehind(a: Position, b: Position): boolean {
  return a.lastLogTerm !== b.lastLogTerm ? a.lastLogTerm < b.lastLogTerm : a.flushLsn < b.flushLsn;
}
