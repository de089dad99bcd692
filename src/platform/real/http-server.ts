/** The HTTP listener of the real platform: Bun.serve with the defaults that bite switched off. */
import { listenError } from "./listen-error.ts";

export interface HttpServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls?: { readonly certPem: string; readonly keyPem: string };
  readonly fetch: (request: Request) => Promise<Response> | Response;
}

export interface HttpServer {
  readonly port: number;
  /** Serves new connections with another certificate; those that are open keep theirs. */
  reloadTls(tls: { readonly certPem: string; readonly keyPem: string }): Promise<void>;
  /** Stops accepting, waits for requests in flight, at most `graceMs`, then cuts off the rest. */
  stop(options?: { readonly graceMs?: number }): Promise<void>;
}

const DEFAULT_GRACE_MS = 5_000;
/** Seconds: the runtime's unit. */
const HEADERS_TIMEOUT_S = 60;

/** @throws StrataError conflict `port-in-use` */
export function serveFetch(options: HttpServerOptions): HttpServer {
  let server = start(options);
  const port = server.port as number;
  return {
    port,
    async reloadTls(tls) {
      // Reloading in place keeps the old certificate, so a second server takes over the shared port first.
      const previous = server;
      server = start({ ...options, port, tls });
      await stopWithin(previous, DEFAULT_GRACE_MS);
    },
    async stop(stopOptions = {}) {
      await stopWithin(server, stopOptions.graceMs ?? DEFAULT_GRACE_MS);
    },
  };
}

function start(options: HttpServerOptions): Bun.Server<undefined> {
  try {
    return Bun.serve({
      hostname: options.host,
      port: options.port,
      // A connection that never gets to a request is dropped. Requests are taken out of it: slow handlers would be reset.
      idleTimeout: HEADERS_TIMEOUT_S,
      // Handlers bound what they read; the default would refuse large uploads.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
      // Shared only where a certificate may be replaced: a plain port in use must be an error.
      reusePort: options.tls !== undefined,
      ...(options.tls === undefined ? {} : { tls: { cert: options.tls.certPem, key: options.tls.keyPem } }),
      fetch: (request, server) => {
        server.timeout(request, 0);
        return options.fetch(request);
      },
    });
  } catch (cause) {
    throw listenError(options, cause);
  }
}

async function stopWithin(server: Bun.Server<undefined>, graceMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const grace = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([server.stop(), grace]);
  clearTimeout(timer);
  await server.stop(true);
}
