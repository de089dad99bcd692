/** Counts what is under way, so that closing can wait for it: whoever is inside when `close` is called gets to leave, nobody new enters. */
import { Cancelled } from "./errors.ts";

export class Gate {
  readonly #name: string;
  #inside = 0;
  #closed: { readonly promise: Promise<void>; readonly resolve: () => void } | null = null;

  constructor(name: string) {
    this.#name = name;
  }

  get isClosed(): boolean {
    return this.#closed !== null;
  }

  get inside(): number {
    return this.#inside;
  }

  /** Returns what to call when leaving (more than once does no harm). @throws Cancelled once closed */
  enter(): () => void {
    if (this.#closed !== null) throw new Cancelled(`${this.#name} is closed`);
    this.#inside++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#inside--;
      if (this.#inside === 0) this.#closed?.resolve();
    };
  }

  async run<T>(action: () => Promise<T>): Promise<T> {
    const leave = this.enter();
    try {
      return await action();
    } finally {
      leave();
    }
  }

  /** Resolves when the last one has left. */
  close(): Promise<void> {
    this.#closed ??= Promise.withResolvers<void>();
    if (this.#inside === 0) this.#closed.resolve();
    return this.#closed.promise;
  }
}
