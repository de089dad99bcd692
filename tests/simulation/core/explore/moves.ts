/** What can happen in a state, each action a number: what, to which compute, to which node, and one more. */
import { NOTHING } from "./compute-states.ts";
import type { Model } from "./model.ts";
import { KINDS } from "./node-states.ts";

const WHATS = ["connect", "answers", "appends", "writes", "spreads", "restarts", "asks anew", "notices", "breaks", "gives up", "takes", "takes late", "crashes", "bump", "gossip", "derive", "save", "operator"] as const;
type What = (typeof WHATS)[number];

const NUMBER = Object.fromEntries(WHATS.map((what, at) => [what, at])) as Readonly<Record<What, number>>;
export const FULL_EXPANSION = -1;

function encode(what: What, compute: number, rest: { readonly node?: number; readonly extra?: number } = {}): number {
  return ((NUMBER[what] * 8 + compute) * 8 + (rest.node ?? 0)) * 64 + (rest.extra ?? 0);
}

function decode(action: number): { readonly what: What; readonly compute: number; readonly node: number; readonly extra: number } {
  return { what: WHATS[action >> 12], compute: (action >> 9) & 7, node: (action >> 6) & 7, extra: action & 63 };
}

export function describe(action: number): string {
  const { what, compute, node, extra } = decode(action);
  switch (what) {
    case "writes":
    case "spreads":
    case "restarts":
    case "asks anew":
      return `compute ${compute} ${what}`;
    case "crashes":
    case "bump":
    case "save":
    case "derive":
      return `node ${node} ${what}`;
    case "gossip":
      return `node ${node} hears of node ${extra}`;
    case "takes":
      return `${compute}>${node} takes${extra === 0 ? "" : `, power fails (${extra})`}`;
    default:
      return `${compute}>${node} ${what}${extra === 0 ? "" : ` ${extra}`}`;
  }
}

export class Moves {
  readonly #model: Model;
  readonly #found: number[] = [];

  constructor(model: Model) {
    this.#model = model;
  }

  /** All actions that are possible; valid until the next call. Some of the power failures turn out not to be. */
  of(vector: Int32Array): readonly number[] {
    const { computeCount, nodeCount, configuration } = this.#model;
    this.#found.length = 0;
    for (let compute = 0; compute < computeCount; compute++) {
      for (let node = 0; node < nodeCount; node++) if (configuration.reach[compute].includes(node)) this.#onChannel(vector, compute, node);
      this.#onCompute(vector, compute);
    }
    for (let node = 0; node < nodeCount; node++) this.#onNode(vector, node);
    if (this.#model.left(vector, "operator") > 0) for (let extra = 0; extra < this.#operatorSteps(vector).length; extra++) this.#found.push(encode("operator", 0, { extra }));
    return this.#found;
  }

  #operatorSteps(vector: Int32Array): ReturnType<Model["operator"]["steps"]> {
    return this.#model.operator.steps(vector[this.#model.operatorAt], vector);
  }

