/**
 * Frozen in-memory layers to L0 delta layers, oldest first, one at a time: write, sync, enter in the layer map, queue
 * the upload, move disk_consistent_lsn. A failure leaves everything as it was and is tried again.
 */
import { Cancelled } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { InMemoryLayer } from "../layers/in-memory-layer.ts";
import { abortable } from "../layers/layer.ts";

const FIRST_RETRY_MS = 200;
const MAX_RETRY_MS = 10_000;

/** What the loop needs of its timeline. */
export interface FlushHost {
  readonly clock: Clock;
  readonly log: Logger;
  /** The oldest frozen layer. */
  nextFrozen(): InMemoryLayer | null;
  /** Writes it out and puts the file in its place. Everything below `endLsn` is on disk afterwards. */
  flushLayer(layer: InMemoryLayer, signal: AbortSignal): Promise<void>;
}

export class FlushLoop {
  readonly #host: FlushHost;
  readonly #stop = new AbortController();
  #work: Promise<void> | null = null;
  /** The last failure, while it lasts. */
  #failure: unknown = null;
  #flushedTo: Lsn = 0;
  readonly #waiting: { endLsn: Lsn; done: PromiseWithResolvers<void> }[] = [];

  constructor(host: FlushHost) {
    this.#host = host;
  }

  /** Why flushing stands still, if it does. */
  get failure(): unknown {
    return this.#failure;
  }

  /** To be called after each freeze. */
  wake(): void {
    if (this.#stop.signal.aborted) return;
    this.#work ??= this.#run().finally(() => {
      this.#work = null;
    });
  }

  async #run(): Promise<void> {
    let delayMs = FIRST_RETRY_MS;
    for (let layer = this.#host.nextFrozen(); layer !== null && !this.#stop.signal.aborted; layer = this.#host.nextFrozen()) {
      try {
        await this.#host.flushLayer(layer, this.#stop.signal);
        this.#failure = null;
        delayMs = FIRST_RETRY_MS;
        this.#flushed(layer.endLsn ?? 0);
      } catch (error) {
        if (this.#stop.signal.aborted || error instanceof Cancelled) return;
        this.#failure = error;
        this.#host.log.warn("flush of a layer failed, will try again", { error });
        for (const { done } of this.#waiting.splice(0)) done.reject(error);
        await this.#host.clock.sleep(delayMs, this.#stop.signal).catch(() => {});
        delayMs = Math.min(delayMs * 2, MAX_RETRY_MS);
      }
    }
  }

  #flushed(endLsn: Lsn): void {
    this.#flushedTo = Math.max(this.#flushedTo, endLsn);
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      if (this.#waiting[i].endLsn <= this.#flushedTo) this.#waiting.splice(i, 1)[0].done.resolve();
    }
  }

  /** Resolves when the layer frozen at `endLsn` has been flushed. @throws the failure if that is tried and fails */
  async waitFlushed(endLsn: Lsn, signal?: AbortSignal): Promise<void> {
    if (endLsn <= this.#flushedTo || this.#host.nextFrozen() === null) return;
    this.#stop.signal.throwIfAborted();
    const done = Promise.withResolvers<void>();
    done.promise.catch(() => {});
    this.#waiting.push({ endLsn, done });
    this.wake();
    await abortable(done.promise, signal);
  }

  async shutdown(): Promise<void> {
    this.#stop.abort(new Cancelled("flush loop is shutting down"));
    for (const { done } of this.#waiting.splice(0)) done.reject(new Cancelled("flush loop is shutting down"));
    await this.#work;
  }
}
