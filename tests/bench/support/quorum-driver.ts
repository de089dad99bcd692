/** Speaks for one proposer to several safekeepers at once, and knows what a majority has made durable. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { encodeProposerMessage } from "../../../src/safekeeper/api/proposer-protocol.ts";
import { ProposerDriver } from "../../safekeeper/support/driver.ts";

export interface QuorumOptions {
  readonly timelineId: string;
  readonly startLsn: Lsn;
  readonly segmentSizeBytes: number;
}

interface Waiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

const TENANT = "11".repeat(16);

export class QuorumDriver {
  readonly #links: readonly ProposerDriver[];
  readonly #flushed: number[];
  readonly #startLsn: Lsn;
  endLsn: Lsn;
  /** Durable on a majority. */
  commitLsn: Lsn;
  /** By LSN, ascending. */
  #waiters: Waiter[] = [];
  #everywhere: Waiter | null = null;
  #closed = false;
  /** Of a safekeeper that went away: nothing is waited for any more, it might never come. */
  #failure: Error | null = null;

  private constructor(links: readonly ProposerDriver[], startLsn: Lsn) {
    this.#links = links;
    this.#startLsn = startLsn;
    this.endLsn = startLsn;
    this.commitLsn = startLsn;
    this.#flushed = links.map(() => startLsn);
    links.forEach((link, index) => void this.#listen(link, index));
  }

  static async connect(ports: readonly number[], options: QuorumOptions): Promise<QuorumDriver> {
    const { timelineId, startLsn, segmentSizeBytes } = options;
    const links = await Promise.all(ports.map((port) => ProposerDriver.connect({ port, tenantId: TENANT, timelineId })));
    for (const link of links) {
      await link.greet({ walSegmentSizeBytes: segmentSizeBytes });
      await link.requestVote(1);
      link.elected([{ term: 1, lsn: startLsn }], startLsn);
    }
    return new QuorumDriver(links, startLsn);
  }

  async #listen(link: ProposerDriver, index: number): Promise<void> {
    try {
      for (;;) {
        const reply = await link.receive();
        if (reply.kind === "append") this.#acknowledged(index, reply.flushLsn);
      }
    } catch (error) {
      // Otherwise the connection was closed here.
      if (!this.#closed) this.#fail(new Error(`safekeeper ${index + 1} of ${this.#links.length} is gone`, { cause: error }));
    }
  }

  #fail(failure: Error): void {
    this.#failure ??= failure;
    for (const waiter of [...this.#waiters, ...(this.#everywhere === null ? [] : [this.#everywhere])]) waiter.reject(failure);
    this.#waiters = [];
  }

  #acknowledged(index: number, flushLsn: Lsn): void {
    this.#flushed[index] = Math.max(this.#flushed[index], flushLsn);
    const sorted = this.#flushed.toSorted((a, b) => b - a);
    this.commitLsn = sorted[Math.floor(sorted.length / 2)];
    while (this.#waiters.length > 0 && this.#waiters[0].lsn <= this.commitLsn) this.#waiters.shift()?.resolve();
    if (this.#everywhere !== null && sorted[sorted.length - 1] >= this.#everywhere.lsn) this.#everywhere.resolve();
  }

  /** WAL that continues the log, to all. */
  append(walData: Uint8Array): void {
    const beginLsn = this.endLsn;
    this.endLsn += walData.length;
    const message = encodeProposerMessage({ kind: "append", generation: 0, term: 1, beginLsn, endLsn: this.endLsn, commitLsn: this.commitLsn, truncateLsn: this.#startLsn, walData }, 3);
    for (const link of this.#links) link.sendEncoded(message);
  }

  /** Call with ascending positions. @throws Error when a safekeeper's connection has ended */
  committed(lsn: Lsn): Promise<void> {
    if (this.commitLsn >= lsn) return Promise.resolve();
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => this.#waiters.push({ lsn, resolve, reject }));
  }

  everywhere(lsn: Lsn): Promise<void> {
    if (Math.min(...this.#flushed) >= lsn) return Promise.resolve();
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#everywhere = { lsn, resolve, reject };
    });
  }

  close(): void {
    this.#closed = true;
    for (const link of this.#links) link.close();
  }
}
