/** COPY modes over a connection: the same stream for a server and for a client, apart from how the other side ends. */
import { InvariantError, StrataError } from "../kit/errors.ts";
import { utf8ToString } from "../kit/bytes.ts";
import type { PgFrameReader } from "./frame-reader.ts";
import type { PgFrame } from "./framer.ts";
import type { PgMessageWriter } from "./message-writer.ts";
import type { ServedCopyStream, Span } from "./pg-session.ts";
import { TAG, tagName } from "./protocol.ts";

export type CopyMode = "in" | "out" | "both";

/** The server's end of a COPY. */
export class ServerCopyStream implements ServedCopyStream {
  readonly mode: CopyMode;
  readonly #reader: PgFrameReader;
  readonly #writer: PgMessageWriter;
  #peerDone = false;
  #doneSent = false;
  /** The peer is gone or said Terminate: no query can follow. */
  connectionEnded = false;

  constructor(options: { mode: CopyMode; reader: PgFrameReader; writer: PgMessageWriter }) {
    this.mode = options.mode;
    this.#reader = options.reader;
    this.#writer = options.writer;
  }

  get pending(): number {
    return this.#reader.pending;
  }

  get bufferedBytes(): number {
    return this.#writer.bufferedBytes;
  }

  async read(): Promise<Uint8Array | null> {
    if (this.mode === "out") throw new InvariantError("read on a COPY OUT stream: its client sends nothing");
    while (!this.#peerDone) {
      const frame = this.#reader.takePending() ?? (await this.#reader.next());
      if (frame !== null && frame.tag === TAG.copyData) return frame.body;
      this.#control(frame);
    }
    return null;
  }

  peek(): Span | null {
    if (this.#peerDone) return null;
    const frame = this.#reader.peek();
    return frame?.tag === TAG.copyData ? frame : null;
  }

  skip(): void {
    this.#reader.skip();
  }

  onArrival(handler: (() => void) | null): void {
    this.#reader.onArrival(handler);
  }

  take(): Uint8Array | null {
    while (!this.#peerDone) {
      const frame = this.#reader.takePending();
      if (frame === null) return null;
      if (frame.tag === TAG.copyData) return frame.body;
      this.#control(frame);
    }
    return null;
  }

  #control(frame: PgFrame | null): void {
    if (frame === null || frame.tag === TAG.terminate) {
      this.#peerDone = true;
      this.connectionEnded = true;
      return;
    }
    switch (frame.tag) {
      case TAG.copyDone:
        this.#peerDone = true;
        return;
      case TAG.flush:
      case TAG.sync:
        return;
      case TAG.copyFail:
        this.#peerDone = true;
        throw new StrataError("fix-input", "copy-failed", `COPY ended by the client: ${utf8ToString(frame.body.subarray(0, -1))}`);
      default:
        throw new StrataError("fix-input", "protocol-violation", `unexpected message "${tagName(frame.tag)}" during COPY`);
    }
  }

  write(...parts: Uint8Array[]): void {
    if (this.#doneSent || this.mode === "in") throw new InvariantError("write on a COPY stream that sends nothing any more");
    this.#writer.copyData(parts);
  }

  writeFramed(messages: Uint8Array): void {
    if (this.#doneSent || this.mode === "in") throw new InvariantError("write on a COPY stream that sends nothing any more");
    this.#writer.framed(messages);
  }

  drained(): Promise<void> {
    return this.#writer.drained();
  }

  done(): void {
    if (this.#doneSent || this.mode === "in") return;
    this.#doneSent = true;
    this.#writer.empty(TAG.copyDone);
  }
}
