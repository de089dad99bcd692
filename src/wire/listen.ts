/**
 * A role's libpq port: accepts connections, serves each with the role's handler, routes cancel requests among them, and on close
 * ends every session and waits for it.
 */
import type { Logger } from "../observability/log.ts";
import type { Listener, TlsServerOptions } from "../platform/network.ts";
import type { Platform } from "../platform/platform.ts";
import { CancelKeys } from "./cancel-keys.ts";
import type { PgHandler } from "./pg-session.ts";
import { servePg } from "./serve.ts";
import type { PgAuthenticator } from "./startup.ts";

export interface ListenPgOptions {
  readonly address: { readonly host: string; readonly port: number };
  readonly platform: Pick<Platform, "clock" | "random" | "network">;
  readonly log: Logger;
  readonly auth: PgAuthenticator | null;
  /** The certificate of this moment, for clients that ask for TLS; null: they are told no. */
  readonly tls: (() => TlsServerOptions) | null;
  /** See ServePgOptions. */
  readonly silenceTimeoutMs?: number | undefined;
  /** Called for each connection. */
  readonly session: () => { readonly handler: PgHandler; readonly parameterStatus?: Readonly<Record<string, string>> };
}

/** @throws StrataError conflict `port-in-use` */
export async function listenPg(options: ListenPgOptions): Promise<Listener> {
  const { platform, log, auth, tls, silenceTimeoutMs } = options;
  const stop = new AbortController();
  const serving = new Set<Promise<void>>();
  const cancelKeys = new CancelKeys();
  const listener = await platform.network.listen(options.address, (connection) => {
    const { handler, parameterStatus } = options.session();
    const served = servePg(connection, handler, {
      auth, log, platform, cancelKeys, signal: stop.signal, ...(silenceTimeoutMs === undefined ? {} : { silenceTimeoutMs }), ...(tls === null ? {} : { tls: tls() }), ...(parameterStatus === undefined ? {} : { parameterStatus }),
    });
    serving.add(served);
    void served.finally(() => serving.delete(served));
  });
  return {
    port: listener.port,
    close: async () => {
      await listener.close();
      stop.abort();
      await Promise.all(serving);
    },
  };
}
