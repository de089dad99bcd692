/**
 * Keys by which a receiver knows an event that is sent again: `2022-12-28 11:07:19.317310324 UTC-1-4019`, the time, the node, four digits of chance.
 * No two of a process are equal, however fast they are made and wherever its clock jumps: time in them only goes forward.
 *
 * Source: the peer libs/consumption_metrics/src/lib.rs (IdempotencyKey).
 */
import type { Clock } from "../../platform/clock.ts";
import type { Random } from "../../platform/random.ts";
import { displayTimes } from "./event-time.ts";

const NANOS_PER_MS = 1_000_000;
const NONCES = 10_000;

export class IdempotencyKeys {
  readonly #nodeId: number;
  readonly #clock: Clock;
  readonly #random: Random;
  #lastMs = -1;
  #nanos = 0;
  #displayed = displayTimes(0);

  constructor(options: { readonly nodeId: number; readonly clock: Clock; readonly random: Random }) {
    this.#nodeId = options.nodeId;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  next(): string {
    const nowMs = Math.floor(this.#clock.wallMs());
    // Processes that were started in the same millisecond go apart.
    if (nowMs > this.#lastMs) this.#begin(nowMs, this.#random.below(NANOS_PER_MS / 2));
    else if (++this.#nanos >= NANOS_PER_MS) this.#begin(this.#lastMs + 1, 0);
    const nonce = String(this.#random.below(NONCES)).padStart(4, "0");
    return `${this.#displayed(this.#nanos)}-${this.#nodeId}-${nonce}`;
  }

  #begin(ms: number, nanos: number): void {
    this.#lastMs = ms;
    this.#nanos = nanos;
    this.#displayed = displayTimes(ms);
  }
}
