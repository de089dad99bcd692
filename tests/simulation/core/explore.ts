/**
 * Every order in which a small configuration can go: 3 safekeepers and 2 proposers of the shipping cores, a few entries, a
 * bounded number of broken connections and power failures. Each state is visited once, known by a 53-bit hash of all that is in
 * it; the chance that two of a million states share one is one in ten thousand.
 */
import { Violation } from "../violation.ts";
import { type CoreNode, FIRST_LSN } from "./core-node.ts";
import { cloneSoup, keyOf, type Touched } from "./snapshot.ts";
import { Soup, type Wire } from "./soup.ts";

export interface Configuration {
  readonly name: string;
  /** Logs that two earlier leaders left behind, one on a single node each; else nobody has any WAL. */
  readonly parted: boolean;
  /** The safekeepers that each compute reaches. */
  readonly reach: readonly (readonly number[])[];
  /** Elections each compute may run for. */
  readonly candidacies: number;
  /** Entries each server may write. */
  readonly entries: number;
  /** Connections that may break, in all: without the node's noticing. */
  readonly drops: number;
  readonly crashes: number;
}

export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  readonly deepest: number;
  /** All states were visited. */
  readonly closed: boolean;
  readonly violation: { readonly message: string; readonly path: readonly string[] } | null;
}

interface Visit {
  readonly soup: Soup;
  readonly budget: Budget;
  readonly depth: number;
  readonly action: string;
  readonly parent: Visit | null;
}

interface Budget {
  readonly drops: number;
  readonly crashes: number;
}

interface Move {
  readonly name: string;
  readonly budget: Budget;
  readonly touched: Touched;
  readonly act: (soup: Soup) => void;
}

export function explore(configuration: Configuration, limits: { maxStates: number; onProgress?: (states: number, waiting: number) => void }): Exploration {
  const seen = new HashSet();
  const { drops, crashes } = configuration;
  const stack: Visit[] = [{ soup: initial(configuration), budget: { drops, crashes }, depth: 0, action: "start", parent: null }];
  let transitions = 0;
  let deepest = 0;
  for (let visit = stack.pop(); visit !== undefined; visit = stack.pop()) {
    if (seen.size >= limits.maxStates) return { states: seen.size, transitions, deepest, closed: false, violation: null };
    deepest = Math.max(deepest, visit.depth);
    for (const { name: action, budget, touched, act } of moves(visit.soup, visit.budget, configuration)) {
      const soup = cloneSoup(visit.soup, touched);
      const next: Visit = { soup, budget, depth: visit.depth + 1, action, parent: visit };
      transitions++;
      try {
        act(soup);
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        return { states: seen.size, transitions, deepest, closed: false, violation: { message: error.message, path: pathTo(next) } };
      }
      if (!seen.add(`${budget.drops},${budget.crashes}|${keyOf(soup)}`)) continue;
      stack.push(next);
      if (seen.size % 100_000 === 0) limits.onProgress?.(seen.size, stack.length);
    }
  }
  return { states: seen.size, transitions, deepest, closed: true, violation: null };
}

function pathTo(visit: Visit): string[] {
  const path: string[] = [];
  for (let at: Visit | null = visit; at !== null; at = at.parent) path.push(at.action);
  return path.reverse();
}

function initial(configuration: Configuration): Soup {
  const soup = new Soup({ nodes: 3, computes: 2, settleAtMajority: true });
  if (!configuration.parted) return soup;
  // Term 1 was won by the votes of 0 and 1, term 2 by those of 1 and 2; each leader wrote only where it stood.
  leave(soup.nodes[0], 1, [8, 8]);
  soup.nodes[1].durable = { ...soup.nodes[1].durable, term: 2 };
  soup.nodes[1].restart();
  leave(soup.nodes[2], 2, [9]);
  return soup;
}

function leave(node: CoreNode, term: number, entries: readonly number[]): void {
  const lsns = { timelineStartLsn: FIRST_LSN, localStartLsn: FIRST_LSN, commitLsn: FIRST_LSN, backupLsn: FIRST_LSN, peerHorizonLsn: FIRST_LSN, remoteConsistentLsn: FIRST_LSN };
  node.durable = { ...node.durable, ...lsns, term, termHistory: [{ term, lsn: FIRST_LSN }] };
  Object.assign(node.log, { startLsn: FIRST_LSN, entries, flushed: FIRST_LSN + entries.length });
  node.restart();
}

