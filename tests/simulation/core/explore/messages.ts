/** Messages between the parts, by numbers. */
import type { AcceptorMessage, ProposerMessage } from "../../../../src/safekeeper/api/proposer-messages.ts";
import type { TermHistory } from "../../../../src/safekeeper/api/term-history.ts";
import { Interner } from "./tables.ts";

export type Message = ProposerMessage | AcceptorMessage;

export class Messages {
  readonly #interner: Interner<Message | null>;
  /** Terms from which on a node takes no notice of the message, by its number. */
  readonly deadFrom: number[] = [0];
  readonly isVoteRequest: boolean[] = [false];

  constructor() {
    this.#interner = new Interner<Message | null>(null);
  }

  get size(): number {
    return this.#interner.size;
  }

  add(message: Message): number {
    const before = this.#interner.size;
    const id = this.#interner.add(messageKey(message), message);
    if (id === before) {
      this.deadFrom.push(deadFrom(message));
      this.isVoteRequest.push(message.kind === "vote-request");
    }
    return id;
  }

  keyOf(id: number): string {
    return this.#interner.keys[id];
  }

  at(id: number): Message {
    const message = this.#interner.values[id];
    if (message === null || message === undefined) throw new Error(`no message ${id}`);
    return message;
  }
}

/** A greeting without news changes nothing; a vote is given once a term; what is of an older term is refused. */
function deadFrom(message: Message): number {
  switch (message.kind) {
    case "vote-request":
      return message.term;
    case "elected":
    case "append":
      return message.term + 1;
    default:
      return Number.MAX_SAFE_INTEGER;
  }
}

export function historyKey(history: TermHistory): string {
  return history.map(({ term, lsn }) => `${term}@${lsn}`).join("+");
}

/**
 * Not in it: the horizon below which WAL may be removed (`truncateLsn`), which is told around but decides nothing in either core.
 */
export function messageKey(message: Message): string {
  switch (message.kind) {
    case "greeting":
      return `g${"nodeId" in message ? `${message.nodeId},${message.term}` : ""},${message.configuration.generation}`;
    case "vote-request":
      return `v${message.term},${message.generation}`;
    case "vote":
      return `r${message.term},${message.generation},${message.voteGiven},${message.flushLsn},${historyKey(message.termHistory)}`;
    case "elected":
      return `e${message.term},${message.generation},${message.startStreamingAt},${historyKey(message.termHistory)}`;
    case "append":
      return "walData" in message
        ? `a${message.term},${message.generation},${message.beginLsn},${message.walData.join(".")},${message.commitLsn}`
        : `s${message.term},${message.generation},${message.flushLsn},${message.commitLsn}`;
  }
}
