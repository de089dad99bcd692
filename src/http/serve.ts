/** Puts an HTTP application on a port. */
import { type HttpServer, serveFetch } from "../platform/real/http-server.ts";
import type { HttpApp } from "./app.ts";
import type { Certificate } from "./certificate.ts";

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

interface Address {
  readonly host: string;
  readonly port: number;
}

/**
 * One application on a plain port and, with a certificate and an address, on one with TLS.
 * @throws StrataError conflict `port-in-use`
 */
export function serveHttpAndHttps(app: HttpApp, on: { readonly http: Address; readonly https: Address | null; readonly certificate: Certificate | null }): { readonly port: number; readonly httpsPort: number | null; stop(): Promise<void> } {
  const http = serveHttp(app, on.http);
  if (on.https === null || on.certificate === null) return { port: http.port, httpsPort: null, stop: () => http.stop() };
  try {
    const https = serveHttps(app, { ...on.https, certificate: on.certificate });
    return { port: http.port, httpsPort: https.port, stop: async () => void (await Promise.all([http.stop(), https.stop()])) };
  } catch (error) {
    void http.stop();
    throw error;
  }
}

/** The same over TLS, with whatever the certificate is at the time. @throws StrataError conflict `port-in-use` */
export function serveHttps(app: HttpApp, options: Omit<ServeHttpOptions, "tls"> & { readonly certificate: Certificate }): HttpServer {
  const { host, port, certificate } = options;
  const server = serveHttp(app, { host, port, tls: certificate.current });
  certificate.onChange((tls) => server.reloadTls(tls));
  return server;
}
