/** How this safekeeper's connections to other safekeepers are secured. */
import { type PgTls, pgTls, type SslMode } from "../../wire/client-tls.ts";

export interface PeerSecurity {
  /** HTTP over TLS, to peers that have told an address for it. */
  readonly useHttps: boolean;
  /** Certificate authorities to trust instead of the system's, in PEM. */
  readonly caPem: string | undefined;
  /** Of libpq; undefined for plain text. */
  readonly tls: PgTls | undefined;
}

export const PLAIN_PEERS: PeerSecurity = { useHttps: false, caPem: undefined, tls: undefined };

export function peerSecurity(options: { readonly useHttps: boolean; readonly sslMode: SslMode; readonly caPem: string | undefined }): PeerSecurity {
  const { useHttps, sslMode, caPem } = options;
  return { useHttps, caPem, tls: pgTls(sslMode, caPem) };
}
