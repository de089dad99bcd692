/**
 * Keeps a process below its memory limit where budgets alone cannot: what was let go stays in the process until it is collected, and
 * the collector does not know the limit. From a part of the limit on it is asked to collect (which holds the event loop for some
 * milliseconds, so not more often than it helps); from a larger part on it is asked each time, since a collection may take long, and much
 * come meanwhile, when others have the processors; in-memory layers have to make do with less then, and ingest waits for the disk.
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
/** Between two collections, at least this many times what one took; and when squeezed. */
const COLLECT_PAUSE_FACTOR = 20;
const SQUEEZED_PAUSE_FACTOR = 1;
const COLLECT_PAUSE_MIN_MS = 200;

export class MemoryWatch {
  readonly #limitBytes: number;
  readonly #memory: ProcessMemory;
  readonly #layers: LayerMemory;
  readonly #clock: Clock;
  #collectedMs = Number.NEGATIVE_INFINITY;
  /** What the last collection took. */
  #tookMs = 0;

  constructor(parts: { readonly limitBytes: number; readonly memory: ProcessMemory; readonly layers: LayerMemory; readonly clock: Clock }) {
    this.#limitBytes = parts.limitBytes;
    this.#memory = parts.memory;
    this.#layers = parts.layers;
    this.#clock = parts.clock;
  }

  /** To be called several times a second. */
  look(): void {
    this.#layers.trim();
    let resident = this.#memory.residentBytes();
    const startMs = this.#clock.monotonicMs();
    if (resident > this.#limitBytes * COLLECT_SHARE && startMs - this.#collectedMs >= this.#pauseMs(resident)) {
      this.#memory.collect();
      this.#collectedMs = this.#clock.monotonicMs();
      this.#tookMs = this.#collectedMs - startMs;
      resident = this.#memory.residentBytes();
    }
    this.#layers.squeeze(resident > this.#limitBytes * SQUEEZE_SHARE);
  }

  #pauseMs(resident: number): number {
    if (resident > this.#limitBytes * SQUEEZE_SHARE) return this.#tookMs * SQUEEZED_PAUSE_FACTOR;
    return Math.max(COLLECT_PAUSE_MIN_MS, this.#tookMs * COLLECT_PAUSE_FACTOR);
  }
}
