/**
 * The server's half of the handshake: encryption requests, the start-up packet, the password. Everything in here comes
 * from a stranger, so sizes are small and nothing is trusted.
 *
 * Source: PostgreSQL src/backend/tcop/backend_startup.c (ProcessStartupPacket).
 */
import { ByteReader, utf8ToString } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Connection, Network, TlsServerOptions } from "../platform/network.ts";
import { writeAuthenticationOk, writeCleartextRequest, writeNegotiate } from "./backend-messages.ts";
import type { BackendKey } from "./cancel-keys.ts";
import { PgFrameReader } from "./frame-reader.ts";
import { PgFramer } from "./framer.ts";
import { PgMessageWriter } from "./message-writer.ts";
import { CANCEL_REQUEST_CODE, GSSENC_REQUEST_CODE, PROTOCOL_MAJOR, SSL_REQUEST_CODE, STARTUP_MAX_BYTES, TAG, tagName } from "./protocol.ts";

/** An encryption request may come once of each kind; more is a client gone mad. */
const MAX_ENCRYPTION_REQUESTS = 2;
const PASSWORD_MAX_BYTES = 64 * 1024;
const OPTION_PREFIX = "_pq_.";
const YES = Uint8Array.of(0x53);
const NO = Uint8Array.of(0x4e);

export interface PgAuthenticator {
  /** Decides on a cleartext password (a JWT). Throw StrataError unauthenticated or forbidden to refuse. */
  authenticate(attempt: { readonly parameters: ReadonlyMap<string, string>; readonly password: string; readonly remote: string }): Promise<void>;
}

export interface Channel {
  readonly connection: Connection;
  readonly reader: PgFrameReader;
  readonly writer: PgMessageWriter;
}

/** What a connection begins with: a session's parameters, or the key of a session whose query is to end. */
export type Startup = { readonly kind: "session"; readonly packet: StartupPacket } | { readonly kind: "cancel"; readonly key: BackendKey };

export interface StartupPacket {
  readonly parameters: ReadonlyMap<string, string>;
  /** Options beginning with `_pq_.`, none of which we know. */
  readonly unknownOptions: readonly string[];
  readonly minorVersion: number;
}

export function openChannel(connection: Connection): Channel {
  const framer = new PgFramer({ tagged: false, maxBytes: STARTUP_MAX_BYTES });
  return { connection, reader: new PgFrameReader(connection, framer), writer: new PgMessageWriter(connection) };
}

/**
 * Reads up to the start-up packet, turning the channel into a TLS one on request.
 * Returns null when the peer left before it said anything.
 * @throws StrataError fix-input `protocol-violation`, `not-supported` for another major version
 */
export async function receiveStartup(
  first: Channel,
  tls: { network: Network; options: TlsServerOptions } | null,
  onChannel: (channel: Channel) => void,
): Promise<Startup | null> {
  let channel = first;
  for (let requests = 0; ; requests++) {
    const frame = await channel.reader.next();
    if (frame === null) return null;
    const reader = new ByteReader(frame.body, "start-up packet");
    const code = reader.u32be();
    if (code === CANCEL_REQUEST_CODE) return { kind: "cancel", key: { processId: reader.u32be(), secret: reader.u32be() } };
    if (code !== SSL_REQUEST_CODE && code !== GSSENC_REQUEST_CODE) return { kind: "session", packet: parseStartup(code, reader) };
    if (requests >= MAX_ENCRYPTION_REQUESTS) throw violation("too many encryption requests");
    const accept = code === SSL_REQUEST_CODE && tls !== null && channel === first;
    // Bytes sent ahead of the answer were not protected by TLS; taking them as if they were would let a man in the
    // middle speak first.
    if (accept && channel.reader.bufferedBytes > 0) throw violation("data received after an encryption request");
    channel.connection.write(accept ? YES : NO);
    if (accept) {
      channel = openChannel(await tls.network.upgradeToTlsServer(channel.connection, tls.options));
      onChannel(channel);
    }
  }
}

function parseStartup(code: number, reader: ByteReader): StartupPacket {
  const major = code >>> 16;
  const minorVersion = code & 0xffff;
  if (major !== PROTOCOL_MAJOR) {
    throw new StrataError("fix-input", "not-supported", `unsupported frontend protocol ${major}.${minorVersion}: this server speaks 3.0`);
  }
  const parameters = new Map<string, string>();
  const unknownOptions: string[] = [];
  for (;;) {
    const name = reader.cstring();
    if (name === "") break;
    const value = reader.cstring();
    if (name.startsWith(OPTION_PREFIX)) unknownOptions.push(name);
    else parameters.set(name, value);
  }
  if (reader.remaining > 0) throw violation("invalid start-up packet layout: bytes after the terminator");
  return { parameters, unknownOptions, minorVersion };
}

/**
 * Negotiates the minor version, authenticates, says AuthenticationOk. Returns the password, null when none was asked.
 * @throws StrataError unauthenticated
 */
export async function authenticate(channel: Channel, packet: StartupPacket, auth: PgAuthenticator | null): Promise<string | null> {
  const { reader, writer, connection } = channel;
  if (packet.minorVersion > 0 || packet.unknownOptions.length > 0) writeNegotiate(writer, packet.unknownOptions);
  reader.setMode({ tagged: true, maxBytes: PASSWORD_MAX_BYTES });
  let password: string | null = null;
  if (auth !== null) {
    writeCleartextRequest(writer);
    const frame = await reader.next();
    if (frame === null) throw new StrataError("unavailable", "connection-lost", `${connection.remote} left before sending a password`);
    if (frame.tag !== TAG.password) throw violation(`expected a password, got message "${tagName(frame.tag)}"`);
    password = cstringBody(frame.body, "password");
    await auth.authenticate({ parameters: packet.parameters, password, remote: connection.remote });
  }
  writeAuthenticationOk(writer);
  return password;
}

/** The single NUL-terminated string a message consists of. */
export function cstringBody(body: Uint8Array, what: string): string {
  const end = body.indexOf(0);
  if (end < 0 || end !== body.length - 1) throw violation(`${what} is not one NUL-terminated string`);
  return utf8ToString(body.subarray(0, end));
}

export function violation(message: string): StrataError {
  return new StrataError("fix-input", "protocol-violation", message);
}
