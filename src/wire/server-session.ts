/** The life of one authenticated server session: the query loop and what a handler may send. */
import { Cancelled, InvariantError, StrataError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import { writeCommandComplete, writeCopyResponse, writeDataRow, writeFields, writeReady, writeRowDescription } from "./backend-messages.ts";
import { type CopyMode, ServerCopyStream } from "./copy-stream.ts";
import { ExtendedQueries, type PgRow, type QueryResult } from "./extended-query.ts";
import type { PgFrame } from "./framer.ts";
import type { CopyStream, ServedCopyStream, PgColumn, PgHandler, PgSession } from "./pg-session.ts";
import { TAG, tagName } from "./protocol.ts";
import { errorFields } from "./sqlstate.ts";
import { type Channel, type StartupPacket, cstringBody, violation } from "./startup.ts";

const COPY_TAG: Readonly<Record<CopyMode, number>> = { in: TAG.copyIn, out: TAG.copyOut, both: TAG.copyBoth };

interface Collected {
  columns: readonly PgColumn[] | null;
  rows: readonly PgRow[];
  tag: string;
}

export class ServerSession implements PgSession {
  readonly parameters: ReadonlyMap<string, string>;
  readonly password: string | null;
  readonly remote: string;
  readonly #channel: Channel;
  readonly #handler: PgHandler;
  readonly #log: Logger;
  readonly #abort = new AbortController();
  readonly #extended: ExtendedQueries;
  /** Of the query that runs now. */
  #running: AbortController | null = null;
  /** Where a query of the extended protocol puts its result; null for a simple one, whose result goes out at once. */
  #collected: Collected | null = null;
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
    this.#extended = new ExtendedQueries(options.channel.writer, (sql) => this.#collect(sql));
  }

  get traffic(): { readonly receivedBytes: number; readonly sentBytes: number } {
    const { reader, writer } = this.#channel;
    return { receivedBytes: reader.receivedBytes, sentBytes: writer.sentBytes };
  }

  get signal(): AbortSignal {
    return (this.#running ?? this.#abort).signal;
  }

  abort(): void {
    this.#abort.abort();
    this.#running?.abort();
  }

  /** A CancelRequest came: the query that runs now, if any, ends with an error; the session goes on. */
  cancel(): void {
    if (this.#running === null) return;
    this.#running.abort();
    this.#channel.reader.cancel(queryCanceled());
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
        return false;
      case TAG.flush:
        writer.flush();
        return false;
      case TAG.sync:
        this.#skipToSync = false;
        this.#extended.sync();
        writeReady(writer);
        return false;
      case TAG.parse:
      case TAG.bind:
      case TAG.describe:
      case TAG.execute:
      case TAG.close:
        if (!this.#skipToSync) await this.#extendedMessage(frame);
        return false;
      case TAG.functionCall:
        this.#tell(new StrataError("fix-input", "not-supported", "function calls are not supported here"));
        writeReady(writer);
        return false;
      default:
        throw violation(`invalid frontend message type "${tagName(frame.tag)}"`);
    }
  }

  async #extendedMessage(frame: PgFrame): Promise<void> {
    try {
      await this.#extended.message(frame);
    } catch (error) {
      if (isFatal(error) || this.#abort.signal.aborted) throw error;
      this.#skipToSync = true;
      this.#tell(error);
    }
  }

  #tell(error: unknown): void {
    const { writer } = this.#channel;
    writer.abandonOpen();
    writeFields(writer, TAG.error, errorFields(error, "ERROR"));
  }

  async #query(sql: string): Promise<boolean> {
    const { writer } = this.#channel;
    this.#copy = null;
    this.#completed = false;
    try {
      if (sql.trim() === "") this.#emptyQuery();
      else await this.#handle(sql);
      this.#copyOf()?.done();
      if (!this.#completed) writeCommandComplete(writer, this.#copyOf() === null ? "OK" : "COPY 0");
    } catch (error) {
      if (isFatal(error) || this.#abort.signal.aborted) throw error;
      this.#log.info("libpq query failed", { ...this.#handler.logFields, query: sql.slice(0, 200), error });
      this.#tell(error);
    }
    if (this.#copyOf()?.connectionEnded === true) return true;
    writeReady(writer);
    return false;
  }

  /** Has the handler answer, under a signal of the query's own. */
  async #handle(sql: string): Promise<void> {
    const running = new AbortController();
    this.#running = running;
    if (this.#abort.signal.aborted) running.abort();
    try {
      await this.#handler.query(this, sql);
      // A handler that stopped because its signal said so has not done what it was asked.
      if (running.signal.aborted && !this.#completed) throw queryCanceled();
    } catch (error) {
      const broken = isFatal(error) && !(error instanceof Cancelled);
      throw running.signal.aborted && !this.#abort.signal.aborted && !broken ? queryCanceled() : error;
    } finally {
      this.#running = null;
      this.#channel.reader.resume();
    }
  }

  async #collect(sql: string): Promise<QueryResult> {
    if (sql.trim() === "") return { columns: null, rows: [], tag: null };
    const collected: Collected = { columns: null, rows: [], tag: "OK" };
    this.#collected = collected;
    this.#completed = false;
    try {
      await this.#handle(sql);
    } finally {
      this.#collected = null;
    }
    return collected;
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
    if (this.#collected === null) {
      writeRowDescription(writer, columns);
      for (const row of rows) writeDataRow(writer, row);
    } else Object.assign(this.#collected, { columns, rows });
    this.sendCommandComplete(tag);
  }

  sendCommandComplete(tag: string): void {
    if (this.#collected !== null) {
      this.#collected.tag = tag;
      this.#completed = true;
      return;
    }
    this.#copy?.done();
    this.#completed = true;
    writeCommandComplete(this.#channel.writer, tag);
  }

  sendNotice(severity: "NOTICE" | "WARNING", sqlState: string, message: string): void {
    writeFields(this.#channel.writer, TAG.notice, { severity, sqlState, message });
  }

  copyBoth(): ServedCopyStream {
    return this.#startCopy("both");
  }
  copyOut(): CopyStream {
    return this.#startCopy("out");
  }
  copyIn(): CopyStream {
    return this.#startCopy("in");
  }

  #startCopy(mode: CopyMode): ServedCopyStream {
    if (this.#collected !== null) throw new StrataError("fix-input", "not-supported", "COPY is not supported in the extended query protocol: use a simple query");
    if (this.#copy !== null) throw new InvariantError("one COPY a query");
    const { reader, writer } = this.#channel;
    writeCopyResponse(writer, COPY_TAG[mode]);
    this.#copy = new ServerCopyStream({ mode, reader, writer });
    return this.#copy;
  }
}

function queryCanceled(): StrataError {
  return new StrataError("retry", "query-canceled", "canceling statement due to user request");
}

/** Errors after which the byte stream cannot be trusted, or nobody listens. */
function isFatal(error: unknown): boolean {
  if (error instanceof Cancelled) return true;
  return error instanceof StrataError && ["protocol-violation", "connection-lost", "peer-silent"].includes(error.code);
}
