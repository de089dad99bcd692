/** Puts an HTTP application on a port. */
import { type HttpServer, serveFetch } from "../platform/real/http-server.ts";
import type { HttpApp } from "./app.ts";

export interface ServeHttpOptions {
  readonly host: string;
  /** 0: any free port; the result says which. */
  readonly port: number;
  readonly tls?: { readonly certPem: string; readonly keyPem: string };
}

/** @throws StrataError conflict `port-in-use` */
export function serveHttp(app: HttpApp, options: ServeHttpOptions): HttpServer {
  return serveFetch({ ...options, fetch: (request) => app.fetch(request) });
}
