/**
 * Safekeepers are interchangeable: nothing in the protocol asks which of them one is. Of all states that differ only in which node
 * is which, one is explored (Clarke, Enders, Filkorn, Jha, "Exploiting symmetry in temporal logic model checking", 1996).
 *
 * Why this is sound: a permutation of the nodes maps each action to an action and each invariant to itself, but for one thing: of
 * voters whose logs are equally good the proposer takes the first slot's for the donor. So after an election each of those is
 * tried (`Model.otherDonors`), which the order of the slots on a compute's command line may bring about as well. Computes that reach
 * different nodes tell nodes apart: only those are exchanged that the same computes reach. With a membership, nodes have names, and
 * nothing is exchanged.
 */
import type { Model } from "./model.ts";

export class Symmetry {
  readonly #model: Model;
  /** Nodes that may change places with the one before. */
  readonly #joined: readonly boolean[];
  readonly #order: number[];
  readonly #to: number[];
  readonly #scratch: Int32Array;
  readonly enabled: boolean;

  constructor(model: Model, enabled: boolean) {
    this.#model = model;
    const { reach } = model.configuration;
    const reachers = Array.from({ length: model.nodeCount }, (_, node) => reach.map((nodes) => nodes.includes(node)).join());
    this.#joined = reachers.map((who, node) => node > 0 && who === reachers[node - 1]);
    this.enabled = enabled && !model.hasMembership && this.#joined.some(Boolean);
    this.#order = reachers.map((_, node) => node);
    this.#to = reachers.map((_, node) => node);
    this.#scratch = new Int32Array(model.length);
  }

  /** Puts the nodes in their order: whoever is equal in all that stands in the vector is equal, so that there is one such order. */
  canonicalize(vector: Int32Array): void {
    if (!this.enabled) return;
    const order = this.#order;
    const count = order.length;
    for (let node = 0; node < count; node++) order[node] = node;
    let sorted = true;
    for (let at = 1; at < count; at++) {
      for (let back = at; back > 0 && this.#joined[back] && this.#compare(vector, order[back], order[back - 1]) < 0; back--) {
        const node = order[back];
        order[back] = order[back - 1];
        order[back - 1] = node;
        sorted = false;
      }
    }
    if (!sorted) this.#rearrange(vector);
  }

  #compare(vector: Int32Array, a: number, b: number): number {
    if (vector[a] !== vector[b]) return vector[a] - vector[b];
    const { channelsAt, computesAt, nodeCount, computeCount, computes } = this.#model;
    for (let compute = 0; compute < computeCount; compute++) {
      const at = channelsAt + compute * nodeCount;
      if (vector[at + a] !== vector[at + b]) return vector[at + a] - vector[at + b];
      const slots = vector[computesAt + compute] * nodeCount;
      const difference = computes.slotIds[slots + a] - computes.slotIds[slots + b];
      if (difference !== 0) return difference;
    }
    return 0;
  }

  #rearrange(vector: Int32Array): void {
    const { channelsAt, computesAt, ghostAt, nodeCount, computeCount, computes } = this.#model;
    const [order, to, scratch] = [this.#order, this.#to, this.#scratch];
    let index = 0;
    for (let place = 0; place < nodeCount; place++) {
      to[order[place]] = place;
      scratch[place] = vector[order[place]];
      index = index * nodeCount + order[place];
      for (let compute = 0; compute < computeCount; compute++) {
        const at = channelsAt + compute * nodeCount;
        scratch[at + place] = vector[at + order[place]];
      }
    }
    for (let compute = 0; compute < computeCount; compute++) scratch[computesAt + compute] = computes.permuted(vector[computesAt + compute], to, index);
    for (let at = 0; at < ghostAt; at++) vector[at] = scratch[at];
  }
}
