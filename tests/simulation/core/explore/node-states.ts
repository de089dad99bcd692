/** The states of a node, and what the shipping acceptor does from each of them, computed once. */
import { isStrataError } from "../../../../src/kit/errors.ts";
import type { Configuration as Membership } from "../../../../src/safekeeper/api/membership.ts";
import type { ProposerMessage } from "../../../../src/safekeeper/api/proposer-messages.ts";
import { handlePeerCommit } from "../../../../src/safekeeper/consensus/append.ts";
import { deriveCommit, type LogPosition } from "../../../../src/safekeeper/consensus/derived-commit.ts";
import { Violation } from "../../violation.ts";
import { type CoreNode, PowerFailure } from "../core-node.ts";
import { cloneNode } from "../snapshot.ts";
import { historyKey, type Messages } from "./messages.ts";
import { Interner, PairTable } from "./tables.ts";

/** What happened to a node: the numbers index the arrays of `NodeStates`. */
export interface NodeStep {
  readonly node: number;
  /** What it answers, in order. */
  readonly replies: readonly number[];
  /** It closed the connection the message came on. */
  readonly closed: boolean;
  /** Power failed. */
  readonly failed: boolean;
  /** An invariant was violated. */
  readonly violation: string | null;
}

/** Kinds of one message's events: taken; power fails after 1, 2 or 3 effects; an append's entries survive though not synced. */
export const KINDS = 5;
const FAIL_KEPT = 4;
const LOCAL = -2;

type Local = "crash" | "save" | "bump" | `raise ${number}` | `gossip ${number} ${number}` | `derive ${string}` | `switch ${number}`;

export class NodeStates {
  readonly messages: Messages;
  readonly #interner: Interner<CoreNode | null> = new Interner<CoreNode | null>(null);
  readonly #steps: NodeStep[] = [];
  readonly #known = new PairTable();
  readonly #localIds = new Map<string, number>();
  readonly #memberships: readonly Membership[];
  readonly term: number[] = [0];
  readonly flushLsn: number[] = [0];
  readonly commitLsn: number[] = [0];
  readonly lastLogTerm: number[] = [0];
  readonly generation: number[] = [0];