  #onChannel(vector: Int32Array, compute: number, node: number): void {
    const found = this.#found;
    const model = this.#model;
    const { channels } = model;
    const id = vector[model.channelAt(compute, node)];
    const mayFail = model.left(vector, "crashes") > 0;
    const kinds = mayFail ? KINDS : 1;
    if (channels.toNode[id] !== 0) for (let kind = 0; kind < kinds; kind++) found.push(encode("takes", compute, { node, extra: kind }));
    for (let old = 0; old < channels.oldHeads[id].length; old++) found.push(encode("takes late", compute, { node, extra: old }));
    if (!channels.isOpen[id]) {
      if (model.computes.mayConnect[vector[model.computesAt + compute]]) found.push(encode("connect", compute, { node }));
      return;
    }
    if (channels.toCompute[id] !== 0) found.push(encode("answers", compute, { node }));
    if (model.hasAppend(vector, compute, node)) found.push(encode("appends", compute, { node }));
    if (channels.nodeClosed[id]) found.push(encode("notices", compute, { node }));
    else if (model.left(vector, "drops") > 0) found.push(encode("breaks", compute, { node }), encode("gives up", compute, { node }));
  }

  #onCompute(vector: Int32Array, compute: number): void {
    const model = this.#model;
    const id = vector[model.computesAt + compute];
    if (model.computes.mayWrite[id]) this.#found.push(encode("writes", compute));
    if (model.configuration.spreads === true && model.computes.maySpread[id]) this.#found.push(encode("spreads", compute));
    if (model.left(vector, "restarts") > 0) this.#found.push(encode("restarts", compute));
    if (model.left(vector, "expiries") > 0 && model.computes.campaigning[id]) this.#found.push(encode("asks anew", compute));
  }

  #onNode(vector: Int32Array, node: number): void {
    const found = this.#found;
    const model = this.#model;
    if (model.left(vector, "crashes") > 0) found.push(encode("crashes", 0, { node }));
    if (model.left(vector, "bumps") > 0) found.push(encode("bump", 0, { node }));
    if (model.left(vector, "saves") > 0) found.push(encode("save", 0, { node }));
    if (model.left(vector, "gossips") > 0) {
      for (let peer = 0; peer < model.nodeCount; peer++) if (peer !== node) found.push(encode("gossip", 0, { node, extra: peer }));
      found.push(encode("derive", 0, { node }));
    }
  }

  /** Turns the vector into the one after; false when this cannot happen. @throws Violation */
  take(vector: Int32Array, action: number): boolean {
    const model = this.#model;
    const { what, compute, node, extra } = decode(action);
    model.electedCompute = -1;
    switch (what) {
      case "connect":
        model.connect(vector, compute, node);
        return true;
      case "answers":
        model.deliverToCompute(vector, compute, node);
        return true;
      case "appends":
        model.append(vector, compute, node);
        return true;
      case "writes":
        model.local(vector, compute, "write");
        return true;
      case "spreads":
        model.local(vector, compute, "spread");
        return true;
      case "notices":
        model.disconnect(vector, { compute, node, cut: true });
        return true;
      case "takes":
        if (extra > 0) model.pay(vector, "crashes");
        return model.deliverToNode(vector, { compute, node, kind: extra });
      case "takes late":
        return model.deliverToNode(vector, { compute, node, kind: 0, old: extra });
      default:
        return this.#goWrong(vector, { what, compute, node, extra });
    }
  }

  #goWrong(vector: Int32Array, action: ReturnType<typeof decode>): boolean {
    const model = this.#model;
    const { what, compute, node, extra } = action;
    switch (what) {
      case "restarts":
        model.pay(vector, "restarts");
        model.local(vector, compute, "restart");
        break;
      case "asks anew":
        model.pay(vector, "expiries");
        model.local(vector, compute, "expiries");
        break;
      case "breaks":
      case "gives up":
        model.pay(vector, "drops");
        model.disconnect(vector, { compute, node, cut: what === "breaks" });
        break;
      case "crashes":
        model.pay(vector, "crashes");
        model.crash(vector, node);
        break;
      case "bump":
        model.pay(vector, "bumps");
        model.touch(vector, node, "bump");
        break;
      case "save":
        model.pay(vector, "saves");
        model.touch(vector, node, "save");
        break;
      case "gossip":
        model.pay(vector, "gossips");
        model.gossip(vector, node, extra);
        break;
      case "derive":
        model.pay(vector, "gossips");
        model.derive(vector, node);
        break;
      case "operator":
        model.pay(vector, "operator");
        model.operate(vector, this.#operatorSteps(vector)[extra]);
        break;
    }
    return true;
  }

  /** After `take`: the computes that were elected with another of the equally good donors. */
  otherDonors(vector: Int32Array): readonly { readonly at: number; readonly compute: number }[] {
    const model = this.#model;
    if (model.electedCompute < 0) return [];
    const at = model.computesAt + model.electedCompute;
    return model.computes.withOtherDonors(vector[at]).map((compute) => ({ at, compute }));
  }

  /**
   * Partial-order reduction: one action that alone is an ample set (Clarke, Grumberg, Peled, "Model checking", chapter 10), or
   * `FULL_EXPANSION`. Two kinds of delivery are taken as soon as they are possible, before anything else:
   *
   * - to a node, a request for its vote, when no other connection leads to the node nor can, its power does not fail, nothing is lost,
   *   and no other compute reads its log: then the vote is the only thing the node can do. What others do meanwhile neither changes
   *   the node nor looks at it; what the one compute does puts messages at the end of the queue, or leaves the queue behind, which
   *   the node empties all the same: the order does not matter (C1). A vote changes no log and no commit position, so that no
   *   invariant sees it (C2).
   * - to a compute, an answer, when it is the only thing that the compute can do and nothing can come to it before it does it: all its
   *   other connections are empty both ways and nothing breaks (C1). One that elects, acknowledges or settles is seen by the
   *   invariants, and is not taken so (C2).
   *
   * The explorer takes such an action alone only when it leads to a state not seen before, so that no cycle consists of them (C3).
   */
  eager(vector: Int32Array): number {
    const model = this.#model;
    const packed = vector[model.budgetsAt];
    if (packed !== 0 || model.hasMembership || model.configuration.spreads === true) return FULL_EXPANSION;
    for (let compute = 0; compute < model.computeCount; compute++) {
      let only = -1;
      let inputs = 0;
      for (const node of model.configuration.reach[compute]) {
        const id = vector[model.channelAt(compute, node)];
        if (this.#isLoneVote(vector, compute, node)) return encode("takes", compute, { node });
        if (model.channels.toCompute[id] !== 0) {
          inputs++;
          only = node;
        }
      }
      if (inputs === 1 && this.#isLoneAnswer(vector, compute, only)) return encode("answers", compute, { node: only });
    }
    return FULL_EXPANSION;
  }

  #isLoneVote(vector: Int32Array, compute: number, node: number): boolean {
    const model = this.#model;
    const { channels, computes } = model;
    const id = vector[model.channelAt(compute, node)];
    if (!channels.isOpen[id] || channels.toNode[id] === 0 || channels.nodeClosed[id] || channels.oldHeads[id].length > 0 || !model.messages.isVoteRequest[channels.toNode[id]]) return false;
    for (let other = 0; other < model.computeCount; other++) {
      if (other === compute) continue;
      const theirs = vector[model.channelAt(other, node)];
      if (channels.isOpen[theirs] || channels.oldHeads[theirs].length > 0) return false;
      if (model.configuration.reach[other].includes(node) && computes.mayConnect[vector[model.computesAt + other]]) return false;
    }
    return true;
  }

  #isLoneAnswer(vector: Int32Array, compute: number, node: number): boolean {
    const model = this.#model;
    const { channels, computes, nodeCount } = model;
    const id = vector[model.computesAt + compute];
    if (computes.mayWrite[id] || computes.appendFrom.slice(id * nodeCount, (id + 1) * nodeCount).some((from) => from !== NOTHING)) return false;
    for (const other of model.configuration.reach[compute]) {
      const channel = vector[model.channelAt(compute, other)];
      if (channels.isOpen[channel] ? channels.nodeClosed[channel] : computes.mayConnect[id]) return false;
      if (other !== node && (channels.toNode[channel] !== 0 || channels.toCompute[channel] !== 0)) return false;
    }
    return model.computes.isQuiet(id, node, channels.toCompute[vector[model.channelAt(compute, node)]]);
  }

  summary(vector: Int32Array): string {
    const { nodes, nodeCount, ghosts, ghostAt } = this.#model;
    const each = Array.from({ length: nodeCount }, (_, node) => `${nodes.term[vector[node]]}:${nodes.flushLsn[vector[node]]}c${nodes.commitLsn[vector[node]]}`);
    return `${each.join(" ")} | ack ${ghosts.acknowledgedLsn[vector[ghostAt]]}`;
  }
}
