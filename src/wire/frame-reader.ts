/** Pulls protocol messages from a connection. Pulling is the flow control: nobody reads, nothing is received. */
import { Cancelled, StrataError } from "../kit/errors.ts";
import type { Connection } from "../platform/network.ts";
import type { PeekedFrame, PgFrame, PgFramer } from "./framer.ts";

const NOTHING = new Uint8Array(0);

export class PgFrameReader {
  readonly #connection: Connection;
  readonly #framer: PgFramer;
  /** The read that is waited for now. */
  #waiting: { readonly reading: Promise<Uint8Array | null>; readonly reject: (error: Error) => void } | null = null;
  /** One that was waited for when a query was cancelled: what it brings is the next read's. */
  #abandoned: Promise<Uint8Array | null> | null = null;
  #interrupted: Error | null = null;
  #arrivals = 0;
  #receivedBytes = 0;
  #isCancel = false;
  #onArrival: (() => void) | null = null;
  /** What went wrong in it, for who waits. */
  #arrivalError: { readonly error: unknown } | null = null;

  constructor(connection: Connection, framer: PgFramer) {
    this.#connection = connection;
    this.#framer = framer;
  }

  get pending(): number {
    return this.#framer.pending;
  }

  get bufferedBytes(): number {
    return this.#framer.bufferedBytes;
  }

  /** How often something has come: for whoever watches for silence. */
  get arrivals(): number {
    return this.#arrivals;
  }

  /** Since the start. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Somebody wants to read, and nothing is here. */
  get isWaiting(): boolean {
    return this.#waiting !== null;
  }

  setMode(options: { tagged: boolean; maxBytes: number }): void {
    this.#framer.setMode(options);
  }

  /** Makes the waiting read and all later ones fail with Cancelled. */
  interrupt(reason: string): void {
    this.fail(new Cancelled(reason));
  }

  /** The same with an error of the caller's. */
  fail(error: Error): void {
    if (this.#interrupted !== null && !this.#isCancel) return;
    this.#interrupted = error;
    this.#isCancel = false;
    this.#waiting?.reject(this.#interrupted);
  }

  /** Makes the waiting read and all later ones fail with `error`, until `resume`. No byte is lost by it. */
  cancel(error: Error): void {
    if (this.#interrupted !== null) return;
    this.#interrupted = error;
    this.#isCancel = true;
    if (this.#waiting === null) return;
    this.#abandoned = this.#waiting.reading;
    this.#waiting.reject(error);
    this.#waiting = null;
  }

  resume(): void {
    if (!this.#isCancel) return;
    this.#isCancel = false;
    this.#interrupted = null;
  }

  /**
   * While `next` waits: `handler` is called as soon as something has arrived, and takes by `peek` and `skip` what it can deal
   * with. `next` goes on with what it leaves, or with what it threw. So a request can be answered without a promise. Null ends it.
   */
  onArrival(handler: (() => void) | null): void {
    this.#onArrival = handler;
    this.#connection.intercept?.(handler === null ? null : this.#arrived);
  }

  readonly #arrived = (bytes: Uint8Array): Uint8Array | null => {
    if (this.#waiting === null || this.#interrupted !== null || this.#onArrival === null) return bytes;
    this.#noteArrival(bytes);
    try {
      this.#framer.push(bytes);
      this.#onArrival();
      return this.#framer.peek() === null ? null : NOTHING;
    } catch (error) {
      this.#arrivalError = { error };
      return NOTHING;
    }
  };

  /** The next message in place, if it is already here: see PgFramer.peek. */
  peek(): PeekedFrame | null {
    if (this.#interrupted !== null) throw this.#interrupted;
    return this.#framer.peek();
  }

  /** Takes the message that `peek` gave. */
  skip(): void {
    this.#framer.skip();
  }

  /** The next message if it is already here. */
  takePending(): PgFrame | null {
    if (this.#interrupted !== null) throw this.#interrupted;
    return this.#framer.take();
  }

  /**
   * The next message, or null when the peer ended between messages.
   * @throws StrataError unavailable `connection-lost` when it ended inside one, fix-input `protocol-violation`; Cancelled
   */
  async next(): Promise<PgFrame | null> {
    for (;;) {
      const frame = this.takePending();
      if (frame !== null) return frame;
      const chunk = await this.#read();
      this.#noteArrival(chunk);
      if (chunk === null) {
        if (this.#framer.bufferedBytes === 0) return null;
        throw new StrataError("unavailable", "connection-lost", `${this.#connection.remote} closed the connection inside a message`);
      }
      this.#framer.push(chunk);
      this.#throwArrivalError();
    }
  }

  #noteArrival(bytes: Uint8Array | null): void {
    this.#arrivals++;
    this.#receivedBytes += bytes?.length ?? 0;
  }

  #throwArrivalError(): void {
    const failed = this.#arrivalError;
    this.#arrivalError = null;
    if (failed !== null) throw failed.error;
  }

  #read(): Promise<Uint8Array | null> {
    const reading = this.#abandoned ?? this.#connection.read();
    this.#abandoned = null;
    return new Promise((resolve, reject) => {
      const waiting = { reading, reject };
      this.#waiting = waiting;
      const over = (): void => {
        if (this.#waiting === waiting) this.#waiting = null;
      };
      reading.then(
        (chunk) => (over(), resolve(chunk)),
        (error: Error) => (over(), reject(error)),
      );
    });
  }
}
