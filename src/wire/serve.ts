/**
 * One PostgreSQL-protocol connection, served: handshake, then queries one after the other until the peer leaves.
 * Reading pulls and nothing is read ahead of the handler, so a slow handler is felt by the client.
 *
 *   network.listen(address, (connection) => void servePg(connection, handler, { auth, platform, log }));
 *
 * Source: PostgreSQL manual, "Message Flow"; src/backend/tcop/postgres.c (PostgresMain).
 */
import { Cancelled, InvariantError, StrataError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Connection, TlsServerOptions } from "../platform/network.ts";
import type { Timer } from "../platform/clock.ts";
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
  /** A client of whom nothing has come for so long, while something was waited for, is gone; no limit unless given. */
  readonly silenceTimeoutMs?: number;
  /** Shared by all connections of a listener: what a CancelRequest can end. Without it such requests come to nothing. */
  readonly cancelKeys?: CancelKeys;
  /** ParameterStatus messages beside or instead of the usual ones. */
  readonly parameterStatus?: Readonly<Record<string, string>>;
}

const STARTUP_TIMEOUT_MS = 60_000;
/** How long a connection we ended may stay half open before it is dropped. */
const LINGER_MS = 2_000;
/** How long a session may take to end when the server stops: its client may take nothing of what it is sent. */
const STOP_GRACE_MS = 3_000;
/** How often in its time a silence is looked for. */
const SILENCE_LOOKS = 4;

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
  const stop = stopOn(options, () => channel);
  try {
    const opened = await startup(channel, options, (next) => (channel = next));
    if (opened !== null) await runSession({ channel, handler, options, log, ...opened });
  } catch (error) {
    refuse({ channel, error, log: log.child({ ...handler.logFields }) });
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
  const stopWatching = watchSilence(channel, options);
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
    stopWatching();
    options.cancelKeys?.forget(key);
    options.signal?.removeEventListener("abort", abort);
    server.abort();
    handler.disconnected(server);
  }
}

/** Wakes whatever read the connection waits in when the server stops; who waits to be rid of what it sends is cut off. Returns the undo. */
function stopOn({ signal, platform }: ServePgOptions, channel: () => Channel): () => void {
  if (signal === undefined) return () => {};
  let timer: Timer | null = null;
  const wake = (): void => {
    channel().reader.interrupt("the server is stopping");
    timer = platform.clock.after(STOP_GRACE_MS, () => channel().connection.destroy());
  };
  if (signal.aborted) wake();
  signal.addEventListener("abort", wake, { once: true });
  return () => {
    signal.removeEventListener("abort", wake);
    timer?.cancel();
  };
}

/** A peer that vanished without a word is not told by its connection for a quarter of an hour or more. Returns the undo. */
function watchSilence({ reader }: Channel, { silenceTimeoutMs, platform }: ServePgOptions): () => void {
  if (silenceTimeoutMs === undefined) return () => {};
  let seen = reader.arrivals;
  let silentLooks = 0;
  const look = (): void => {
    // What comes while nobody reads is not seen here: that is no silence.
    silentLooks = reader.isWaiting && reader.arrivals === seen ? silentLooks + 1 : 0;
    seen = reader.arrivals;
    if (silentLooks >= SILENCE_LOOKS) reader.fail(new StrataError("unavailable", "peer-silent", `nothing came for ${silenceTimeoutMs} ms`));
    else timer = platform.clock.after(silenceTimeoutMs / SILENCE_LOOKS, look);
  };
  let timer = platform.clock.after(silenceTimeoutMs / SILENCE_LOOKS, look);
  return () => timer.cancel();
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
