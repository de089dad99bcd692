/** A network inside one process, for tests of the protocol alone. */
import { StrataError } from "../../src/kit/errors.ts";
import type { Connection, Listener, Network } from "../../src/platform/network.ts";

export class MemoryConnection implements Connection {
  readonly remote: string;
  peer: MemoryConnection | null = null;
  /** Every array handed to `write`, in order. */
  readonly written: Uint8Array[] = [];
  /** Splits what the peer writes into pieces of this size, to exercise reassembly. */
  pieceBytes = Number.POSITIVE_INFINITY;
  readonly #inbox: (Uint8Array | null)[] = [];
  #waiting: PromiseWithResolvers<Uint8Array | null> | null = null;
  readonly #closed = Promise.withResolvers<void>();
  #ended = false;

  constructor(remote: string) {
    this.remote = remote;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }
  get bufferedBytes(): number {
    return 0;
  }

  async read(): Promise<Uint8Array | null> {
    const chunk = this.#inbox[0];
    if (chunk === null) return null;
    if (chunk !== undefined) {
      this.#inbox.shift();
      return chunk;
    }
    this.#waiting = Promise.withResolvers();
    return await this.#waiting.promise;
  }

  receive(chunk: Uint8Array | null): void {
    if (chunk !== null && chunk.length > this.pieceBytes) {
      for (let at = 0; at < chunk.length; at += this.pieceBytes) this.receive(chunk.slice(at, at + this.pieceBytes));
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null || chunk === null) this.#inbox.push(chunk);
    waiting?.resolve(chunk);
  }

  write(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.written.push(bytes);
    this.peer?.receive(bytes.slice());
  }

  async drained(): Promise<void> {}

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.peer?.receive(null);
    const { peer } = this;
    if (peer !== null && peer.#ended) this.destroy();
  }

  destroy(): void {
    this.#ended = true;
    this.receive(null);
    this.#closed.resolve();
    if (this.peer !== null && !this.peer.#ended) this.peer.receive(null);
    if (this.peer !== null) this.peer.#closed.resolve();
  }
}

export function memoryPair(): [client: MemoryConnection, server: MemoryConnection] {
  const client = new MemoryConnection("memory:server");
  const server = new MemoryConnection("memory:client");
  client.peer = server;
  server.peer = client;
  return [client, server];
}

export class MemoryNetwork implements Network {
  #accept: ((connection: Connection) => void) | null = null;
  /** Applied to both ends of each new connection. */
  pieceBytes = Number.POSITIVE_INFINITY;

  async listen(_address: { host: string; port: number }, accept: (connection: Connection) => void): Promise<Listener> {
    this.#accept = accept;
    return { port: 1, close: async () => void (this.#accept = null) };
  }

  async connect(): Promise<Connection> {
    if (this.#accept === null) throw new StrataError("unavailable", "connect-failed", "nobody listens");
    const [client, server] = memoryPair();
    client.pieceBytes = this.pieceBytes;
    server.pieceBytes = this.pieceBytes;
    this.#accept(server);
    return client;
  }

  async upgradeToTlsServer(): Promise<Connection> {
    throw new StrataError("unavailable", "tls-failed", "no TLS in memory");
  }

  async upgradeToTlsClient(): Promise<Connection> {
    throw new StrataError("unavailable", "tls-failed", "no TLS in memory");
  }
}
