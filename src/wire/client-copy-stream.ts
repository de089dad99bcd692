/** The client's end of a COPY. */
import type { StrataError } from "../kit/errors.ts";
import { InvariantError } from "../kit/errors.ts";
import { parseFields } from "./client-messages.ts";
import type { PgFrameReader } from "./frame-reader.ts";
import type { PgFrame } from "./framer.ts";
import type { PgMessageWriter } from "./message-writer.ts";
import type { CopyStream } from "./pg-session.ts";
import { TAG, tagName } from "./protocol.ts";
import { errorFromServer } from "./sqlstate.ts";
import { cstringBody, violation } from "./startup.ts";

export interface ClientCopyOptions {
  readonly mode: "both" | "out" | "in";
  readonly reader: PgFrameReader;
  readonly writer: PgMessageWriter;
  /** The next message but notices and the like. @throws StrataError unavailable `connection-lost` at the end */
  readonly next: () => Promise<PgFrame>;
  /** True when the message was a notice or the like, and is dealt with. */
  readonly filter: (frame: PgFrame) => boolean;
  /** Called when the server is ready for the next query. */
  readonly end: () => void;
}

export class ClientCopyStream implements CopyStream {
  readonly #options: ClientCopyOptions;
  #peerDone = false;
  #doneSent = false;
  #failure: StrataError | null = null;
  #ready = false;

  constructor(options: ClientCopyOptions) {
    this.#options = options;
  }

  get pending(): number {
    return this.#options.reader.pending;
  }

  get bufferedBytes(): number {
    return this.#options.writer.bufferedBytes;
  }

  /** As in CopyStream, but a connection that ends before CopyDone is an error: what was read is not the whole.
   *  @throws StrataError `server-error` when the server gave up, unavailable `connection-lost` */
  async read(): Promise<Uint8Array | null> {
    while (!this.#peerDone) {
      const frame = this.#pendingFrame() ?? (await this.#options.next());
      if (frame.tag === TAG.copyData) return frame.body;
      if (frame.tag === TAG.copyDone) this.#peerDone = true;
      else if (frame.tag === TAG.error) this.#fail(frame);
      else throw violation(`unexpected message "${tagName(frame.tag)}" during COPY`);
    }
    if (this.#failure !== null) throw this.#failure;
    return null;
  }

  #pendingFrame(): PgFrame | null {
    const frame = this.#options.reader.takePending();
    return frame !== null && this.#options.filter(frame) ? null : frame;
  }

  #fail(frame: PgFrame): void {
    this.#failure = errorFromServer(parseFields(frame.body));
    this.#peerDone = true;
    this.#doneSent = true;
  }

  write(...parts: Uint8Array[]): void {
    if (this.#options.mode === "out") throw new InvariantError("write on a COPY OUT stream: its client sends nothing");
    // After the server's error nobody reads what we send; the writer learns of it when it reads.
    if (!this.#doneSent) this.#options.writer.copyData(parts);
  }

  drained(): Promise<void> {
    return this.#options.writer.drained();
  }

  done(): void {
    if (this.#doneSent || this.#options.mode === "out") return;
    this.#doneSent = true;
    this.#options.writer.empty(TAG.copyDone);
  }

  /** Breaks off a COPY IN: the server answers with an error, which `finish` throws. */
  fail(reason: string): void {
    if (this.#doneSent) return;
    this.#doneSent = true;
    this.#options.writer.begin(TAG.copyFail).cstring(reason).finish();
  }

  /** Ends the COPY on both sides, dropping data still to come, and waits until the client can take another query.
   *  Returns the last command tag. @throws StrataError `server-error` */
  async finish(): Promise<string> {
    this.done();
    let tag = "";
    while (!this.#ready) {
      const frame = await this.#options.next();
      if (frame.tag === TAG.ready) this.#ready = true;
      else if (frame.tag === TAG.commandComplete) tag = cstringBody(frame.body, "command tag");
      else if (frame.tag === TAG.error) this.#fail(frame);
    }
    this.#options.end();
    if (this.#failure !== null) throw this.#failure;
    return tag;
  }
}
