/**
 * One PostgreSQL-protocol connection, served: handshake, then queries one after the other until the peer leaves.
 * Reading pulls and nothing is read ahead of the handler, so a slow handler is felt by the client.
 *
 *   network.listen(address, (connection) => void servePg(connection, handler, { auth, platform, log }));
 *
 * Source: PostgreSQL manual, "Message Flow"; src/backend/tcop/postgres.c (PostgresMain).
 */
import { Cancelled, InvariantError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Connection, TlsServerOptions } from "../platform/network.ts";
import type { Platform } from "../platform/platform.ts";
import { writeBackendKey, writeFields, writeParameterStatus } from "./backend-messages.ts";
import { CancelKeys } from "./cancel-keys.ts";
import type { PgHandler } from "./pg-session.ts";
import { MESSAGE_MAX_BYTES, TAG } from "./protocol.ts";
import { ServerSession } from "./server-session.ts";
import { errorFields } from "./sqlstate.ts";
import { type Channel, type PgAuthenticator, type StartupPacket, authenticate, openChannel, receiveStartup } from "./startup.ts";

export interface ServePgOptions {
  /** null: everybody is trusted. Else a cleartext password is asked for and decided on. */
  readonly auth: PgAuthenticator | null;
  /** Certificate for clients that ask for TLS; without it they are told no. */
  readonly tls?: TlsServerOptions;
  readonly log: Logger;
  readonly platform: Pick<Platform, "clock" | "random" | "network">;
  /** Aborted when the server stops: sessions are told so (57P01) and end. */
  readonly signal?: AbortSignal;
  /** Longest message after the handshake; 16 MiB unless given. */
  readonly messageMaxBytes?: number;
  /** Handshake, password included; 60 s unless given. */
  readonly startupTimeoutMs?: number;
  /** Shared by all connections of a listener: what a CancelRequest can end. Without it such requests come to nothing. */
  readonly cancelKeys?: CancelKeys;
  /** ParameterStatus messages beside or instead of the usual ones. */
  readonly parameterStatus?: Readonly<Record<string, string>>;
}

const STARTUP_TIMEOUT_MS = 60_000;
/** How long a connection we ended may stay half open before it is dropped. */
const LINGER_MS = 2_000;

const PARAMETER_STATUS: Readonly<Record<string, string>> = {
  server_version: "17.0 (Strata)",
  server_encoding: "UTF8",
  client_encoding: "UTF8",
  DateStyle: "ISO, MDY",
  integer_datetimes: "on",
  standard_conforming_strings: "on",
  TimeZone: "UTC",
};

/** Serves `connection` until it is over. Never rejects but for bugs: what goes wrong is told to the peer and logged. */
export async function servePg(connection: Connection, handler: PgHandler, options: ServePgOptions): Promise<void> {
  let channel = openChannel(connection);
  const log = options.log.child({ remote: connection.remote });
  const stop = stopOn(options.signal, () => channel);
  try {
    const opened = await startup(channel, options, (next) => (channel = next));
    if (opened !== null) await runSession({ channel, handler, options, log, ...opened });
  } catch (error) {
    refuse({ channel, error, log });
  } finally {
    stop();
    channel.writer.flush();
    closeGently(channel.connection, options.platform.clock);
  }
}

interface Opened {
  readonly packet: StartupPacket;
  readonly password: string | null;
}

/** Null when there is no session to serve. */
async function startup(first: Channel, options: ServePgOptions, onChannel: (channel: Channel) => void): Promise<Opened | null> {
  let channel = first;
  const limitMs = options.startupTimeoutMs ?? STARTUP_TIMEOUT_MS;
  const timer = options.platform.clock.after(limitMs, () => channel.reader.interrupt(`no handshake within ${limitMs} ms`));
  try {
    const tls = options.tls === undefined ? null : { network: options.platform.network, options: options.tls };
    const begun = await receiveStartup(channel, tls, (next) => onChannel((channel = next)));
    if (begun === null) return null;
    if (begun.kind === "cancel") {
      options.cancelKeys?.cancel(begun.key);
      return null;
    }
    const { packet } = begun;
    const password = await authenticate(channel, packet, options.auth);
    return { packet, password };
  } finally {
    timer.cancel();
  }
}

async function runSession(session: Opened & { channel: Channel; handler: PgHandler; options: ServePgOptions; log: Logger }): Promise<void> {
  const { channel, handler, options, packet, password, log } = session;
  channel.reader.setMode({ tagged: true, maxBytes: options.messageMaxBytes ?? MESSAGE_MAX_BYTES });
  const server = new ServerSession({ channel, handler, packet, password, log });
  const abort = (): void => server.abort();
  const key = (options.cancelKeys ?? new CancelKeys()).issue(options.platform.random, () => server.cancel());
  options.signal?.addEventListener("abort", abort, { once: true });
  void channel.connection.closed.then(abort);
  try {
    await handler.connected(server);
    for (const [name, value] of Object.entries({ ...PARAMETER_STATUS, ...options.parameterStatus })) writeParameterStatus(channel.writer, name, value);
    writeBackendKey(channel.writer, key);
    await server.run();
  } finally {
    options.cancelKeys?.forget(key);
    options.signal?.removeEventListener("abort", abort);
    server.abort();
    handler.disconnected(server);
  }
}

/** Wakes whatever read the connection waits in when the server stops. Returns the undo. */
function stopOn(signal: AbortSignal | undefined, channel: () => Channel): () => void {
  if (signal === undefined) return () => {};
  const wake = (): void => channel().reader.interrupt("the server is stopping");
  if (signal.aborted) wake();
  signal.addEventListener("abort", wake, { once: true });
  return () => signal.removeEventListener("abort", wake);
}

/** The one place where a connection's fatal error is told and logged. */
function refuse(failure: { channel: Channel; error: unknown; log: Logger }): void {
  const { channel, error, log } = failure;
  if (error instanceof InvariantError) log.error("libpq connection failed", { error });
  else if (error instanceof Cancelled) log.info("libpq connection ended", { error });
  else log.info("libpq connection refused", { error });
  channel.writer.abandonOpen();
  writeFields(channel.writer, TAG.error, errorFields(error, "FATAL"));
  channel.writer.flush();
}

function closeGently(connection: Connection, clock: Platform["clock"]): void {
  connection.end();
  const timer = clock.after(LINGER_MS, () => connection.destroy());
  void connection.closed.then(() => timer.cancel());
}
