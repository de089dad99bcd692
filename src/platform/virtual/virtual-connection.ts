/** One end of a virtual connection. */
import { InvariantError, StrataError } from "../../kit/errors.ts";
import type { Connection } from "../network.ts";
import { forever, type Lifeline } from "./lifeline.ts";
import type { PipeReceiver, VirtualPipe } from "./virtual-pipe.ts";

const HIGH_WATER_BYTES = 1024 * 1024;

export class VirtualConnection implements Connection, PipeReceiver {
  readonly remote: string;
  readonly closed: Promise<void>;
  readonly #lifeline: Lifeline;
  readonly #resolveClosed: () => void;
  readonly #incoming: Uint8Array[] = [];
  #outgoing: VirtualPipe | null = null;
  #peerPipe: VirtualPipe | null = null;
  #pendingRead: { resolve(bytes: Uint8Array | null): void; reject(error: unknown): void } | null = null;
  #peerEnded = false;
  #ended = false;
  #isClosed = false;
  #failure: StrataError | null = null;
  #drainWaiters: (() => void)[] = [];

  constructor(remote: string, lifeline: Lifeline) {
    this.remote = remote;
    this.#lifeline = lifeline;
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    this.#resolveClosed = closed.resolve;
  }

  /** @param outgoing carries what we write; `incoming` is told what we have read */
  attach(outgoing: VirtualPipe, incoming: VirtualPipe): void {
    this.#outgoing = outgoing;
    this.#peerPipe = incoming;
  }

  /** The process of this end is there to take what arrives. */
  get alive(): boolean {
    return this.#lifeline.alive;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get bufferedBytes(): number {
    return this.#outgoing?.queuedBytes ?? 0;
  }

  read(): Promise<Uint8Array | null> {
    if (!this.#lifeline.alive) return forever();
    if (this.#pendingRead !== null) return Promise.reject(new InvariantError("a second read on one connection at a time"));
    const next = this.#incoming.shift();
    if (next !== undefined) {
      this.#peerPipe?.acknowledge(next.length);
      return Promise.resolve(next);
    }
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#peerEnded) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#pendingRead = { resolve, reject };
    });
  }

  write(bytes: Uint8Array): void {
    if (this.#isClosed || this.#ended || bytes.length === 0 || !this.#lifeline.alive) return;
    this.#outgoing?.send(bytes);
  }

  drained(): Promise<void> {
    if (!this.#lifeline.alive) return forever();
    if (this.#isClosed || this.bufferedBytes < HIGH_WATER_BYTES) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  end(): void {
    if (this.#isClosed || this.#ended || !this.#lifeline.alive) return;
    this.#ended = true;
    this.#outgoing?.end();
    this.#closeIfDone();
  }

  destroy(): void {
    if (this.#isClosed || !this.#lifeline.alive) return;
    this.#outgoing?.reset();
    this.fail("it was destroyed here");
  }

  /** The connection broke, without a word to the other end. @param keepFlying what is on the way still arrives */
  fail(why: string, keepFlying = false): void {
    if (this.#isClosed) return;
    this.#failure = new StrataError("unavailable", "connection-lost", `connection with ${this.remote} was lost: ${why}`);
    if (!keepFlying) this.#outgoing?.drop();
    this.#pendingRead?.reject(this.#failure);
    this.#pendingRead = null;
    this.#close();
  }

  /** To the other end, as a kernel does when the process of this end is gone. */
  resetPeer(): void {
    this.#outgoing?.reset();
  }

  /** As a kernel does for a process that ended with nothing left to read: what was written still goes out. */
  endForDead(): void {
    this.#outgoing?.end();
  }

  /** This end lost power. */
  vanish(): void {
    this.#outgoing?.drop();
  }

  onRoom(): void {
    if (this.bufferedBytes >= HIGH_WATER_BYTES) return;
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const waiter of waiters) waiter();
  }

  onBytes(bytes: Uint8Array): void {
    if (!this.#lifeline.alive) return this.resetPeer();
    if (this.#isClosed) return;
    if (this.#pendingRead === null) {
      this.#incoming.push(bytes);
      return;
    }
    const pending = this.#pendingRead;
    this.#pendingRead = null;
    this.#peerPipe?.acknowledge(bytes.length);
    pending.resolve(bytes);
  }

  onEnd(): void {
    if (!this.#lifeline.alive) return this.resetPeer();
    this.#peerEnded = true;
    this.#pendingRead?.resolve(null);
    this.#pendingRead = null;
    this.#closeIfDone();
  }

  onReset(): void {
    if (this.#lifeline.alive) this.fail("reset by the peer");
  }

  #closeIfDone(): void {
    if (this.#ended && this.#peerEnded) this.#close();
  }

  #close(): void {
    this.#isClosed = true;
    this.#resolveClosed();
    for (const waiter of this.#drainWaiters.splice(0)) waiter();
  }
}
