/**
 * Which remote operations of a timeline may run now. Pure: the shell (remote-timeline-client.ts) runs what
 * `takeReady` gives and reports with `finish`.
 *
 * Order that must hold, so that object storage is consistent at every moment:
 *   - an index is uploaded only after every layer it names (all layer uploads queued before it);
 *   - indexes go out in order, and of several waiting ones only the last is sent;
 *   - objects are deleted only after the index that stopped naming them;
 *   - a layer is not uploaded while a deletion of the same object waits or runs;
 *   - a barrier is reached when everything queued before it has ended.
 * All else runs side by side, up to a limit.
 */
import { invariant } from "../../kit/errors.ts";

export type UploadOperation<Index> =
  | { readonly kind: "layer"; readonly key: string }
  | { readonly kind: "index"; readonly index: Index }
  | { readonly kind: "delete"; readonly keys: readonly string[] }
  | { readonly kind: "barrier" };

export interface QueuedOperation<Index> {
  readonly id: number;
  readonly operation: UploadOperation<Index>;
}

export class UploadQueue<Index> {
  readonly #limit: number;
  /** In the order they were queued; running ones among them. */
  #queued: QueuedOperation<Index>[] = [];
  readonly #running = new Set<number>();
  #nextId = 1;

  constructor(options: { readonly maxRunning: number }) {
    this.#limit = options.maxRunning;
  }

  get length(): number {
    return this.#queued.length;
  }

  get runningCount(): number {
    return this.#running.size;
  }

  push(operation: UploadOperation<Index>): number {
    const id = this.#nextId++;
    this.#queued.push({ id, operation });
    return id;
  }

  /** Operations that may start now; they count as running until `finish`. Barriers reached are among them. */
  takeReady(): QueuedOperation<Index>[] {
    this.#dropStaleIndexes();
    const ready: QueuedOperation<Index>[] = [];
    for (let i = 0; i < this.#queued.length && this.#running.size < this.#limit; i++) {
      const candidate = this.#queued[i];
      if (this.#running.has(candidate.id)) continue;
      if (!this.#queued.slice(0, i).every((earlier) => mayPass(candidate.operation, earlier.operation))) continue;
      this.#running.add(candidate.id);
      ready.push(candidate);
    }
    return ready;
  }

  /** Of indexes that wait one right after the other only the last matters. */
  #dropStaleIndexes(): void {
    this.#queued = this.#queued.filter((entry, i) => {
      const next = this.#queued[i + 1];
      return entry.operation.kind !== "index" || this.#running.has(entry.id) || next === undefined || next.operation.kind !== "index";
    });
  }

  finish(id: number): void {
    invariant(this.#running.delete(id), `operation ${id} is running`);
    this.#queued.splice(this.#queued.findIndex((entry) => entry.id === id), 1);
  }
}

/** Whether `candidate` may run while `earlier`, queued before it, waits or runs. */
function mayPass<Index>(candidate: UploadOperation<Index>, earlier: UploadOperation<Index>): boolean {
  if (candidate.kind === "barrier" || earlier.kind === "barrier") return false;
  switch (candidate.kind) {
    case "layer":
      if (earlier.kind === "layer") return earlier.key !== candidate.key;
      return earlier.kind !== "delete" || !earlier.keys.includes(candidate.key);
    case "index":
      return earlier.kind === "delete";
    case "delete":
      return earlier.kind === "delete" || (earlier.kind === "layer" && !candidate.keys.includes(earlier.key));
  }
}
