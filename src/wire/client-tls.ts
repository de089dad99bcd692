/**
 * How a client of the libpq protocol secures its connections. The modes are those of libpq's sslmode that leave no doubt about
 * what one gets: none that falls back to plain text by itself.
 *
 * | mode          | encrypted | the server is who it says |
 * | ------------- | --------- | ------------------------- |
 * | `disable`     | no        | –                         |
 * | `require`     | yes       | not checked               |
 * | `verify-full` | yes       | certificate by a trusted authority, in the name connected to |
 *
 * Source: PostgreSQL manual, "SSL Support" of libpq; "SSL Session Encryption" of the protocol.
 */
import { StrataError } from "../kit/errors.ts";
import type { Connection, Network } from "../platform/network.ts";
import { SSL_REQUEST_CODE } from "./protocol.ts";
import { PgMessageWriter } from "./message-writer.ts";

export const SSL_MODES = ["disable", "require", "verify-full"] as const;
export type SslMode = (typeof SSL_MODES)[number];

export interface PgTls {
  readonly verify: boolean;
  /** Certificate authorities to trust instead of the system's. */
  readonly caPem?: string | undefined;
}

const AGREED = 0x53; // S

/** Undefined for plain text. */
export function pgTls(mode: SslMode, caPem: string | undefined): PgTls | undefined {
  return mode === "disable" ? undefined : { verify: mode === "verify-full", caPem };
}

/**
 * Asks for TLS and changes over to it, or fails: a server that has none is not spoken to.
 * @throws StrataError unavailable `tls-refused`, `tls-handshake-failed`, `connection-lost`; fix-input `data-before-tls`
 */
export async function startTls(network: Network, connection: Connection, options: PgTls & { readonly serverName: string }): Promise<Connection> {
  const writer = new PgMessageWriter(connection);
  writer.beginUntagged().u32(SSL_REQUEST_CODE).finish();
  writer.flush();
  const answer = await connection.read();
  if (answer === null) throw new StrataError("unavailable", "connection-lost", `${connection.remote} closed the connection when asked for TLS`);
  if (answer[0] !== AGREED) throw new StrataError("unavailable", "tls-refused", `${connection.remote} does not offer TLS, and without it nothing is said to it`);
  // Somebody in between could have put bytes there, to be taken for the server's.
  if (answer.length > 1) throw new StrataError("fix-input", "data-before-tls", `${connection.remote} sent data before the TLS handshake`);
  return await network.upgradeToTlsClient(connection, options);
}
