/** Settings of the broker role, with the peer's defaults. */
import type { TlsFiles } from "../http/credentials.ts";

export interface BrokerConfig {
  readonly listenHost: string;
  /** 0 for any free port. */
  readonly listenPort: number;
  /** Queue length of a subscriber to one timeline. */
  readonly timelineQueueLength: number;
  /** Queue length of a subscriber to everything. */
  readonly allKeysQueueLength: number;
  readonly http2KeepaliveIntervalMs: number;
  /** How long a ping may go unanswered; 20 s, as the peer's library has it, unless given. */
  readonly http2KeepaliveTimeoutMs?: number;
  /** How long a connection may take to say what it speaks; 10 s unless given. */
  readonly prefaceTimeoutMs?: number;
  /** PEM file or directory of Ed25519 public keys; null leaves the broker open, as the peer's is. */
  readonly authPublicKeyPath: string | null;
  /** For `httpsAddress`; without one, for the main port. */
  readonly tls: TlsFiles | null;
  /** A second port, with TLS. */
  readonly httpsAddress?: { readonly host: string; readonly port: number } | null;
}

export const BROKER_DEFAULTS: BrokerConfig = {
  listenHost: "127.0.0.1",
  listenPort: 50051,
  timelineQueueLength: 32,
  allKeysQueueLength: 16_384,
  http2KeepaliveIntervalMs: 5000,
  authPublicKeyPath: null,
  tls: null,
};
