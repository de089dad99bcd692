/** LSN leases: while one is valid, GC keeps the pages its LSN sees. Renewing extends; the later end wins. */
import type { Lsn } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";

export class LeaseTable {
  readonly #clock: Clock;
  /** LSN → wall-clock end. */
  readonly #leases = new Map<Lsn, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Returns when the lease ends, in wall-clock milliseconds. */
  grant(lsn: Lsn, lengthMs: number): number {
    const untilMs = Math.max(this.#leases.get(lsn) ?? 0, this.#clock.wallMs() + lengthMs);
    this.#leases.set(lsn, untilMs);
    return untilMs;
  }

  /** LSNs with a valid lease; ended ones are forgotten. */
  valid(): Lsn[] {
    const nowMs = this.#clock.wallMs();
    for (const [lsn, untilMs] of this.#leases) if (untilMs <= nowMs) this.#leases.delete(lsn);
    return [...this.#leases.keys()];
  }

  has(lsn: Lsn): boolean {
    return (this.#leases.get(lsn) ?? 0) > this.#clock.wallMs();
  }
}
