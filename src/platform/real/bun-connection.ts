/**
 * One socket as a `Connection`: a queue in, a queue out. Writes made in one turn of the event loop leave in one system call;
 * what the kernel does not take waits for `drain`. When the reader lags behind by more than the mark, the socket is paused,
 * so that the peer feels it.
 */
import { InvariantError, StrataError } from "../../kit/errors.ts";
import type { Connection } from "../network.ts";

const HIGH_WATER_BYTES = 1024 * 1024;
const LOW_WATER_BYTES = HIGH_WATER_BYTES / 2;
/** Small writes are joined up to this size; larger ones go out as they are. */
const JOIN_MAX_BYTES = 64 * 1024;

/** What this needs of Bun's socket. */
export interface RawSocket {
  write(data: Uint8Array, byteOffset?: number, byteLength?: number): number;
  shutdown(): void;
  end(): void;
  terminate(): void;
  pause(): void;
  resume(): void;
}

interface PendingRead {
  resolve(bytes: Uint8Array | null): void;
  reject(error: unknown): void;
}

export class BunConnection implements Connection {
  readonly remote: string;
  readonly closed: Promise<void>;
  readonly #socket: RawSocket;
  readonly #isTls: boolean;
  #resolveClosed: () => void = () => {};

  readonly #incoming: Uint8Array[] = [];
  #incomingBytes = 0;
  #paused = false;
  #peerEnded = false;
  #failure: StrataError | null = null;
  #pendingRead: PendingRead | null = null;
  #taker: ((bytes: Uint8Array) => Uint8Array | null) | null = null;

  #outgoing: Uint8Array[] = [];
  #outgoingBytes = 0;
  #flushScheduled = false;
  #waitingForDrain = false;
  #ending = false;
  #finSent = false;
  #isClosed = false;
  readonly #drainWaiters: (() => void)[] = [];
  readonly #flushWaiters: (() => void)[] = [];

  constructor(socket: RawSocket, options: { readonly remote: string; readonly isTls: boolean }) {
    this.#socket = socket;
    this.#isTls = options.isTls;
    this.remote = options.remote;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  get bufferedBytes(): number {
    return this.#outgoingBytes;
  }

  /** Received and not yet read. */
  get unreadBytes(): number {
    return this.#incomingBytes;
  }

  get rawSocket(): RawSocket {
    return this.#socket;
  }

  read(): Promise<Uint8Array | null> {
    if (this.#pendingRead !== null) return Promise.reject(new InvariantError("a second read on one connection at a time"));
    const next = this.#incoming.shift();
    if (next !== undefined) {
      this.#incomingBytes -= next.length;
      if (this.#paused && this.#incomingBytes < LOW_WATER_BYTES) this.#setPaused(false);
      return Promise.resolve(next);
    }
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#peerEnded) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#pendingRead = { resolve, reject };
    });
  }

  intercept(taker: ((bytes: Uint8Array) => Uint8Array | null) | null): void {
    this.#taker = taker;
  }

  write(bytes: Uint8Array): void {
    if (this.#isClosed || this.#ending || bytes.length === 0) return;
    this.#outgoing.push(bytes);
    this.#outgoingBytes += bytes.length;
    this.#scheduleFlush();
  }

  writeNow(bytes: Uint8Array): number {
    // As with `write`, nobody is there any more to miss it.
    if (this.#isClosed || this.#ending) return bytes.length;
    if (this.#outgoing.length > 0 || this.#waitingForDrain) return 0;
    return Math.max(0, this.#socket.write(bytes, 0, bytes.length));
  }

  drained(): Promise<void> {
    if (this.#isClosed || this.#outgoingBytes < HIGH_WATER_BYTES) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** Sends at once what is queued; resolves when the kernel has taken it all, without a turn of the event loop if it did. */
  async flushed(): Promise<void> {
    this.#flush();
    while (!this.#isClosed && this.#outgoingBytes > 0) await new Promise<void>((resolve) => this.#flushWaiters.push(resolve));
  }

  end(): void {
    if (this.#isClosed || this.#ending) return;
    this.#ending = true;
    this.#scheduleFlush();
  }

  destroy(): void {
    if (this.#isClosed) return;
    this.#socket.terminate();
    this.onClose(undefined);
  }

  onData(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#pendingRead !== null) {
      const left = this.#taker === null ? bytes : this.#taker(bytes);
      // The taker may have written, and the connection may have ended by that.
      const pending = this.#pendingRead;
      if (left === null || pending === null) return;
      this.#pendingRead = null;
      pending.resolve(left);
      return;
    }
    this.#incoming.push(bytes);
    this.#incomingBytes += bytes.length;
    if (!this.#paused && this.#incomingBytes > HIGH_WATER_BYTES) this.#setPaused(true);
  }

  onPeerEnd(): void {
    this.#peerEnded = true;
    this.#pendingRead?.resolve(null);
    this.#pendingRead = null;
  }

  onDrain(): void {
    this.#waitingForDrain = false;
    this.#flush();
  }

  onClose(cause: unknown): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // After our own end, the peer's end closes the socket without being reported on its own.
    if (cause === undefined && this.#finSent) this.onPeerEnd();
    if (!this.#peerEnded || cause !== undefined) this.#failure = new StrataError("unavailable", "connection-lost", `connection with ${this.remote} was lost`, { cause });
    if (this.#failure !== null) this.#pendingRead?.reject(this.#failure);
    this.#pendingRead = null;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    this.#releaseWaiters();
    this.#resolveClosed();
  }

  #setPaused(paused: boolean): void {
    this.#paused = paused;
    if (this.#isClosed) return;
    if (paused) this.#socket.pause();
    else this.#socket.resume();
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#waitingForDrain) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (!this.#isClosed && !this.#waitingForDrain && this.#outgoing.length > 0) {
      const chunk = this.#takeChunk();
      const taken = Math.max(0, this.#socket.write(chunk, 0, chunk.length));
      this.#outgoingBytes -= taken;
      if (taken < chunk.length && !this.#isClosed) {
        this.#outgoing.unshift(chunk.subarray(taken));
        this.#waitingForDrain = true;
      }
    }
    this.#releaseWaiters();
    if (this.#ending && this.#outgoing.length === 0 && !this.#finSent && !this.#isClosed) this.#sendFin();
  }

  /** The first queued chunk, or the first few small ones as one. */
  #takeChunk(): Uint8Array {
    let count = 0;
    let length = 0;
    while (count < this.#outgoing.length && length + this.#outgoing[count].length <= JOIN_MAX_BYTES) length += this.#outgoing[count++].length;
    if (count <= 1) return this.#outgoing.shift() as Uint8Array;
    const parts = this.#outgoing.splice(0, count);
    return Buffer.concat(parts, length);
  }

  #sendFin(): void {
    this.#finSent = true;
    // A TLS stream ends as a whole; a plain one may still be read.
    if (this.#isTls) this.#socket.end();
    else this.#socket.shutdown();
  }

  #releaseWaiters(): void {
    if (this.#outgoingBytes < HIGH_WATER_BYTES && this.#drainWaiters.length > 0) {
      for (const waiter of this.#drainWaiters.splice(0)) waiter();
    }
    if (this.#outgoingBytes === 0 && this.#flushWaiters.length > 0) {
      for (const waiter of this.#flushWaiters.splice(0)) waiter();
    }
  }
}
