/** Copies of a soup, and a text that two soups have in common exactly when they are in the same state. Needs `openCores`. */
import type { ProposerCore } from "../../../src/compute/proposer/core.ts";
import type { AcceptorMessage, ProposerMessage, VoteResponse } from "../../../src/safekeeper/api/proposer-messages.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import { Acceptor } from "../../../src/safekeeper/consensus/acceptor.ts";
import type { CoreCompute } from "./core-compute.ts";
import { CoreNode } from "./core-node.ts";
import { Soup } from "./soup.ts";

interface OpenSlot {
  readonly state: string;
  readonly nodeId: number | null;
  readonly vote: VoteResponse | null;
  readonly sentLsn: number;
  readonly flushLsn: number;
  readonly commitLsn: number;
  readonly toldCommitLsn: number;
  readonly heartbeatDue: boolean;
}

interface OpenCore {
  _slots: OpenSlot[];
  _phase: string;
  _availableLsn: number;
  _settledAll: boolean;
  _effects: unknown[];
}

function open(core: ProposerCore): OpenCore {
  const opened = core as unknown as OpenCore;
  if (!Array.isArray(opened._slots)) throw new Error("the cores were loaded with their private fields closed");
  return opened;
}

function cloneCore(core: ProposerCore): ProposerCore {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(core) as object) as ProposerCore, core);
  const opened = open(copy);
  opened._slots = opened._slots.map((slot) => ({ ...slot }));
  opened._effects = [];
  return copy;
}

function cloneNode(node: CoreNode): CoreNode {
  const log = node.log.clone();
  const copy = Object.assign(Object.create(CoreNode.prototype) as CoreNode, node, { log });
  if (node.acceptor !== null) {
    copy.acceptor = Object.assign(Object.create(Acceptor.prototype) as Acceptor, node.acceptor, { log, volatile: { ...node.acceptor.volatile } });
  }
  return copy;
}

/** What an action may change beside connections; all the rest is shared with the state before. */
export interface Touched {
  readonly node?: number;
  /** All of them unless given. */
  readonly compute?: number;
}

/** Keys of what has not changed since they were made. */
const keys = new WeakMap<object, string>();

function keptKey<T extends object>(of: T, make: (of: T) => string): string {
  let key = keys.get(of);
  if (key === undefined) keys.set(of, (key = make(of)));
  return key;
}

export function cloneSoup(soup: Soup, touched: Touched): Soup {
  const copy = new Soup({ nodes: 0, computes: 0, settleAtMajority: soup.settleAtMajority });
  copy.nextWriter = soup.nextWriter;
  copy.nodes = soup.nodes.map((node) => (node.id === touched.node ? cloneNode(node) : node));
  copy.computes = soup.computes.map((compute) => (touched.compute === undefined || touched.compute === compute.index ? compute.clone(cloneCore(compute.core)) : compute));
  copy.wires = soup.wires.map((wire) => ({ ...wire, toNode: [...wire.toNode], toCompute: [...wire.toCompute] }));
  copy.checker = soup.checker.clone();
  copy.gossip = [...soup.gossip];
  return copy;
}

export function keyOf(soup: Soup): string {
  const nodes = soup.nodes.map((node) => keptKey(node, nodeKey)).join(";");
  const computes = soup.computes.map((compute) => keptKey(compute, computeKey)).join(";");
  // A candidacy is known by its being the present one or not.
  const wires = soup.wires.map((wire) => {
    const present = wire.candidacy === soup.computes[wire.compute].candidacy ? "p" : "o";
    return `${wire.compute}>${wire.node}${present}${wire.computeEnd[0]}${wire.nodeEnd[0]}${wire.streaming}${wire.dirty}${wire.proposerCommit}[${wire.toNode.map(messageKey).join()}][${wire.toCompute.map(messageKey).join()}]`;
  }).sort().join(";");
  const { checker } = soup;
  const acknowledged = checker.acknowledged.map(({ term, lsn }) => `${term}:${lsn}`).join();
  const leaders = [...checker.leaders].map(([term, { writer, startLsn }]) => `${term}:${writer}:${startLsn}`).sort().join();
  return `${nodes}|${computes}|${wires}|${checker.committed.join()}|${acknowledged}|${leaders}`;
}

function computeKey(compute: CoreCompute): string {
  const { mode, startLsn, endLsn, electedTerm, acknowledgedLsn, writer, settlingSince, candidacy } = compute;
  return `${mode},${candidacy},${startLsn},${endLsn},${electedTerm},${acknowledgedLsn},${writer},${settlingSince},${coreKey(compute.core)}`;
}

function nodeKey({ durable, log, acceptor }: CoreNode): string {
  const memory = acceptor === null ? "down" : `${acceptor.volatile.commitLsn},${acceptor.volatile.peerHorizonLsn},${acceptor.termStartLsn}`;
  return `${durable.term},${historyKey(durable.termHistory)},${durable.commitLsn},${durable.peerHorizonLsn},${log.startLsn},${log.entries.join("")},${log.flushed},${log.truncationNeeded},${memory}`;
}

function coreKey(core: ProposerCore): string {
  if (core.dead) return "dead";
  const { _phase, _availableLsn, _settledAll, _slots } = open(core);
  const election = core.election === null ? "-" : `${core.election.startLsn},${core.election.donor},${historyKey(core.election.history)}`;
  const slots = _slots.map(({ state, vote, sentLsn, flushLsn, commitLsn, toldCommitLsn, heartbeatDue }) => {
    // Once the election is announced the vote is not looked at again.
    const voted = vote === null || state === "active" ? "-" : messageKey(vote);
    return `${state},${voted},${sentLsn},${flushLsn},${commitLsn},${toldCommitLsn},${heartbeatDue}`;
  });
  return `${_phase},${core.term},${election},${_availableLsn},${core.commitLsn},${core.truncateLsn},${_settledAll},${slots.join("/")}`;
}

function historyKey(history: TermHistory): string {
  return history.map(({ term, lsn }) => `${term}@${lsn}`).join("+");
}

function messageKey(message: ProposerMessage | AcceptorMessage): string {
  switch (message.kind) {
    case "greeting":
      return "term" in message ? `g${message.term}` : "g";
    case "vote-request":
      return `v${message.term}`;
    case "vote":
      return `v${message.term},${message.voteGiven},${message.flushLsn},${message.truncateLsn},${historyKey(message.termHistory)}`;
    case "elected":
      return `e${message.term},${message.startStreamingAt},${historyKey(message.termHistory)}`;
    case "append":
      return "walData" in message ? `a${message.term},${message.beginLsn},${message.walData.join("")},${message.commitLsn},${message.truncateLsn}` : `a${message.term},${message.flushLsn},${message.commitLsn}`;
  }
}
