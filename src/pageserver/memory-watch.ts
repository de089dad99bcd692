/**
 * Keeps a process below its memory limit where budgets alone cannot: what was let go stays in the process until it is collected, and
 * the collector does not know the limit. From a part of the limit on it is asked to collect (which holds the event loop for some
 * milliseconds, so not more often than it helps); from a larger part on in-memory layers have to make do with less, and ingest
 * waits for the disk.
 */
import type { Clock } from "../platform/clock.ts";
import type { LayerMemory } from "./layers/layer-memory.ts";

/** The process as the system sees it. */
export interface ProcessMemory {
  residentBytes(): number;
  /** Collects garbage and gives back what is free, here; what it takes is time. */
  collect(): void;
}

const COLLECT_SHARE = 0.65;
const SQUEEZE_SHARE = 0.8;
/** Between two collections, at least this many times what one took. */
const COLLECT_PAUSE_FACTOR = 20;
const COLLECT_PAUSE_MIN_MS = 200;

export class MemoryWatch {
  readonly #limitBytes: number;
  readonly #memory: ProcessMemory;
  readonly #layers: LayerMemory;
  readonly #clock: Clock;
  #nextCollectMs = Number.NEGATIVE_INFINITY;

  constructor(parts: { readonly limitBytes: number; readonly memory: ProcessMemory; readonly layers: LayerMemory; readonly clock: Clock }) {
    this.#limitBytes = parts.limitBytes;
    this.#memory = parts.memory;
    this.#layers = parts.layers;
    this.#clock = parts.clock;
  }

  /** To be called several times a second. */
  look(): void {
    let resident = this.#memory.residentBytes();
    const startMs = this.#clock.monotonicMs();
    if (resident > this.#limitBytes * COLLECT_SHARE && startMs >= this.#nextCollectMs) {
      this.#memory.collect();
      const endMs = this.#clock.monotonicMs();
      this.#nextCollectMs = endMs + Math.max(COLLECT_PAUSE_MIN_MS, (endMs - startMs) * COLLECT_PAUSE_FACTOR);
      resident = this.#memory.residentBytes();
    }
    this.#layers.squeeze(resident > this.#limitBytes * SQUEEZE_SHARE);
  }
}
