/** The life of one authenticated server session: the query loop and what a handler may send. */
import { Cancelled, InvariantError, StrataError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import { writeCommandComplete, writeCopyResponse, writeDataRow, writeFields, writeReady, writeRowDescription } from "./backend-messages.ts";
import { type CopyMode, ServerCopyStream } from "./copy-stream.ts";
import type { PgFrame } from "./framer.ts";
import type { CopyStream, PgColumn, PgHandler, PgSession } from "./pg-session.ts";
import { TAG, tagName } from "./protocol.ts";
import { errorFields } from "./sqlstate.ts";
import { type Channel, type StartupPacket, cstringBody, violation } from "./startup.ts";

const COPY_TAG: Readonly<Record<CopyMode, number>> = { in: TAG.copyIn, out: TAG.copyOut, both: TAG.copyBoth };

export class ServerSession implements PgSession {
  readonly parameters: ReadonlyMap<string, string>;
  readonly password: string | null;
  readonly remote: string;
  readonly #channel: Channel;
  readonly #handler: PgHandler;
  readonly #log: Logger;
  readonly #abort = new AbortController();
  #copy: ServerCopyStream | null = null;
  #completed = false;
  /** After an error in the extended protocol everything up to Sync is skipped. */
  #skipToSync = false;

  constructor(options: { channel: Channel; handler: PgHandler; packet: StartupPacket; password: string | null; log: Logger }) {
    this.#channel = options.channel;
    this.#handler = options.handler;
    this.#log = options.log;
    this.parameters = options.packet.parameters;
    this.password = options.password;
    this.remote = options.channel.connection.remote;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  abort(): void {
    this.#abort.abort();
  }

  /** Serves queries until the peer leaves. @throws StrataError fix-input `protocol-violation`; Cancelled when the server stops */
  async run(): Promise<void> {
    const { reader, writer } = this.#channel;
    writeReady(writer);
    for (;;) {
      const frame = reader.takePending() ?? (await reader.next());
      if (frame === null || frame.tag === TAG.terminate) return;
      const over = await this.#message(frame);
      if (over || this.#abort.signal.aborted) return;
    }
  }

  /** True when the connection is over. */
  async #message(frame: PgFrame): Promise<boolean> {
    const { writer } = this.#channel;
    switch (frame.tag) {
      case TAG.query:
        return await this.#query(cstringBody(frame.body, "query"));
      // Left over from a COPY that we ended before the client did.
      case TAG.copyData:
      case TAG.copyDone:
      case TAG.copyFail:
      case TAG.flush:
        return false;
      case TAG.sync:
        this.#skipToSync = false;
        writeReady(writer);
        return false;
      case TAG.parse:
      case TAG.bind:
      case TAG.describe:
      case TAG.execute:
      case TAG.close:
        this.#refuseExtended();
        return false;
      default:
        throw violation(`invalid frontend message type "${tagName(frame.tag)}"`);
    }
  }

  #refuseExtended(): void {
    if (this.#skipToSync) return;
    this.#skipToSync = true;
    const error = new StrataError("fix-input", "not-supported", "the extended query protocol is not supported here: use simple queries");
    writeFields(this.#channel.writer, TAG.error, errorFields(error, "ERROR"));
  }

  async #query(sql: string): Promise<boolean> {
    const { writer } = this.#channel;
    this.#copy = null;
    this.#completed = false;
    try {
      if (sql.trim() === "") this.#emptyQuery();
      else await this.#handler.query(this, sql);
      this.#copyOf()?.done();
      if (!this.#completed) writeCommandComplete(writer, this.#copyOf() === null ? "OK" : "COPY 0");
    } catch (error) {
      if (isFatal(error) || this.#abort.signal.aborted) throw error;
      this.#log.info("libpq query failed", { query: sql.slice(0, 200), error });
      writer.abandonOpen();
      writeFields(writer, TAG.error, errorFields(error, "ERROR"));
    }
    if (this.#copyOf()?.connectionEnded === true) return true;
    writeReady(writer);
    return false;
  }

  #emptyQuery(): void {
    this.#channel.writer.empty(TAG.emptyQuery);
    this.#completed = true;
  }

  /** The query's COPY, if it began one: a method, since the handler changes the field behind the compiler's back. */
  #copyOf(): ServerCopyStream | null {
    return this.#copy;
  }

  sendResult(columns: readonly PgColumn[], rows: readonly (readonly (string | Uint8Array | null)[])[], tag: string): void {
    const { writer } = this.#channel;
    for (const row of rows) {
      if (row.length !== columns.length) throw new InvariantError(`a row of ${row.length} values for ${columns.length} columns`);
    }
    writeRowDescription(writer, columns);
    for (const row of rows) writeDataRow(writer, row);
    this.sendCommandComplete(tag);
  }

  sendCommandComplete(tag: string): void {
    this.#copy?.done();
    this.#completed = true;
    writeCommandComplete(this.#channel.writer, tag);
  }

  sendNotice(severity: "NOTICE" | "WARNING", sqlState: string, message: string): void {
    writeFields(this.#channel.writer, TAG.notice, { severity, sqlState, message });
  }

  copyBoth(): CopyStream {
    return this.#startCopy("both");
  }
  copyOut(): CopyStream {
    return this.#startCopy("out");
  }
  copyIn(): CopyStream {
    return this.#startCopy("in");
  }

  #startCopy(mode: CopyMode): CopyStream {
    if (this.#copy !== null) throw new InvariantError("one COPY a query");
    const { reader, writer } = this.#channel;
    writeCopyResponse(writer, COPY_TAG[mode]);
    this.#copy = new ServerCopyStream({ mode, reader, writer });
    return this.#copy;
  }
}

/** Errors after which the byte stream cannot be trusted, or nobody listens. */
function isFatal(error: unknown): boolean {
  if (error instanceof Cancelled) return true;
  return error instanceof StrataError && (error.code === "protocol-violation" || error.code === "connection-lost");
}
