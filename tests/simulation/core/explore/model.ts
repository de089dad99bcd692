/**
 * One configuration's states as vectors of numbers, and the actions that lead from one to the next. A number stands for the state
 * of a part: nodes, computes, channels between them, ghost; what a part does was computed by the shipping cores when it first did it.
 */
import { type Configuration as Membership, isMember } from "../../../../src/safekeeper/api/membership.ts";
import type { TermHistory } from "../../../../src/safekeeper/api/term-history.ts";
import { Violation } from "../../violation.ts";
import { CoreNode, FIRST_LSN } from "../core-node.ts";
import { budgetLeft, packBudgets, spend, type Budget } from "./budgets.ts";
import { Channels, CLOSED } from "./channels.ts";
import { ComputeStates, entryBy, NOTHING, OWN, type ComputeStep, type Output } from "./compute-states.ts";
import type { Configuration } from "./configurations.ts";
import { Ghosts } from "./ghosts.ts";
import { Messages } from "./messages.ts";
import { NodeStates } from "./node-states.ts";
import { Operator, type OperatorStep } from "./operator.ts";

export class Model {
  readonly configuration: Configuration;
  readonly messages = new Messages();
  readonly nodes: NodeStates;
  readonly computes: ComputeStates;
  readonly channels: Channels;
  readonly ghosts: Ghosts;
  readonly operator: Operator;
  readonly nodeCount: number;
  readonly computeCount: number;
  /** Where things stand in a vector: nodes first. */
  readonly computesAt: number;
  readonly channelsAt: number;
  readonly ghostAt: number;
  readonly budgetsAt: number;
  readonly operatorAt: number;
  readonly length: number;
  readonly #memberships: readonly Membership[];
  /** Who was elected by the last action; -1: nobody. */
  electedCompute = -1;

  constructor(configuration: Configuration) {
    this.configuration = configuration;
    const { memberships = [], reach, nodes = 3, candidacies, entries } = configuration;
    this.#memberships = memberships;
    this.nodes = new NodeStates(this.messages, memberships);
    this.nodeCount = nodes;
    this.computeCount = reach.length;
    this.computes = new ComputeStates(this.messages, { slots: nodes, candidacies, entries, hasNodeIds: this.hasMembership });
    this.channels = new Channels(this.messages);
    this.ghosts = new Ghosts(this.nodes);
    this.operator = new Operator(this.nodes, memberships, configuration.careless === true);
    this.computesAt = nodes;
    this.channelsAt = this.computesAt + this.computeCount;
    this.ghostAt = this.channelsAt + nodes * this.computeCount;
    this.budgetsAt = this.ghostAt + 1;
    this.operatorAt = this.budgetsAt + 1;
    this.length = this.operatorAt + 1;
  }

  get hasMembership(): boolean {
    return this.#memberships.length > 0;
  }

  initial(): Int32Array {
    const vector = new Int32Array(this.length);
    const nodes = Array.from({ length: this.nodeCount }, (_, node) => new CoreNode(this.hasMembership ? node : 0, this.hasMembership ? 0 : this.nodeCount));
    let ghost = this.ghosts.add({ leaders: [], acknowledged: [], committed: [] });
    if (this.configuration.parted) ghost = this.#part(nodes);
    nodes.forEach((node, index) => {
      const [membership] = this.#memberships;
      if (membership !== undefined && isMember(membership, index)) node.durable = { ...node.durable, configuration: membership };
      node.restart();
      vector[index] = this.nodes.add(node);
    });
    for (let compute = 0; compute < this.computeCount; compute++) vector[this.computesAt + compute] = this.computes.initial(compute);
    vector.fill(CLOSED, this.channelsAt, this.ghostAt);
    vector[this.ghostAt] = ghost;
    vector[this.budgetsAt] = packBudgets(this.configuration.budgets ?? {});
    return vector;
  }

