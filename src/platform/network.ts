/**
 * Byte-stream sockets, passed in. Reading pulls, so a slow reader is back-pressure by itself; writing queues, and
 * `drained()` is where a writer waits. Listeners bind loopback unless told otherwise.
 */
export interface Connection {
  /** host:port of the peer, for logs. */
  readonly remote: string;
  /** The next bytes (owned by the caller from then on), or null after the peer ended. @throws StrataError unavailable
   *  `connection-lost` when it broke. One read may be outstanding at a time. */
  read(): Promise<Uint8Array | null>;
  /** Whoever waits in `read` may have a taker go first: called with what arrives then, at once, without a turn of the event loop. It returns what the
   *  waiting read is to give, or null when it is to go on waiting. Null ends it. Absent where there is no such way. */
  intercept?(taker: ((bytes: Uint8Array) => Uint8Array | null) | null): void;
  /** Queues `bytes` (not copied: do not change them afterwards). A no-op on a closed connection. */
  write(bytes: Uint8Array): void;
  /** Hands `bytes` to the kernel at once, unless some are queued before them. Returns how many it took: the rest is still the
   *  caller's, to `write` as a copy; the array may be used again. Absent where there is no such way. */
  writeNow?(bytes: Uint8Array): number;
  /** Bytes queued and not yet taken by the kernel. */
  readonly bufferedBytes: number;
  /** Resolves when the queue is below the high-water mark (1 MiB) or the connection has closed. */
  drained(): Promise<void>;
  /** Ends our side after the queue is sent. */
  end(): void;
  /** Drops the connection at once. */
  destroy(): void;
  readonly closed: Promise<void>;
}

export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

export interface TlsServerOptions {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface TlsClientOptions {
  /** Host name or address of the server: sent to it, and looked for in its certificate. */
  readonly serverName: string;
  /** Certificate authorities to trust instead of the system's, in PEM. */
  readonly caPem?: string | undefined;
  /** False: encrypted, but to whoever answers. */
  readonly verify: boolean;
}

export interface Network {
  /** @throws StrataError conflict `port-in-use` */
  listen(address: { host: string; port: number }, accept: (connection: Connection) => void): Promise<Listener>;
  /** @throws StrataError unavailable `connect-failed` */
  connect(address: { host: string; port: number } | { unixPath: string }, options?: { timeoutMs?: number; signal?: AbortSignal }): Promise<Connection>;
  /** Turns an accepted plain connection into a TLS server's (after an SSLRequest was answered). */
  upgradeToTlsServer(connection: Connection, options: TlsServerOptions): Promise<Connection>;
  /** Turns a plain connection of ours into a TLS client's (after the server agreed to it).
   *  @throws StrataError unavailable `tls-handshake-failed`, with what is wrong with the certificate as its cause; fix-input `data-before-tls` */
  upgradeToTlsClient(connection: Connection, options: TlsClientOptions): Promise<Connection>;
}
