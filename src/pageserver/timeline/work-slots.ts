/** A bounded number of places for heavy work, taken in the order of asking. */
import { abortable } from "../layers/layer.ts";

/** Told how a wait for a place ended, and when the place is left. */
export interface SlotWatch {
  waited(hasPlace: boolean): void;
  ended(): void;
}

export class WorkSlots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Runs `work` in a place of its own. @throws the signal's reason if it aborts while waiting */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal, watch?: SlotWatch): Promise<T> {
    let hasPlace = false;
    try {
      await this.#take(signal);
      hasPlace = true;
    } finally {
      watch?.waited(hasPlace);
    }
    try {
      return await work();
    } finally {
      this.#give();
      watch?.ended();
    }
  }

  async #take(signal?: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const turn = Promise.withResolvers<void>();
    this.#waiting.push(turn.resolve);
    try {
      await abortable(turn.promise, signal);
    } catch (error) {
      const at = this.#waiting.indexOf(turn.resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      else this.#give();
      throw error;
    }
  }

  #give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
