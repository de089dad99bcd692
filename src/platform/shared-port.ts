/**
 * One TCP port for two protocols: connections that open with the HTTP/2 preface go to one owner, all others are
 * relayed to an HTTP/1 server of ours on an ephemeral loopback port. A connection that does not say enough to be told by within
 * 10 s is dropped.
 *
 * Built on node:net because @grpc/grpc-js takes over Node sockets.
 */
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { TlsServerOptions } from "./network.ts";
import { listenError } from "./real/listen-error.ts";

const HTTP2_PREFACE_START = "PRI ";
const DEFAULT_PREFACE_TIMEOUT_MS = 10_000;

export interface SharedPort {
  readonly port: number;
  /** New connections get this certificate. Only for a port with TLS. */
  reloadTls(tls: TlsServerOptions): void;
  /** Stops accepting and drops what is still open. */
  close(): Promise<void>;
}

export interface SharedPortOptions {
  readonly host: string;
  readonly port: number;
  readonly tls?: TlsServerOptions | null;
  /** Takes a socket whose first bytes have been put back. */
  readonly onHttp2: (socket: Socket) => void;
  /** Loopback port of the HTTP/1 server. */
  readonly http1Port: number;
  readonly prefaceTimeoutMs?: number;
}

function relayTo(port: number, socket: Socket): void {
  const upstream = netConnect({ host: "127.0.0.1", port });
  upstream.on("error", () => socket.destroy());
  socket.on("error", () => upstream.destroy());
  socket.on("close", () => upstream.destroy());
  upstream.on("close", () => socket.end());
  upstream.pipe(socket);
  socket.pipe(upstream);
}

function sniff(socket: Socket, options: SharedPortOptions): void {
  const drop = (): void => void socket.destroy();
  const timer = setTimeout(drop, options.prefaceTimeoutMs ?? DEFAULT_PREFACE_TIMEOUT_MS);
  socket.on("close", () => clearTimeout(timer));
  socket.on("error", drop);
  let first: Buffer = Buffer.alloc(0);
  const look = (bytes: Buffer): void => {
    first = Buffer.concat([first, bytes]);
    const start = first.toString("latin1", 0, HTTP2_PREFACE_START.length);
    // It may come byte by byte.
    if (start.length < HTTP2_PREFACE_START.length && HTTP2_PREFACE_START.startsWith(start)) return void socket.once("data", look);
    clearTimeout(timer);
    socket.unshift(first);
    if (start === HTTP2_PREFACE_START) options.onHttp2(socket);
    else relayTo(options.http1Port, socket);
  };
  socket.once("data", look);
}

/** @throws StrataError conflict `port-in-use` */
export async function listenShared(options: SharedPortOptions): Promise<SharedPort> {
  const open = new Set<Socket>();
  const accept = (socket: Socket): void => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    sniff(socket, options);
  };
  const tls = options.tls ?? null;
  const secure = tls === null ? null : createTlsServer({ cert: tls.certPem, key: tls.keyPem, ALPNProtocols: ["h2", "http/1.1"] }, accept);
  const server: Server = secure ?? createServer(accept);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(options.port, options.host, resolve);
  try {
    await promise;
  } catch (error) {
    throw listenError(options, error);
  }
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : options.port;
  return {
    port,
    reloadTls: ({ certPem, keyPem }) => secure?.setSecureContext({ cert: certPem, key: keyPem }),
    close: () => new Promise((done) => {
      server.close(() => done());
      for (const socket of open) socket.destroy();
    }),
  };
}