  /**
   * Term 1 was won by the votes of 0 and 1, and its leader wrote; what 0 has of it last never got to 1. Term 2 was won by those of 1
   * and 2, and its leader wrote on 2 alone.
   */
  #part(nodes: readonly CoreNode[]): number {
    const first = [{ term: 1, lsn: FIRST_LSN }];
    const second = [...first, { term: 2, lsn: FIRST_LSN + 1 }];
    const leaders = [{ writer: 13, term: 1, startLsn: FIRST_LSN, history: first }, { writer: 14, term: 2, startLsn: FIRST_LSN + 1, history: second }];
    const leave = (node: CoreNode, state: { readonly term: number; readonly termHistory: TermHistory }, entries: readonly number[]): void => {
      const lsns = { timelineStartLsn: FIRST_LSN, localStartLsn: FIRST_LSN, commitLsn: FIRST_LSN, backupLsn: FIRST_LSN, peerHorizonLsn: FIRST_LSN, remoteConsistentLsn: FIRST_LSN };
      node.durable = { ...node.durable, ...lsns, ...state };
      Object.assign(node.log, { startLsn: FIRST_LSN, entries, flushed: FIRST_LSN + entries.length });
    };
    const [common, lost, other] = [entryBy(13, FIRST_LSN), entryBy(13, FIRST_LSN + 1), entryBy(14, FIRST_LSN + 1)];
    leave(nodes[0], { term: 1, termHistory: first }, [common, lost]);
    leave(nodes[1], { term: 2, termHistory: first }, [common]);
    leave(nodes[2], { term: 2, termHistory: second }, [common, other]);
    return this.ghosts.add({ leaders, acknowledged: [], committed: [] });
  }

  channelAt(compute: number, node: number): number {
    return this.channelsAt + compute * this.nodeCount + node;
  }

  left(vector: Int32Array, budget: Budget): number {
    return budgetLeft(vector[this.budgetsAt], budget);
  }

  pay(vector: Int32Array, budget: Budget): void {
    vector[this.budgetsAt] = spend(vector[this.budgetsAt], budget);
  }

  /** What the numbers stand for: the same in every run, whatever the numbers were, and in whatever order the nodes are. */
  text(vector: Int32Array): string {
    const computes = Array.from({ length: this.computeCount }, (_, compute) => vector[this.computesAt + compute]);
    const nodes = Array.from({ length: this.nodeCount }, (_, node) => {
      const each = computes.map((id, compute) => `${this.channels.textOf(vector[this.channelAt(compute, node)])}~${this.computes.slotTextOf(id, node)}`);
      return `${this.nodes.keyOf(vector[node])}~${each.join("~")}`;
    });
    return [...nodes.sort(), ...computes.map((id) => this.computes.ownTextOf(id)), this.ghosts.keyOf(vector[this.ghostAt]), vector[this.budgetsAt], this.operator.keyOf(vector[this.operatorAt])].join("\n");
  }

  // Actions of computes.

  connect(vector: Int32Array, compute: number, node: number): void {
    const at = this.channelAt(compute, node);
    vector[at] = this.channels.opened(vector[at]);
    this.#apply(vector, compute, this.computes.connected(vector[this.computesAt + compute], node));
    // The greeting is taken at once, unless memberships travel with it: nothing else depends on when it was sent.
    if (!this.hasMembership) this.deliverToNode(vector, { compute, node, kind: 0 });
  }

  deliverToCompute(vector: Int32Array, compute: number, node: number): void {
    const at = this.channelAt(compute, node);
    const message = this.channels.toCompute[vector[at]];
    vector[at] = this.channels.takenByCompute(vector[at]);
    this.#apply(vector, compute, this.computes.received(vector[this.computesAt + compute], node, message));
  }

  append(vector: Int32Array, compute: number, node: number): void {
    const id = vector[this.computesAt + compute];
    const from = this.computes.appendFrom[id * this.nodeCount + node];
    this.#apply(vector, compute, this.computes.append(id, node, from === OWN ? null : this.#donor(vector, id, { node, from })));
  }

  /** @returns what the donor has from where the next append begins; nothing when it follows another term by now */
  #donor(vector: Int32Array, id: number, slots: { readonly node: number; readonly from: number }): { state: number; entries: readonly number[] } {
    const { core } = this.computes.at(id);
    const state = vector[slots.from];
    const next = core.nextAppend(slots.node, 1);
    if (next === null || slots.from === slots.node || this.nodes.term[state] !== core.term) return { state, entries: [] };
    const { log } = this.nodes.at(state);
    return { state, entries: log.entries.slice(next.beginLsn - log.startLsn, Math.max(0, log.flushed - log.startLsn)) };
  }

  hasAppend(vector: Int32Array, compute: number, node: number): boolean {
    const channel = vector[this.channelAt(compute, node)];
    // One append at a time is on its way: more of them at once only lengthen the queue.
    return this.channels.isOpen[channel] && this.channels.toNode[channel] === 0 && this.computes.appendFrom[vector[this.computesAt + compute] * this.nodeCount + node] !== NOTHING;
  }

  local(vector: Int32Array, compute: number, what: "write" | "restart" | "expiries" | "spread"): void {
    const id = vector[this.computesAt + compute];
    if (what === "write") this.#apply(vector, compute, this.computes.write(id));
    else if (what === "spread") this.#apply(vector, compute, this.computes.spreadCommit(id));
    else if (what === "restart") this.#apply(vector, compute, this.computes.restart(id));
    else this.#apply(vector, compute, this.computes.expireVotes(id));
  }

  /** The compute's end closes: it noticed a dead peer (`cut`: all on the way is lost too), or gave up while messages are on the way. */
  disconnect(vector: Int32Array, ends: { readonly compute: number; readonly node: number; readonly cut: boolean }): void {
    const { compute, node, cut } = ends;
    const at = this.channelAt(compute, node);
    this.#setChannel(vector, { compute, node }, cut ? this.channels.cut(vector[at]) : this.channels.abandoned(vector[at]));
    this.#apply(vector, compute, this.computes.disconnected(vector[this.computesAt + compute], node));
  }

  // Actions of nodes.

  /** @param event kind: see `KINDS`; old: the queue of an abandoned connection. False when this cannot happen. */
  deliverToNode(vector: Int32Array, event: { readonly compute: number; readonly node: number; readonly kind: number; readonly old?: number }): boolean {
    const { compute, node, kind, old } = event;
    const at = this.channelAt(compute, node);
    const message = old === undefined ? this.channels.toNode[vector[at]] : this.channels.oldHeads[vector[at]][old];
    if (message === 0) return false;
    const step = this.nodes.take(vector[node], message, kind);
    if (step === null) return false;
    vector[at] = old === undefined ? this.channels.takenByNode(vector[at]) : this.channels.takenOfOld(vector[at], old);
    if (step.violation !== null) throw new Violation(`node ${node}: ${step.violation}`);
    if (old === undefined) for (const reply of step.replies) vector[at] = this.channels.sentToCompute(vector[at], reply);
    this.#changeNode(vector, node, step.node);
    if (step.failed) this.#powerFailed(vector, node);
    if (step.closed && old === undefined) this.disconnect(vector, { compute, node, cut: true });
    if (step.closed && old !== undefined && this.channels.oldHeads[vector[at]].length > old) vector[at] = this.channels.oldClosed(vector[at], old);
    return true;
  }

  crash(vector: Int32Array, node: number): void {
    this.#changeNode(vector, node, this.nodes.local(vector[node], "crash"));
    this.#powerFailed(vector, node);
  }

  #powerFailed(vector: Int32Array, node: number): void {
    for (let compute = 0; compute < this.computeCount; compute++) {
      const at = this.channelAt(compute, node);
      vector[at] = this.channels.nodeCloses(vector[at]);
    }
  }

  touch(vector: Int32Array, node: number, what: "save" | "bump"): void {
    this.#changeNode(vector, node, this.nodes.local(vector[node], what));
  }

  operate(vector: Int32Array, step: OperatorStep): void {
    const { node } = step;
    this.#changeNode(vector, node, this.nodes.local(vector[node], step.kind === "bump" ? `raise ${step.term}` : `switch ${step.kind === "joint" ? 1 : 2}`));
    vector[this.operatorAt] = this.operator.after(vector[this.operatorAt], step, vector[node]);
  }

  /** `node` hears of `peer` what is true of it now, by the broker. */
  gossip(vector: Int32Array, node: number, peer: number): void {
    const state = vector[peer];
    this.#changeNode(vector, node, this.nodes.local(vector[node], `gossip ${this.nodes.lastLogTerm[state]} ${this.nodes.commitLsn[state]}`));
  }

  /** It derives what is committed from where it and the peers stand. */
  derive(vector: Int32Array, node: number): void {
    const positions = Array.from({ length: this.nodeCount }, (_, nodeId) => nodeId).filter((nodeId) => nodeId !== node).map((nodeId) => {
      const state = vector[nodeId];
      // Without a membership a node state does not know which of the nodes it is in.
      return { nodeId: this.hasMembership ? nodeId : 1 + nodeId, term: this.nodes.term[state], lastLogTerm: this.nodes.lastLogTerm[state], flushLsn: this.nodes.flushLsn[state] };
    });
    this.#changeNode(vector, node, this.nodes.local(vector[node], `derive ${JSON.stringify(positions)}`));
  }

  #changeNode(vector: Int32Array, node: number, to: number): void {
    const from = vector[node];
    if (from === to) return;
    vector[node] = to;
    vector[this.ghostAt] = this.ghosts.look(vector[this.ghostAt], to);
    if (this.nodes.flushLsn[to] < this.nodes.flushLsn[from] && !this.hasMembership) this.#checkHolders(vector);
    if (this.nodes.term[to] === this.nodes.term[from]) return;
    for (let compute = 0; compute < this.computeCount; compute++) this.#settleChannel(vector, this.channelAt(compute, node), node);
  }

  #settleChannel(vector: Int32Array, at: number, node: number): void {
    vector[at] = this.channels.settled(vector[at], this.nodes.term[vector[node]]);
  }

  /** A log was cut: what was acknowledged is on a majority all the same. */
  #checkHolders(vector: Int32Array): void {
    let holders = 0;
    for (let node = 0; node < this.nodeCount; node++) if (this.ghosts.holds(vector[this.ghostAt], vector[node])) holders++;
    if (2 * holders <= this.nodeCount) throw new Violation(`a log was cut, and what was acknowledged up to ${this.ghosts.acknowledgedLsn[vector[this.ghostAt]]} is on ${holders} of ${this.nodeCount}`);
  }

  #setChannel(vector: Int32Array, ends: { readonly compute: number; readonly node: number }, channel: number): void {
    const at = this.channelAt(ends.compute, ends.node);
    vector[at] = channel;
    this.#settleChannel(vector, at, ends.node);
  }

  #apply(vector: Int32Array, compute: number, step: ComputeStep): void {
    vector[this.computesAt + compute] = step.compute;
    for (const output of step.outputs) this.#put(vector, compute, output);
  }

  #put(vector: Int32Array, compute: number, output: Output): void {
    switch (output.kind) {
      case "send": {
        const at = this.channelAt(compute, output.slot);
        vector[at] = this.channels.sentToNode(vector[at], output.message);
        break;
      }
      case "close":
        this.#setChannel(vector, { compute, node: output.slot }, this.channels.cut(vector[this.channelAt(compute, output.slot)]));
        break;
      case "close-all":
        for (let node = 0; node < this.nodeCount; node++) this.#setChannel(vector, { compute, node }, this.channels.abandoned(vector[this.channelAt(compute, node)]));
        break;
      case "restarted":
        vector[this.computesAt + compute] = this.computes.since(vector[this.computesAt + compute], this.ghosts.acknowledgedLsn[vector[this.ghostAt]]);
        break;
      case "settled":
        this.ghosts.settled(vector[this.ghostAt], output.lsn, output.since);
        break;
      case "elected":
        vector[this.ghostAt] = this.ghosts.elected(vector[this.ghostAt], output.event);
        this.electedCompute = compute;
        break;
      case "acknowledged":
        vector[this.ghostAt] = this.ghosts.acknowledged(vector[this.ghostAt], output.event, [...vector.subarray(0, this.nodeCount)]);
        break;
    }
  }
}