function moves(soup: Soup, budget: Budget, configuration: Configuration): Move[] {
  const found: Move[] = [];
  soup.wires.forEach((wire, at) => found.push(...wireMoves(soup, wire, { at, budget })));
  for (const { index, candidacy, core, mode, endLsn, startLsn } of soup.computes) {
    const touched = { compute: index };
    if (mode === "run" && core.election !== null && endLsn - startLsn < configuration.entries) {
      found.push({ name: `compute ${index} writes`, budget, touched, act: (next) => next.computes[index].write(1) });
    }
    if (candidacy >= configuration.candidacies || core.dead) continue;
    for (const id of configuration.reach[index]) {
      if (soup.wireOf(index, id) === undefined) found.push({ name: `compute ${index} connects to ${id}`, budget, touched: { node: id, compute: index }, act: (next) => connect(next, index, id) });
    }
  }
  if (budget.crashes > 0) {
    const after = { ...budget, crashes: budget.crashes - 1 };
    for (const { id } of soup.nodes) found.push({ name: `power of ${id} fails`, budget: after, touched: { node: id }, act: (next) => (next.crash(id, 0), next.restart(id)) });
  }
  return found;
}

/** The greeting is taken at once: nothing else depends on whether it was taken now or when the connection was made. */
function connect(soup: Soup, compute: number, node: number): void {
  soup.connect(compute, node);
  const wire = soup.wireOf(compute, node);
  if (wire !== undefined) soup.deliverToNode(wire);
}

function wireMoves(soup: Soup, wire: Wire, options: { at: number; budget: Budget }): Move[] {
  const { at, budget } = options;
  const found: Move[] = [];
  const name = `${wire.compute}-${wire.node}`;
  const { compute, node } = wire;
  if (wire.toNode.length > 0) found.push({ name: `${name} takes ${wire.toNode[0].kind}`, budget, touched: { node, compute }, act: (next) => deliver(next, next.wires[at]) });
  if (wire.toCompute.length > 0) found.push({ name: `${name} answers ${wire.toCompute[0].kind}`, budget, touched: { compute }, act: (next) => next.deliverToCompute(next.wires[at]) });
  // One append at a time is on its way: more of them at once only lengthen the queue.
  if (wire.toNode.length === 0 && soup.hasAppend(wire)) found.push({ name: `${name} append`, budget, touched: { compute }, act: (next) => next.sendAppend(next.wires[at], 1) });
  if (budget.drops > 0 && wire.computeEnd === "open") {
    found.push({ name: `${name} breaks unnoticed by the node`, budget: { ...budget, drops: budget.drops - 1 }, touched: { compute }, act: (next) => next.closeAtCompute(next.wires[at], false) });
  }
  return found;
}

/** An append is answered when it is durable. */
function deliver(soup: Soup, wire: Wire): void {
  soup.deliverToNode(wire);
  if (wire.dirty) soup.flush(wire);
}

/** Open addressing over doubles: eight bytes a state. */
class HashSet {
  #table = new Float64Array(1 << 16);
  size = 0;

  /** False when it was there. */
  add(text: string): boolean {
    const hash = (Bun.hash.xxHash32(text, 1) >>> 0) * 2 ** 21 + (Bun.hash.xxHash32(text, 2) >>> 11) + 1;
    if (this.size * 2 > this.#table.length) this.#grow();
    return this.#insert(this.#table, hash);
  }

  #insert(table: Float64Array, hash: number): boolean {
    const mask = table.length - 1;
    for (let at = (hash % table.length) & mask; ; at = (at + 1) & mask) {
      if (table[at] === hash) return false;
      if (table[at] !== 0) continue;
      table[at] = hash;
      this.size++;
      return true;
    }
  }

  #grow(): void {
    const old = this.#table;
    this.#table = new Float64Array(old.length * 2);
    this.size = 0;
    for (const hash of old) if (hash !== 0) this.#insert(this.#table, hash);
  }
}