  /** @param memberships that an operator may switch to */
  constructor(messages: Messages, memberships: readonly Membership[]) {
    this.messages = messages;
    this.#memberships = memberships;
    this.#interner.onNew = (id, node) => {
      if (node?.acceptor == null) throw new Error(`node state ${id} is down`);
      const { acceptor } = node;
      this.term.push(acceptor.persisted.term);
      this.flushLsn.push(acceptor.persisted.timelineStartLsn === 0 ? 0 : acceptor.flushLsn);
      this.commitLsn.push(acceptor.volatile.commitLsn);
      this.lastLogTerm.push(acceptor.lastLogTerm);
      this.generation.push(acceptor.persisted.configuration.generation);
    };
  }

  get size(): number {
    return this.#interner.size;
  }

  at(id: number): CoreNode {
    const node = this.#interner.values[id];
    if (node === null || node === undefined) throw new Error(`no node state ${id}`);
    return node;
  }

  keyOf(id: number): string {
    return this.#interner.keys[id];
  }

  add(node: CoreNode): number {
    return this.#interner.add(nodeKey(node), node);
  }

  /** @param kind see `KINDS`; null when so many effects there are not */
  take(id: number, message: number, kind: number): NodeStep | null {
    const event = message * KINDS + kind;
    let step = this.#known.get(id, event);
    if (step === -1) this.#known.set(id, event, (step = this.#takeNow(id, message, kind)));
    return step === LOCAL ? null : this.#steps[step];
  }

  #takeNow(id: number, message: number, kind: number): number {
    const node = cloneNode(this.at(id));
    const said = this.messages.at(message) as ProposerMessage;
    const replies: number[] = [];
    try {
      if (kind === FAIL_KEPT) {
        if (said.kind !== "append" || said.walData.length === 0) return LOCAL;
        node.receive(said);
        node.crash(said.walData.length);
        node.restart();
        return this.#record(id, { node, replies, closed: false, failed: true });
      }
      const reply = node.receive(said, kind === 0 ? Number.POSITIVE_INFINITY : kind);
      if (kind !== 0) return LOCAL;
      if (reply !== null) replies.push(this.messages.add(reply));
      // An append is answered when it is durable.
      if (said.kind === "append" && (reply === null || (reply.kind === "append" && reply.term <= said.term))) replies.push(this.messages.add(node.flush(said.commitLsn)));
      return this.#record(id, { node, replies, closed: false, failed: false });
    } catch (error) {
      if (error instanceof PowerFailure) {
        node.crash(0);
        node.restart();
        return this.#record(id, { node, replies: [], closed: false, failed: true });
      }
      if (!isStrataError(error)) throw error;
      return kind === 0 ? this.#record(id, { node, replies: [], closed: true, failed: false }) : LOCAL;
    }
  }

  /** What happens to it without a message of a proposer. */
  local(id: number, what: Local): number {
    let event = this.#localIds.get(what);
    if (event === undefined) this.#localIds.set(what, (event = -2 - this.#localIds.size));
    let step = this.#known.get(id, event);
    if (step === -1) this.#known.set(id, event, (step = this.#localNow(id, what)));
    return this.#checked(this.#steps[step]).node;
  }

  #localNow(id: number, what: Local): number {
    const node = cloneNode(this.at(id));
    const [kind, first, second] = what.split(" ");
    if (kind === "crash") {
      node.crash(0);
      node.restart();
    } else if (kind === "save") node.run((acceptor) => acceptor.persist());
    else if (kind === "bump") node.run((acceptor) => acceptor.bumpTerm(null));
    else if (kind === "raise") node.run((acceptor) => acceptor.bumpTerm(Number(first)));
    else if (kind === "switch") node.run((acceptor) => acceptor.switchConfiguration(this.#memberships[Number(first)]));
    else if (kind === "gossip") node.run((acceptor) => handlePeerCommit(acceptor, { lastLogTerm: Number(first), commitLsn: Number(second) }));
    else node.run((acceptor) => deriveCommit(acceptor, JSON.parse(first) as LogPosition[]));
    return this.#record(id, { node, replies: [], closed: false, failed: kind === "crash" });
  }

  #checked(step: NodeStep): NodeStep {
    if (step.violation !== null) throw new Violation(step.violation);
    return step;
  }

  #record(before: number, step: Omit<NodeStep, "node" | "violation"> & { readonly node: CoreNode }): number {
    const { node, ...rest } = step;
    this.#steps.push({ ...rest, node: this.add(node), violation: violationOf(this.at(before), node, step.failed) });
    return this.#steps.length - 1;
  }
}

/** What holds from one state of a node to the next. */
function violationOf(before: CoreNode, after: CoreNode, failed: boolean): string | null {
  const [was, is] = [before.acceptor, after.acceptor];
  if (was === null || is === null) return "a node stays down";
  const flushLsn = is.persisted.timelineStartLsn === 0 ? 0 : is.flushLsn;
  if (is.volatile.commitLsn > flushLsn) return `commit_lsn ${is.volatile.commitLsn} is above flush_lsn ${flushLsn}`;
  if (is.persisted.term < was.persisted.term) return `the term went back from ${was.persisted.term} to ${is.persisted.term}`;
  if (is.persisted.configuration.generation < was.persisted.configuration.generation) return "the membership's generation went back";
  const committed = failed ? was.persisted.commitLsn : was.volatile.commitLsn;
  if (is.volatile.commitLsn < committed) return `commit_lsn went back from ${committed} to ${is.volatile.commitLsn}`;
  return null;
}

/** All of a node that decides anything: not the horizon, which is only told around. */
function nodeKey({ id, durable, log, acceptor }: CoreNode): string {
  const memory = acceptor === null ? "down" : `${acceptor.persisted.term},${acceptor.volatile.commitLsn},${acceptor.termStartLsn}`;
  const { term, termHistory, commitLsn, timelineStartLsn, configuration, recovering, safekeeperCount } = durable;
  return `${id}|${term},${historyKey(termHistory)},${commitLsn},${timelineStartLsn},${configuration.generation},${recovering},${safekeeperCount}|${log.startLsn},${log.entries.join(".")},${log.flushed},${log.truncationNeeded}|${memory}`;
}
