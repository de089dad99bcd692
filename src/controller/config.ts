/** Settings of the controller role. */
import type { TlsFiles } from "../http/credentials.ts";

export interface ControllerConfig {
  readonly listenHost: string;
  /** 0 for any free port. */
  readonly listenPort: number;
  /** postgres:// URL; null starts a private PostgreSQL in `dataDirectory`. */
  readonly databaseUrl: string | null;
  /** For the private PostgreSQL; unused with a database URL. */
  readonly dataDirectory: string;
  readonly pgMajor: number;
  readonly pgBinDirectory: string | null;
  /** User the private PostgreSQL runs as when we are root. */
  readonly pgUser: string | null;
  /** HTTP over TLS, beside the plain one; needs `tls`. */
  readonly httpsAddress?: { readonly host: string; readonly port: number } | null;
  readonly tls?: TlsFiles | null;
  /** Pageservers are asked over HTTPS. */
  readonly useHttpsPageserverApi?: boolean;
  /** Certificate authorities to trust instead of the system's. */
  readonly sslCaFile?: string | null;
  /** A key itself, in place of `authPublicKeyPath`. */
  readonly publicKeyPem?: string | null;
  readonly authPublicKeyPath: string | null;
  /** Sent to pageservers. */
  readonly jwtToken: string | null;
  readonly heartbeatIntervalMs: number;
  /** Silence after which a pageserver counts as offline. */
  readonly offlineAfterMs: number;
}

export const CONTROLLER_DEFAULTS: Omit<ControllerConfig, "dataDirectory"> = {
  listenHost: "127.0.0.1",
  listenPort: 1234,
  databaseUrl: null,
  pgMajor: 17,
  pgBinDirectory: null,
  pgUser: null,
  authPublicKeyPath: null,
  jwtToken: null,
  heartbeatIntervalMs: 5_000,
  offlineAfterMs: 30_000,
};
