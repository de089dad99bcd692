/**
 * What stands between a compute and a node: the connection the compute has, a queue each way, and queues of connections it has
 * given up whose messages the node may still take.
 */
import type { Messages } from "./messages.ts";
import { Interner, PairTable } from "./tables.ts";

interface Channel {
  /** Null: the compute has no connection. */
  readonly open: { readonly toNode: readonly number[]; readonly toCompute: readonly number[]; readonly nodeClosed: boolean } | null;
  readonly old: readonly (readonly number[])[];
}

export const CLOSED = 1;
const EVENTS = { open: -2, takeByNode: -3, takeByCompute: -4, abandon: -5, cut: -6, nodeCloses: -7 };
const TAKE_OLD = -16;
const CLOSE_OLD = -32;
const FORGET = -64;

export class Channels {
  readonly #interner = new Interner<Channel>({ open: null, old: [] });
  readonly #known = new PairTable();
  readonly #messages: Messages;
  readonly isOpen: boolean[] = [];
  readonly nodeClosed: boolean[] = [];
  /** First on the way, 0 when there is none. */
  readonly toNode: number[] = [];
  readonly toCompute: number[] = [];
  /** Of each old queue. */
  readonly oldHeads: (readonly number[])[] = [];
  /** The lowest term from which on part of an old queue is of no effect; none: infinite. */
  readonly oldDeadFrom: number[] = [];

  constructor(messages: Messages) {
    this.#messages = messages;
    this.#describe({ open: null, old: [] });
    this.#interner.onNew = (_, channel) => this.#describe(channel);
    this.#add({ open: null, old: [] });
  }

  get size(): number {
    return this.#interner.size;
  }

  /** With what the messages say, whose numbers differ from run to run. */
  textOf(id: number): string {
    const { open, old } = this.#interner.values[id];
    const said = (queue: readonly number[]): string => queue.map((message) => this.#messages.keyOf(message)).join();
    return `${open === null ? "-" : `${said(open.toNode)}>${said(open.toCompute)}${open.nodeClosed ? "x" : ""}`}|${old.map(said).sort().join(";")}`;
  }

  #add(channel: Channel): number {
    const old = channel.old.filter((queue) => queue.length > 0).map((queue) => queue.join(".")).sort();
    const open = channel.open === null ? "-" : `${channel.open.toNode.join(".")}>${channel.open.toCompute.join(".")}${channel.open.nodeClosed ? "x" : ""}`;
    return this.#interner.add(`${open}|${old.join(";")}`, { open: channel.open, old: old.map((text) => text.split(".").map(Number)) });
  }

  #describe({ open, old }: Channel): void {
    this.isOpen.push(open !== null);
    this.nodeClosed.push(open?.nodeClosed ?? false);
    this.toNode.push(open?.toNode[0] ?? 0);
    this.toCompute.push(open?.toCompute[0] ?? 0);
    this.oldHeads.push(old.map(([head]) => head));
    this.oldDeadFrom.push(old.reduce((lowest, [head]) => Math.min(lowest, this.#messages.deadFrom[head]), Number.POSITIVE_INFINITY));
  }

  #change(id: number, event: number, change: (channel: Channel) => Channel): number {
    let after = this.#known.get(id, event);
    if (after === -1) this.#known.set(id, event, (after = this.#add(change(this.#interner.values[id]))));
    return after;
  }

  #changeOpen(id: number, event: number, change: (open: NonNullable<Channel["open"]>) => Channel["open"]): number {
    return this.#change(id, event, (channel) => ({ ...channel, open: channel.open === null ? null : change(channel.open) }));
  }

  opened(id: number): number {
    return this.#change(id, EVENTS.open, ({ old }) => ({ open: { toNode: [], toCompute: [], nodeClosed: false }, old }));
  }

  sentToNode(id: number, message: number): number {
    return this.#changeOpen(id, message * 2, (open) => (open.nodeClosed ? open : { ...open, toNode: [...open.toNode, message] }));
  }

  sentToCompute(id: number, message: number): number {
    return this.#changeOpen(id, message * 2 + 1, (open) => ({ ...open, toCompute: [...open.toCompute, message] }));
  }

  takenByNode(id: number): number {
    return this.#changeOpen(id, EVENTS.takeByNode, (open) => ({ ...open, toNode: open.toNode.slice(1) }));
  }

  takenByCompute(id: number): number {
    return this.#changeOpen(id, EVENTS.takeByCompute, (open) => ({ ...open, toCompute: open.toCompute.slice(1) }));
  }

  takenOfOld(id: number, queue: number): number {
    return this.#change(id, TAKE_OLD - queue, ({ open, old }) => ({ open, old: old.map((messages, at) => (at === queue ? messages.slice(1) : messages)) }));
  }

  oldClosed(id: number, queue: number): number {
    return this.#change(id, CLOSE_OLD - queue, ({ open, old }) => ({ open, old: old.filter((_, at) => at !== queue) }));
  }

  /** The compute's end is closed; what is on the way to the node still arrives. */
  abandoned(id: number): number {
    return this.#change(id, EVENTS.abandon, ({ open, old }) => ({ open: null, old: open === null || open.nodeClosed ? old : [...old, open.toNode] }));
  }

  /** Both ends are closed, and all that is on the way is lost. */
  cut(id: number): number {
    return this.#change(id, EVENTS.cut, ({ old }) => ({ open: null, old }));
  }

  /** The node's ends are gone; the compute has not noticed. */
  nodeCloses(id: number): number {
    return this.#change(id, EVENTS.nodeCloses, ({ open }) => ({ open: open === null ? null : { ...open, toNode: [], nodeClosed: true }, old: [] }));
  }

  /**
   * What is of no effect at a node that has come to `term` is forgotten: nobody hears the answer on a connection given up, terms
   * only grow, and such a message changes nothing there. So the state without it has the same future.
   */
  settled(id: number, term: number): number {
    if (this.oldDeadFrom[id] > term) return id;
    return this.#change(id, FORGET - term, ({ open, old }) => ({
      open,
      old: old.map((queue) => {
        const alive = queue.findIndex((message) => this.#messages.deadFrom[message] > term);
        return alive < 0 ? [] : queue.slice(alive);
      }),
    }));
  }
}
