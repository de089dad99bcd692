/** Runs one asynchronous action at a time, in the order asked for, and says who holds it. */
export class Mutex {
  #tail: Promise<void> = Promise.resolve();
  #waiting = 0;
  #holder: string | null = null;

  /** Name of the action that runs now, null when none does. */
  get holder(): string | null {
    return this.#holder;
  }

  /** Actions that wait, the running one not counted. */
  get waiting(): number {
    return this.#waiting;
  }

  /** @param name of the action, for diagnostics */
  async run<T>(name: string, action: () => Promise<T> | T): Promise<T> {
    const before = this.#tail;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tail = promise;
    this.#waiting++;
    await before;
    this.#waiting--;
    this.#holder = name;
    try {
      return await action();
    } finally {
      this.#holder = null;
      resolve();
    }
  }
}
