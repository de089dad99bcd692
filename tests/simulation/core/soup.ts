/**
 * The state of a fast simulation and its actions: nodes, computes, and connections between them, each a pair of queues in
 * order. Everything else (which connection moves next, what breaks) is the caller's choice, by chance or one by one.
 */
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { CoreEffect } from "../../../src/compute/proposer/core-types.ts";
import type { AcceptorMessage, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { handlePeerCommit } from "../../../src/safekeeper/consensus/append.ts";
import { deriveCommit } from "../../../src/safekeeper/consensus/derived-commit.ts";
import { CoreChecker } from "./core-checker.ts";
import { CoreCompute } from "./core-compute.ts";
import { CoreNode, PowerFailure } from "./core-node.ts";

export interface Wire {
  readonly compute: number;
  readonly node: number;
  /** Of the compute when it connected; the compute's end is open while it is the present one. */
  readonly candidacy: number;
  readonly toNode: ProposerMessage[];
  readonly toCompute: AcceptorMessage[];
  /** What goes to the node on it takes its time. */
  slow: boolean;
  computeEnd: "open" | "closed";
  nodeEnd: "open" | "closed";
  /** WAL may be sent. */
  streaming: boolean;
  /** Appends were taken in on it and not answered. */
  dirty: boolean;
  /** Said by the last of them. */
  proposerCommit: Lsn;
}

export interface Gossip {
  readonly from: number;
  readonly term: number;
  readonly lastLogTerm: number;
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
}

export class Soup {
  nodes: CoreNode[];
  computes: CoreCompute[];
  wires: Wire[] = [];
  checker: CoreChecker;
  /** The latest published by each node, and older ones that are late. */
  gossip: Gossip[] = [];
  #nextWriter = 1;
  /** Computes and nodes that hardly reach each other at present. */
  avoid: ReadonlySet<number> = new Set();
  /** Of the connections. */
  slowShare = 0;
  /** How long what goes on a slow one waits. */
  stickiness = 0;
  /** Said on settling: all connected safekeepers, or a majority at once. */
  readonly settleAtMajority: boolean;

  constructor(options: { nodes: number; computes: number; settleAtMajority: boolean }) {
    this.nodes = Array.from({ length: options.nodes }, (_, id) => new CoreNode(id, options.nodes));
    this.checker = new CoreChecker(options.nodes);
    this.settleAtMajority = options.settleAtMajority;
    this.computes = Array.from({ length: options.computes }, (_, index) => new CoreCompute({ index, slots: options.nodes, writer: this.#nextWriter++, settlingSince: 0 }));
  }

  get nextWriter(): number {
    return this.#nextWriter;
  }
  set nextWriter(writer: number) {
    this.#nextWriter = writer;
  }

  isAvoided(compute: number, node: number): boolean {
    return this.avoid.has(pairOf(compute, node));
  }

  wireOf(compute: number, node: number): Wire | undefined {
    return this.wires.find((wire) => wire.compute === compute && wire.node === node && wire.computeEnd === "open");
  }

  connect(compute: number, node: number, slow = false): void {
    const { core, candidacy } = this.computes[compute];
    if (this.nodes[node].acceptor === null || core.dead) return;
    this.wires.push({ compute, node, candidacy, toNode: [], toCompute: [], slow, computeEnd: "open", nodeEnd: "open", streaming: false, dirty: false, proposerCommit: 0 });
    this.#carryOut(compute, core.connected(node));
  }

  /** The compute's end notices that the connection is gone; what was on the way to the node still arrives unless `cut`. */
  closeAtCompute(wire: Wire, cut: boolean): void {
    if (wire.computeEnd === "open") {
      wire.computeEnd = "closed";
      wire.streaming = false;
      wire.toCompute.length = 0;
      const compute = this.computes[wire.compute];
      if (compute.candidacy === wire.candidacy) this.#carryOut(wire.compute, compute.core.disconnected(wire.node));
    }
    if (cut) this.#closeAtNode(wire);
    this.#sweep();
  }

  #closeAtNode(wire: Wire): void {
    wire.nodeEnd = "closed";
    wire.toNode.length = 0;
    wire.dirty = false;
  }

  #sweep(): void {
    this.wires = this.wires.filter((wire) => wire.computeEnd === "open" || (wire.nodeEnd === "open" && (wire.toNode.length > 0 || wire.dirty)));
  }

  /** @param failAfter see `CoreNode.run` */
  deliverToNode(wire: Wire, failAfter?: number): void {
    const message = wire.toNode.shift();
    const node = this.nodes[wire.node];
    if (message === undefined) return;
    try {
      const reply = node.receive(message, failAfter);
      if (message.kind === "append" && (reply === null || reply.term <= message.term)) {
        wire.dirty = true;
        wire.proposerCommit = message.commitLsn;
      }
      if (reply !== null && wire.computeEnd === "open") wire.toCompute.push(reply);
    } catch (error) {
      if (error instanceof PowerFailure) {
        this.checker.lookAtCut(node, this.nodes);
        return this.crash(wire.node, 0);
      }
      if (!isStrataError(error)) throw error;
      this.#closeAtNode(wire);
      this.closeAtCompute(wire, true);
    }
    this.checker.look(node, this.nodes);
    this.#sweep();
  }

  flush(wire: Wire): void {
    if (!wire.dirty) return;
    wire.dirty = false;
    const node = this.nodes[wire.node];
    const reply = node.flush(wire.proposerCommit);
    if (wire.computeEnd === "open") wire.toCompute.push(reply);
    this.checker.look(node, this.nodes);
    this.#sweep();
  }

  deliverToCompute(wire: Wire): void {
    const message = wire.toCompute.shift();
    const compute = this.computes[wire.compute];
    if (message !== undefined && compute.candidacy === wire.candidacy) this.#carryOut(wire.compute, compute.core.received(wire.node, message));
  }

  /** Whether `sendAppend` would send something. */
  hasAppend(wire: Wire): boolean {
    const { core, candidacy } = this.computes[wire.compute];
    return wire.streaming && wire.candidacy === candidacy && core.nextAppend(wire.node, 1) !== null;
  }

  sendAppend(wire: Wire, maxEntries: number): void {
    const compute = this.computes[wire.compute];
    const next = compute.core.nextAppend(wire.node, maxEntries);
    if (next === null) return;
    const entries = next.maxBytes === 0 ? [] : (compute.localEntries(next.beginLsn, next.beginLsn + next.maxBytes) ?? this.#fromDonor(compute, wire.node, next));
    // No donor: the connection is dropped and made again.
    if (entries === null) return this.closeAtCompute(wire, true);
    const request = compute.core.append(wire.node, next.beginLsn, Uint8Array.from(entries));
    if (request !== null) wire.toNode.push(request);
  }

  /** As `Candidacy` chooses it: another active safekeeper that has more, read in the log of our term. */
  #fromDonor(compute: CoreCompute, slot: number, next: { readonly beginLsn: Lsn; readonly maxBytes: number }): readonly number[] | null {
    const { core } = compute;
    const election = core.election;
    let best: { node: CoreNode; end: Lsn } | null = null;
    for (const node of this.nodes) {
      const { state, flushLsn } = core.slotStatus(node.id);
      if (node.id === slot || state !== "active") continue;
      const end = node.id === election?.donor ? Math.max(flushLsn, election.startLsn) : flushLsn;
      if (end > (best?.end ?? next.beginLsn)) best = { node, end };
    }
    if (best === null || best.node.acceptor?.persisted.term !== core.term) return null;
    const { log } = best.node;
    const end = Math.min(log.flushed, next.beginLsn + next.maxBytes);
    return end <= next.beginLsn ? null : log.entries.slice(next.beginLsn - log.startLsn, end - log.startLsn);
  }

  crash(id: number, kept: number): void {
    const node = this.nodes[id];
    node.crash(kept);
    for (const wire of this.wires) {
      if (wire.node !== id) continue;
      this.#closeAtNode(wire);
      // The other end notices later, or never: the caller closes it.
    }
    this.#sweep();
  }

  restart(id: number): void {
    const node = this.nodes[id];
    node.restart();
    this.checker.lookAfterRestart(node, this.nodes);
    for (const wire of this.wires.filter((candidate) => candidate.node === id && candidate.nodeEnd === "closed")) this.closeAtCompute(wire, true);
  }

  publish(id: number): void {
    const info = this.nodes[id].info();
    if (info === null) return;
    this.gossip.push({ from: id, ...info });
    if (this.gossip.length > 6) this.gossip.shift();
  }

  hearGossip(id: number, gossip: Gossip): void {
    const node = this.nodes[id];
    if (node.acceptor === null || gossip.from === id) return;
    node.run((acceptor) => handlePeerCommit(acceptor, gossip));
    this.checker.look(node, this.nodes);
  }

  /** From what the others said of themselves, each at another time. */
  deriveCommit(id: number): void {
    const node = this.nodes[id];
    if (node.acceptor === null) return;
    const latest = new Map(this.gossip.map(({ from, term, lastLogTerm, flushLsn }) => [from, { nodeId: from, term, lastLogTerm, flushLsn }]));
    node.run((acceptor) => deriveCommit(acceptor, [...latest.values()]));
    this.checker.look(node, this.nodes);
  }

  saveControlFile(id: number): void {
    const node = this.nodes[id];
    if (node.acceptor === null) return;
    node.run((acceptor) => acceptor.persist());
    this.checker.look(node, this.nodes);
  }

  bumpTerm(id: number): void {
    const node = this.nodes[id];
    if (node.acceptor === null) return;
    node.run((acceptor) => acceptor.bumpTerm(null));
    this.checker.look(node, this.nodes);
  }

  restartCompute(index: number): void {
    this.#closeWires(index);
    this.computes[index].restart(this.#nextWriter++, this.checker.acknowledgedLsn);
  }

  #closeWires(index: number): void {
    for (const wire of this.wires) {
      if (wire.compute !== index || wire.computeEnd === "closed") continue;
      wire.computeEnd = "closed";
      wire.streaming = false;
      wire.toCompute.length = 0;
    }
    this.#sweep();
  }

  #carryOut(index: number, effects: readonly CoreEffect[]): void {
    const compute = this.computes[index];
    const { candidacy } = compute;
    for (const effect of effects) {
      if (compute.candidacy !== candidacy) return;
      this.#perform(compute, effect);
    }
  }

  #perform(compute: CoreCompute, effect: CoreEffect): void {
    switch (effect.kind) {
      case "send":
        this.#openWire(compute, effect.slot)?.toNode.push(effect.message);
        break;
      case "stream": {
        const wire = this.#openWire(compute, effect.slot);
        if (wire !== undefined) wire.streaming = true;
        break;
      }
      case "drop": {
        const wire = this.#openWire(compute, effect.slot);
        if (wire !== undefined) this.closeAtCompute(wire, true);
        break;
      }
      case "elected":
        this.checker.elected(compute.writer, effect.election);
        if (compute.mode === "run") {
          compute.electedTerm = effect.election.term;
          compute.core.walAvailable(compute.endLsn);
        }
        break;
      case "committed":
        if (compute.mode === "sync") compute.core.spreadCommit();
        else this.#acknowledge(compute, Math.min(effect.lsn, compute.endLsn));
        break;
      case "settled":
        if (effect.all || this.settleAtMajority) this.#settled(compute, effect.lsn);
        break;
      case "superseded":
        this.#closeWires(compute.index);
        compute.campaign();
        break;
      case "start-mismatch":
        this.restartCompute(compute.index);
        break;
    }
  }

  #openWire(compute: CoreCompute, slot: number): Wire | undefined {
    const wire = this.wireOf(compute.index, slot);
    return wire?.candidacy === compute.candidacy ? wire : undefined;
  }

  #settled(compute: CoreCompute, lsn: Lsn): void {
    this.checker.settled(lsn, compute.settlingSince);
    this.#closeWires(compute.index);
    compute.run(lsn);
  }

  #acknowledge(compute: CoreCompute, lsn: Lsn): void {
    const fromLsn = compute.acknowledgedLsn;
    if (lsn <= fromLsn) return;
    compute.acknowledgedLsn = lsn;
    this.checker.acknowledge({ term: compute.core.term, fromLsn, lsn, entries: compute.localEntries(fromLsn, lsn) ?? [] }, this.nodes);
  }
}

export function pairOf(compute: number, node: number): number {
  return compute * 16 + node;
}
