/**
 * A PostgreSQL-protocol client: simple queries in text form and the COPY modes, replication included.
 *
 *   const client = await PgClient.connect(network, { host, port, parameters: { user: "postgres", replication: "true" }, random });
 *   const { rows } = await client.query("IDENTIFY_SYSTEM");
 *   const stream = await client.copyBoth("START_REPLICATION PHYSICAL 0/1000000");
 *
 * One request at a time. A server's ErrorResponse is thrown as StrataError `server-error` (sqlstate.ts).
 */
import { InvariantError, StrataError } from "../kit/errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Connection, Network } from "../platform/network.ts";
import type { Random } from "../platform/random.ts";
import type { BackendKey } from "./cancel-keys.ts";
import { ClientCopyStream } from "./client-copy-stream.ts";
import { parseBackendKey, parseDataRow, parseFields, parseParameterStatus, parseRowDescription } from "./client-messages.ts";
import { ClientAuthentication, writeStartup } from "./client-startup.ts";
import { type PgTls, startTls } from "./client-tls.ts";
import { PgFrameReader } from "./frame-reader.ts";
import { PgFramer, type PgFrame } from "./framer.ts";
import { PgMessageWriter } from "./message-writer.ts";
import type { PgColumn } from "./pg-session.ts";
import { CANCEL_REQUEST_CODE, MESSAGE_MAX_BYTES, TAG, tagName } from "./protocol.ts";
import { type PgErrorFields, errorFromServer } from "./sqlstate.ts";
import { cstringBody, violation } from "./startup.ts";

export interface PgClientOptions {
  readonly address: { readonly host: string; readonly port: number } | { readonly unixPath: string };
  /** Start-up parameters; `user` is needed, `database`, `replication`, `options`, `application_name` are usual. */
  readonly parameters: Readonly<Record<string, string>>;
  /** For cleartext (a JWT, say), md5 and SCRAM. */
  readonly password?: string;
  /** Plain text without it. Not for sockets in the file system. */
  readonly tls?: PgTls | undefined;
  /** For connecting and the handshake together; 10 s unless given. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly clock: Clock;
  readonly random: Random;
  readonly onNotice?: (notice: PgErrorFields) => void;
  /** Longest message taken from the server; 16 MiB unless given. */
  readonly messageMaxBytes?: number;
  /** Bytes of rows one `query` may return; 64 MiB unless given. */
  readonly resultMaxBytes?: number;
}

export interface PgResult {
  readonly columns: readonly PgColumn[];
  readonly rows: readonly (readonly (string | null)[])[];
  /** Of CommandComplete, e.g. `SELECT 1`. */
  readonly tag: string;
}

const TIMEOUT_MS = 10_000;
const RESULT_MAX_BYTES = 64 * 1024 * 1024;
const COPY_START = { both: TAG.copyBoth, out: TAG.copyOut, in: TAG.copyIn } as const;

export class PgClient {
  readonly #connection: Connection;
  readonly #reader: PgFrameReader;
  readonly #writer: PgMessageWriter;
  readonly #options: PgClientOptions;
  readonly #parameterStatus = new Map<string, string>();
  #backendKey: BackendKey | null = null;
  #busy = false;

  private constructor(connection: Connection, options: PgClientOptions) {
    this.#connection = connection;
    this.#options = options;
    const framer = new PgFramer({ tagged: true, maxBytes: options.messageMaxBytes ?? MESSAGE_MAX_BYTES });
    this.#reader = new PgFrameReader(connection, framer);
    this.#writer = new PgMessageWriter(connection);
  }

  /** @throws StrataError unavailable `connect-failed`, `connect-timeout`, `tls-refused` or `tls-handshake-failed`; unauthenticated, or what the server answered */
  static async connect(network: Network, options: PgClientOptions): Promise<PgClient> {
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    const deadline = options.clock.monotonicMs() + timeoutMs;
    let connection = await network.connect(options.address, { timeoutMs, ...(options.signal === undefined ? {} : { signal: options.signal }) });
    let timedOut = false;
    const timer = options.clock.after(Math.max(1, deadline - options.clock.monotonicMs()), () => {
      timedOut = true;
      connection.destroy();
    });
    const abort = (): void => connection.destroy();
    options.signal?.addEventListener("abort", abort, { once: true });
    try {
      const { address, tls } = options;
      if (tls !== undefined && "host" in address) connection = await startTls(network, connection, { ...tls, serverName: address.host });
      const client = new PgClient(connection, options);
      await client.#handshake();
      return client;
    } catch (error) {
      connection.destroy();
      if (timedOut) throw new StrataError("unavailable", "connect-timeout", `no handshake with ${connection.remote} within ${timeoutMs} ms`, { cause: error });
      throw error;
    } finally {
      timer.cancel();
      options.signal?.removeEventListener("abort", abort);
    }
  }

  /** What the server reported of itself: server_version, … */
  get parameterStatus(): ReadonlyMap<string, string> {
    return this.#parameterStatus;
  }

  get remote(): string {
    return this.#connection.remote;
  }

  /** What `cancel` needs; null when the server gave none. */
  get backendKey(): BackendKey | null {
    return this.#backendKey;
  }

  /** Asks a server to end the query of the session that has this key. There is no answer. @throws StrataError unavailable `connect-failed` */
  static async cancel(network: Network, address: PgClientOptions["address"], key: BackendKey): Promise<void> {
    const connection = await network.connect(address);
    const writer = new PgMessageWriter(connection);
    writer.beginUntagged().u32(CANCEL_REQUEST_CODE).u32(key.processId).u32(key.secret).finish();
    writer.flush();
    // The server closes when it has done it.
    await connection.read().catch(() => null);
    connection.destroy();
  }

