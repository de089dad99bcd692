/**
 * The server side of the PostgreSQL protocol (version 3) as the roles see it. The implementation, framing and
 * authentication are in the neighbouring files; a role hands `servePg` a `PgHandler` and gets sessions.
 */
export interface PgColumn {
  readonly name: string;
  /** Type oid; 25 (text) by default. */
  readonly typeOid?: number;
}

/** What a session sends and receives while in a COPY mode. One CopyData message in, one out. */
export interface CopyStream {
  /** Payload of the next CopyData (owned by the caller), or null after CopyDone or the end of the connection.
   *  @throws StrataError fix-input `copy-failed` after CopyFail, `protocol-violation` on any other message */
  read(): Promise<Uint8Array | null>;
  /** How many whole CopyData messages are already here, so that `read` would not wait. */
  readonly pending: number;
  /** Queues one CopyData whose payload is `parts`, concatenated. */
  write(...parts: Uint8Array[]): void;
  readonly bufferedBytes: number;
  /** Waits until the send queue is below its high-water mark. */
  drained(): Promise<void>;
  /** Sends CopyDone; reading goes on until the peer's. */
  done(): void;
}

/** Bytes in place: bytes[start, end). */
export interface Span {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** A server's COPY, with ways that need no promise and no array for a message. */
export interface ServedCopyStream extends CopyStream {
  /** As `read`, without waiting: null when no CopyData is here, and then `read` tells why. */
  take(): Uint8Array | null;
  /** What `take` would give, in place: good until the next call of anything here, and one object always. */
  peek(): Span | null;
  /** Takes what `peek` gave. */
  skip(): void;
  /** While `read` waits: `handler` is called as soon as something has arrived, and takes by `peek` and `skip` what it can deal with;
   *  `read` goes on with what it leaves, or throws what it threw. May never be called. Null ends it. */
  onArrival(handler: (() => void) | null): void;
  /** Sends whole CopyData messages that the caller framed; its buffer may be used again. */
  writeFramed(messages: Uint8Array): void;
}

export interface PgSession {
  /** Start-up parameters: user, database, options, replication … */
  readonly parameters: ReadonlyMap<string, string>;
  /** The password of the cleartext exchange: a JWT, when authentication is on. */
  readonly password: string | null;
  readonly remote: string;
  /** What has gone over the connection since the start. */
  readonly traffic: { readonly receivedBytes: number; readonly sentBytes: number };
  /** Aborted when the connection is gone or the server is stopping. */
  readonly signal: AbortSignal;
  /** A whole result: RowDescription, the rows (null = NULL), CommandComplete with `tag`. */
  sendResult(columns: readonly PgColumn[], rows: readonly (readonly (string | Uint8Array | null)[])[], tag: string): void;
  sendCommandComplete(tag: string): void;
  sendNotice(severity: "NOTICE" | "WARNING", sqlState: string, message: string): void;
  copyBoth(): ServedCopyStream;
  copyOut(): CopyStream;
  copyIn(): CopyStream;
}

export interface PgHandler {
  /** What the connection is about (tenant, timeline), for the lines that are logged about it. */
  readonly logFields?: Readonly<Record<string, string | number | null>>;
  /** After the start-up packet and authentication, before ReadyForQuery. Throw to refuse (ErrorResponse FATAL). */
  connected(session: PgSession): Promise<void>;
  /** One simple-protocol query. Throw a StrataError to answer ErrorResponse; the session goes on. */
  query(session: PgSession, sql: string): Promise<void>;
  disconnected(session: PgSession): void;
}
