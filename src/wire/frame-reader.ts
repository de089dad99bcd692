/** Pulls protocol messages from a connection. Pulling is the flow control: nobody reads, nothing is received. */
import { Cancelled, StrataError } from "../kit/errors.ts";
import type { Connection } from "../platform/network.ts";
import type { PgFramer} from "./framer.ts";
import { type PgFrame } from "./framer.ts";

export class PgFrameReader {
  readonly #connection: Connection;
  readonly #framer: PgFramer;
  #interrupt: ((error: Error) => void) | null = null;
  #interrupted: Error | null = null;

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

  setMode(options: { tagged: boolean; maxBytes: number }): void {
    this.#framer.setMode(options);
  }

  /** Makes the waiting read and all later ones fail with Cancelled. */
  interrupt(reason: string): void {
    if (this.#interrupted !== null) return;
    this.#interrupted = new Cancelled(reason);
    this.#interrupt?.(this.#interrupted);
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
      if (chunk === null) {
        if (this.#framer.bufferedBytes === 0) return null;
        throw new StrataError("unavailable", "connection-lost", `${this.#connection.remote} closed the connection inside a message`);
      }
      this.#framer.push(chunk);
    }
  }

  #read(): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      this.#interrupt = reject;
      this.#connection.read().then(resolve, reject);
    });
  }
}