  get closed(): Promise<void> {
    return this.#connection.closed;
  }

  /** The last result set of a simple query. @throws StrataError `server-error`, unavailable `connection-lost` */
  async query(sql: string): Promise<PgResult> {
    this.#send(sql);
    let columns: PgColumn[] = [];
    let rows: (string | null)[][] = [];
    let tag = "";
    let bytes = 0;
    let failure: StrataError | null = null;
    for (;;) {
      const frame = await this.#next();
      switch (frame.tag) {
        case TAG.rowDescription:
          columns = parseRowDescription(frame.body);
          rows = [];
          break;
        case TAG.dataRow:
          bytes += frame.body.length;
          if (bytes > (this.#options.resultMaxBytes ?? RESULT_MAX_BYTES)) throw this.#broken(new StrataError("fix-input", "result-too-large", `the result of a query exceeds ${bytes} bytes`));
          rows.push(parseDataRow(frame.body));
          break;
        case TAG.commandComplete:
          tag = cstringBody(frame.body, "command tag");
          break;
        case TAG.emptyQuery:
          break;
        case TAG.error:
          failure = errorFromServer(parseFields(frame.body));
          if (failure.details.severity === "FATAL" || failure.details.severity === "PANIC") throw this.#broken(failure);
          break;
        case TAG.ready:
          this.#busy = false;
          if (failure !== null) throw failure;
          return { columns, rows, tag };
        default:
          throw this.#broken(violation(`unexpected message "${tagName(frame.tag)}" during a query`));
      }
    }
  }

  /** Runs a query that answers CopyBothResponse (START_REPLICATION, pagestream, …). */
  copyBoth(sql: string): Promise<ClientCopyStream> {
    return this.#copy(sql, "both");
  }
  /** Runs a query that answers CopyOutResponse (basebackup, COPY … TO STDOUT). */
  copyOut(sql: string): Promise<ClientCopyStream> {
    return this.#copy(sql, "out");
  }
  /** Runs a query that answers CopyInResponse. */
  copyIn(sql: string): Promise<ClientCopyStream> {
    return this.#copy(sql, "in");
  }

  /** Says goodbye and closes; resolves when the connection is gone, at most a second later. */
  async close(): Promise<void> {
    if (!this.#busy) this.#writer.empty(TAG.terminate);
    this.#writer.flush();
    this.#connection.end();
    const timer = this.#options.clock.after(1000, () => this.#connection.destroy());
    await this.#connection.closed;
    timer.cancel();
  }

  /** Drops the connection at once. */
  destroy(): void {
    this.#connection.destroy();
  }

  async #copy(sql: string, mode: "both" | "out" | "in"): Promise<ClientCopyStream> {
    this.#send(sql);
    let failure: StrataError | null = null;
    for (;;) {
      const frame = await this.#next();
      if (frame.tag === COPY_START[mode]) {
        const end = (): void => void (this.#busy = false);
        return new ClientCopyStream({ mode, writer: this.#writer, reader: this.#reader, next: () => this.#next(), filter: (inner) => this.#aside(inner), end });
      }
      if (frame.tag === TAG.error) failure = errorFromServer(parseFields(frame.body));
      else if (frame.tag === TAG.ready) {
        this.#busy = false;
        throw failure ?? new StrataError("fix-input", "protocol-violation", `"${sql.slice(0, 100)}" started no COPY`);
      } else if (frame.tag === TAG.copyIn || frame.tag === TAG.copyOut || frame.tag === TAG.copyBoth) {
        throw this.#broken(violation(`COPY ${mode} was expected, the server began another kind`));
      }
      if (failure?.details.severity === "FATAL") throw this.#broken(failure);
    }
  }

  async #handshake(): Promise<void> {
    const { parameters, password, random } = this.#options;
    writeStartup(this.#writer, parameters);
    const authentication = new ClientAuthentication({ writer: this.#writer, user: parameters.user ?? "", password, random });
    for (;;) {
      const frame = await this.#next();
      if (frame.tag === TAG.authentication) authentication.answer(frame);
      else if (frame.tag === TAG.error) throw errorFromServer(parseFields(frame.body));
      else if (frame.tag === TAG.ready) return;
      else if (frame.tag === TAG.backendKey) this.#backendKey = parseBackendKey(frame.body);
      else if (frame.tag !== TAG.negotiate) throw violation(`unexpected message "${tagName(frame.tag)}" in the handshake`);
    }
  }

  #send(sql: string): void {
    if (this.#busy) throw new InvariantError("a PgClient runs one request at a time");
    this.#busy = true;
    this.#writer.begin(TAG.query).cstring(sql).finish();
    this.#writer.flush();
  }

  /** The next message that is not a notice, a notification or a parameter. */
  async #next(): Promise<PgFrame> {
    for (;;) {
      const frame = await this.#reader.next();
      if (frame === null) throw new StrataError("unavailable", "connection-lost", `${this.#connection.remote} closed the connection`);
      if (!this.#aside(frame)) return frame;
    }
  }

  /** Handles messages that may come at any time; true when `frame` was one. */
  #aside(frame: PgFrame): boolean {
    if (frame.tag === TAG.notice) this.#options.onNotice?.(parseFields(frame.body));
    else if (frame.tag === TAG.parameterStatus) this.#parameterStatus.set(...parseParameterStatus(frame.body));
    else if (frame.tag !== TAG.notification) return false;
    return true;
  }

  /** The stream cannot be trusted any more: drops the connection and gives the error back for throwing. */
  #broken(error: StrataError): StrataError {
    this.#connection.destroy();
    return error;
  }
}
