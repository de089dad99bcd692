/**
 * Whether the process that holds a platform still lives. After its machine's crash nothing it started may go on: its timers do not
 * fire, its promises are never settled, and what little code of it still runs cannot touch the world.
 */
import { InvariantError } from "../../kit/errors.ts";

export class Lifeline {
  #alive = true;

  get alive(): boolean {
    return this.#alive;
  }

  cut(): void {
    this.#alive = false;
  }

  /** For asynchronous calls: waits for ever when the process is dead. */
  async guard(): Promise<void> {
    if (!this.#alive) await forever();
  }

  /** For synchronous calls. */
  assertAlive(): void {
    if (!this.#alive) throw new InvariantError("the process of this platform has crashed");
  }
}

export function forever<T>(): Promise<T> {
  return new Promise<T>(() => {});
}
