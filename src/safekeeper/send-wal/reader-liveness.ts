/**
 * Whether a reader of WAL is still there. It is asked to say something when it has been silent for half the time limit, and is
 * taken for gone at the limit. One that has never said anything (a tool that only copies) is judged by what it takes.
 *
 * Source: PostgreSQL src/backend/replication/walsender.c (WalSndKeepaliveIfNecessary, WalSndCheckTimeOut; wal_sender_timeout).
 */
import { StrataError } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";

export class ReaderLiveness {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  #aliveMs: number;
  /** Since when an answer is owed; null while none is. */
  #askedMs: number | null = null;
  #hasSpoken = false;

  /** @param timeoutMs 0: it may be silent for ever */
  constructor(clock: Clock, timeoutMs: number) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#aliveMs = clock.monotonicMs();
  }

  /** It said something. */
  heard(): void {
    this.#hasSpoken = true;
    this.#alive();
  }

  /** It takes the WAL that it is sent. */
  took(): void {
    if (!this.#hasSpoken) this.#alive();
  }

  asked(): void {
    this.#askedMs ??= this.#clock.monotonicMs();
  }

  /** @throws StrataError unavailable `reader-silent` */
  isToBeAsked(): boolean {
    if (this.#timeoutMs === 0) return false;
    const nowMs = this.#clock.monotonicMs();
    const silentMs = nowMs - this.#aliveMs;
    // It was given half of the time to answer, too: we may have been busy ourselves.
    if (this.#askedMs !== null && silentMs >= this.#timeoutMs && nowMs - this.#askedMs >= this.#timeoutMs / 2) {
      throw new StrataError("unavailable", "reader-silent", `the reader has said nothing for ${this.#timeoutMs} ms`);
    }
    return this.#askedMs === null && silentMs >= this.#timeoutMs / 2;
  }

  #alive(): void {
    this.#aliveMs = this.#clock.monotonicMs();
    this.#askedMs = null;
  }
}
