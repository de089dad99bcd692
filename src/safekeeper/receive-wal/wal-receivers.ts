/** Proposers (and our own recovery) that write to a timeline now. */
import { Watch } from "../../kit/watch.ts";
import type { PageserverFeedback } from "../api/pageserver-feedback.ts";

export interface WalReceiver {
  /** Null: recovery that this safekeeper started itself. */
  readonly connectionId: number | null;
  status: "voting" | "streaming";
}

export class WalReceivers {
  readonly #receivers = new Set<WalReceiver>();
  readonly #feedbackListeners = new Set<(feedback: PageserverFeedback) => void>();
  /** How many there are. */
  readonly count = new Watch(0);

  get all(): readonly WalReceiver[] {
    return [...this.#receivers];
  }

  /** Proposers that passed their election here. */
  get streaming(): number {
    return this.all.filter((receiver) => receiver.connectionId !== null && receiver.status === "streaming").length;
  }

  register(connectionId: number | null): { readonly receiver: WalReceiver; readonly unregister: () => void } {
    const receiver: WalReceiver = { connectionId, status: "voting" };
    this.#receivers.add(receiver);
    this.count.set(this.#receivers.size);
    return {
      receiver,
      unregister: () => {
        this.#receivers.delete(receiver);
        this.count.set(this.#receivers.size);
      },
    };
  }

  /** Returns the undo. */
  onPageserverFeedback(listener: (feedback: PageserverFeedback) => void): () => void {
    this.#feedbackListeners.add(listener);
    return () => this.#feedbackListeners.delete(listener);
  }

  passOn(feedback: PageserverFeedback): void {
    for (const listener of [...this.#feedbackListeners]) listener(feedback);
  }
}
