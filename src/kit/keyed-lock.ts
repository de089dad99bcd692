/**
 * Exclusive and shared operation locks by key. They guard operations, not data: a holder says what it is doing, so that
 * whoever has to wait, or is refused, can be told. Waiters are served in the order they came; a waiting exclusive
 * operation holds back later shared ones.
 */
import { Cancelled, StrataError } from "./errors.ts";

export interface LockRequest {
  readonly key: string;
  /** What the holder does: shown to those who wait. */
  readonly operation: string;
  /** May hold the key together with other shared operations. */
  readonly shared?: boolean;
  /** Gives up waiting. */
  readonly signal?: AbortSignal;
}

export interface HeldLock {
  readonly key: string;
  readonly operation: string;
  /** More than once does no harm. */
  release(): void;
}

interface Waiter {
  readonly request: LockRequest;
  readonly grant: () => void;
}

interface KeyState {
  /** Operations that hold the key; more than one only when all are shared. */
  readonly holders: Set<LockRequest>;
  readonly waiters: Waiter[];
}

const DEFAULT_MAX_WAITERS = 10_000;

export class KeyedLock {
  readonly #keys = new Map<string, KeyState>();
  readonly #maxWaiters: number;

  /** @param options.maxWaiters on one key; more are refused */
  constructor(options: { readonly maxWaiters?: number } = {}) {
    this.#maxWaiters = options.maxWaiters ?? DEFAULT_MAX_WAITERS;
  }

  /** Names of the operations that hold `key`. */
  holders(key: string): string[] {
    return [...(this.#keys.get(key)?.holders ?? [])].map((holder) => holder.operation);
  }

  /** Takes the lock if that needs no waiting; null otherwise. */
  tryAcquire(request: LockRequest): HeldLock | null {
    const state = this.#state(request.key);
    if (state.waiters.length > 0 || !isFree(state, request)) return null;
    return this.#hold(state, request);
  }

  /**
   * Waits for the lock.
   * @throws Cancelled when the signal aborts while waiting
   * @throws StrataError retry `too-many-waiters`
   */
  async acquire(request: LockRequest): Promise<HeldLock> {
    const held = this.tryAcquire(request);
    if (held !== null) return held;
    const state = this.#state(request.key);
    if (state.waiters.length >= this.#maxWaiters) {
      throw new StrataError("retry", "too-many-waiters", `${state.waiters.length} operations wait for ${request.key}, held by ${this.holders(request.key).join(", ")}`);
    }
    return this.#wait(state, request);
  }

  /** Runs `action` under the lock. Errors as `acquire`, and those of the action. */
  async run<T>(request: LockRequest, action: () => Promise<T> | T): Promise<T> {
    const held = await this.acquire(request);
    try {
      return await action();
    } finally {
      held.release();
    }
  }

  #wait(state: KeyState, request: LockRequest): Promise<HeldLock> {
    return new Promise((resolve, reject) => {
      const { signal } = request;
      const waiter: Waiter = {
        request,
        grant: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve(this.#hold(state, request));
        },
      };
      const onAbort = (): void => {
        const at = state.waiters.indexOf(waiter);
        if (at >= 0) state.waiters.splice(at, 1);
        reject(new Cancelled(`${request.operation} no longer waits for ${request.key}`));
        this.#serve(request.key, state);
      };
      state.waiters.push(waiter);
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  #state(key: string): KeyState {
    let state = this.#keys.get(key);
    if (state === undefined) {
      state = { holders: new Set(), waiters: [] };
      this.#keys.set(key, state);
    }
    return state;
  }

  #hold(state: KeyState, request: LockRequest): HeldLock {
    // An object of its own: one request object may be held twice when it is shared.
    const holder = { ...request };
    state.holders.add(holder);
    return {
      key: request.key,
      operation: request.operation,
      release: () => {
        if (state.holders.delete(holder)) this.#serve(request.key, state);
      },
    };
  }

  #serve(key: string, state: KeyState): void {
    for (let next = state.waiters[0]; next !== undefined && isFree(state, next.request); next = state.waiters[0]) {
      state.waiters.shift();
      next.grant();
    }
    if (state.holders.size === 0 && state.waiters.length === 0) this.#keys.delete(key);
  }
}

function isFree(state: KeyState, request: LockRequest): boolean {
  if (state.holders.size === 0) return true;
  if (request.shared !== true) return false;
  for (const holder of state.holders) if (holder.shared !== true) return false;
  return true;
}
