/**
 * Reads of files without waiting, for what the system most likely has in memory: a tenth of the cost of a read through the
 * runtime's pool. A read that turns out slow has gone to the disk and held the event loop: then there are none for a while.
 */
import type { Clock } from "../../platform/clock.ts";
import type { FileHandle } from "../../platform/files.ts";

/** Copying a block from memory takes microseconds. */
const SLOW_MS = 0.5;
const PAUSE_MS = 20;

export class QuickReads {
  readonly #clock: Clock;
  #pausedUntilMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** As FileHandle.readSync; null while there are no such reads. */
  read(file: FileHandle, into: Uint8Array, position: number): number | null {
    const startMs = this.#clock.monotonicMs();
    if (startMs < this.#pausedUntilMs) return null;
    const got = file.readSync(into, position);
    const endMs = this.#clock.monotonicMs();
    if (endMs - startMs > SLOW_MS) this.#pausedUntilMs = endMs + PAUSE_MS;
    return got;
  }
}
