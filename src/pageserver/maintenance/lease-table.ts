/**
 * LSN leases: while one is valid, GC keeps the pages its LSN sees. Renewing extends; the later end wins. A lease ends when both the wall
 * clock, which its holder goes by, and the time that really passed say so: a clock that jumps takes nothing from anybody.
 */
import type { Lsn } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";

interface Lease {
  readonly untilWallMs: number;
  readonly untilMs: number;
}

export class LeaseTable {
  readonly #clock: Clock;
  readonly #leases = new Map<Lsn, Lease>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Returns when the lease ends, in wall-clock milliseconds. */
  grant(lsn: Lsn, lengthMs: number): number {
    const known = this.#leases.get(lsn);
    const untilWallMs = Math.max(known?.untilWallMs ?? 0, this.#clock.wallMs() + lengthMs);
    this.#leases.set(lsn, { untilWallMs, untilMs: Math.max(known?.untilMs ?? 0, this.#clock.monotonicMs() + lengthMs) });
    return untilWallMs;
  }

  /** LSNs with a valid lease; ended ones are forgotten. */
  valid(): Lsn[] {
    for (const [lsn, lease] of this.#leases) if (!this.#isValid(lease)) this.#leases.delete(lsn);
    return [...this.#leases.keys()];
  }

  has(lsn: Lsn): boolean {
    const lease = this.#leases.get(lsn);
    return lease !== undefined && this.#isValid(lease);
  }

  #isValid(lease: Lease): boolean {
    return lease.untilWallMs > this.#clock.wallMs() || lease.untilMs > this.#clock.monotonicMs();
  }
}
