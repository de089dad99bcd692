/**
 * Every order in which a small configuration can go: 3 or 4 safekeepers and 2 proposers of the shipping cores, some entries, a bounded
 * number of broken connections, power failures and so on. Depth first; a state is known by a hash of its numbers.
 */
import { Violation } from "../../violation.ts";
import type { Configuration } from "./configurations.ts";
import { FULL_EXPANSION, Moves, describe } from "./moves.ts";
import { Model } from "./model.ts";
import { Symmetry } from "./symmetry.ts";
import { IntStack, VisitedSet } from "./tables.ts";

export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  readonly deepest: number;
  /** All states were visited. */
  readonly closed: boolean;
  /** The states in which nothing more can happen, those that differ only in which node is which counted once: how many, and a hash of them all. */
  readonly ends: { readonly count: number; readonly hash: number };
  /** Of the vectors and of the table. */
  readonly bytesPerState: number;
  readonly omissionProbability: number;
  /** How many states the parts have. */
  readonly parts: Readonly<Record<"nodes" | "computes" | "channels" | "messages" | "ghosts", number>>;
  readonly violation: { readonly message: string; readonly path: readonly string[] } | null;
}

export interface ExploreOptions {
  readonly maxStates: number;
  /** Both on unless said. */
  readonly symmetry?: boolean;
  readonly partialOrder?: boolean;
  readonly onProgress?: (states: number, waiting: number) => void;
}

const PROGRESS_STATES = 10_000_000;

export function explore(configuration: Configuration, options: ExploreOptions): Exploration {
  return new Explorer(configuration, options).run();
}

class Explorer {
  readonly #options: ExploreOptions;
  readonly #model: Model;
  readonly #moves: Moves;
  readonly #symmetry: Symmetry;
  readonly #visited = new VisitedSet();
  readonly #stack = new IntStack();
  /** A vector, the action that led to it, how deep it is. */
  readonly #width: number;
  readonly #here: Int32Array;
  readonly #next: Int32Array;
  /** The path to `#here`, an entry a depth. */
  readonly #path: Int32Array[] = [];
  #transitions = 0;
  #deepest = 0;
  readonly #ends = new Set<number>();

  constructor(configuration: Configuration, options: ExploreOptions) {
    this.#options = options;
    this.#model = new Model(configuration);
    this.#moves = new Moves(this.#model);
    this.#symmetry = new Symmetry(this.#model, options.symmetry ?? true);
    this.#width = this.#model.length + 2;
    this.#here = new Int32Array(this.#width);
    this.#next = new Int32Array(this.#width);
  }

  run(): Exploration {
    const { length } = this.#model;
    this.#next.set(this.#model.initial());
    this.#push();
    let reportAt = PROGRESS_STATES;
    while (this.#stack.length > 0) {
      if (this.#visited.size >= this.#options.maxStates) return this.#result(false, null);
      if (this.#visited.size >= reportAt) {
        this.#options.onProgress?.(this.#visited.size, this.#stack.length / this.#width);
        reportAt += PROGRESS_STATES;
      }
      this.#stack.pop(this.#here, this.#width);
      this.#enter(this.#here[length + 1]);
      try {
        this.#expand();
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        return this.#result(false, { message: error.message, path: this.#pathTo() });
      }
    }
    return this.#result(true, null);
  }

  #enter(depth: number): void {
    this.#deepest = Math.max(this.#deepest, depth);
    (this.#path[depth] ??= new Int32Array(this.#width)).set(this.#here);
  }

  #expand(): void {
    const actions = this.#moves.of(this.#here);
    if (actions.length === 0) this.#end();
    const eager = this.#options.partialOrder ?? true ? this.#moves.eager(this.#here) : FULL_EXPANSION;
    if (eager !== FULL_EXPANSION && this.#take(eager)) return;
    for (const action of actions) if (action !== eager) this.#take(action);
  }

  /** @returns whether it led to a state not seen before */
  #take(action: number): boolean {
    const { length } = this.#model;
    const next = this.#next;
    next.set(this.#here);
    next[length] = action;
    next[length + 1]++;
    if (!this.#moves.take(next, action)) return false;
    this.#transitions++;
    const others = this.#moves.otherDonors(next);
    let fresh = this.#push();
    for (const { at, compute } of others) {
      next.set(this.#here);
      next[length] = action;
      next[length + 1]++;
      this.#moves.take(next, action);
      next[at] = compute;
      fresh = this.#push() || fresh;
    }
    return fresh;
  }

  #push(): boolean {
    const { length } = this.#model;
    this.#symmetry.canonicalize(this.#next);
    if (!this.#visited.add(this.#next, length)) return false;
    this.#stack.push(this.#next, this.#width);
    return true;
  }

  /** Nothing more can happen here. */
  #end(): void {
    this.#ends.add(Number(Bun.hash.xxHash64(this.#model.text(this.#here)) >> 11n));
  }

  #pathTo(): string[] {
    const { length } = this.#model;
    const depth = this.#here[length + 1];
    const steps = this.#path.slice(1, depth + 1).map((vector, at) => `${describe(vector[length])} | ${this.#moves.summary(this.#path[at])}`);
    return [...steps, `${describe(this.#next[length])} | ${this.#moves.summary(this.#here)}`];
  }

  #result(closed: boolean, violation: Exploration["violation"]): Exploration {
    const { nodes, computes, channels, messages, ghosts } = this.#model;
    return {
      states: this.#visited.size, transitions: this.#transitions, deepest: this.#deepest, closed, violation,
      ends: { count: this.#ends.size, hash: [...this.#ends].reduce((sum, hash) => (sum + hash) % 2 ** 53, 0) }, bytesPerState: this.#visited.bytes / this.#visited.size, omissionProbability: this.#visited.omissionProbability,
      parts: { nodes: nodes.size, computes: computes.size, channels: channels.size, messages: messages.size, ghosts: ghosts.size },
    };
  }
}
