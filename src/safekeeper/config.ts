/**
 * Settings of a safekeeper: normalized, units in the names. The flag that sets each is the peer's, given behind it
 * (safekeeper/src/bin/safekeeper.rs); the option table that parses them is the command line's.
 */
import { StrataError } from "../kit/errors.ts";
import type { SslMode } from "../wire/client-tls.ts";
import type { TlsFiles } from "../http/credentials.ts";
import type { RemoteStorageConfig } from "../remote-storage/open-remote-storage.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionTimeouts {
  /** A connection of which nothing comes, or that takes nothing, for so long is ended. */
  readonly silenceTimeoutMs: number;
  /** A reader of WAL that says nothing for so long, though it is asked to, is gone. */
  readonly walSenderTimeoutMs: number;
}

/** The peer's, which is fixed as well (safekeeper/src/wal_service.rs), and PostgreSQL's default wal_sender_timeout. */
export const CONNECTION_TIMEOUTS: ConnectionTimeouts = { silenceTimeoutMs: 600_000, walSenderTimeoutMs: 60_000 };

export interface SafekeeperConfig {
  /** `--datadir`, `-D` */
  readonly dataDirectory: string;
  /** `--id`; null = the one the directory was initialized with */
  readonly nodeId: number | null;
  /** `--listen-pg` */
  readonly pgAddress: Address;
  /** `--listen-pg-tenant-only`: tokens of scope `tenant` only */
  readonly pgTenantOnlyAddress: Address | null;
  /** `--listen-http` */
  readonly httpAddress: Address;
  /** `--advertise-pg`, host:port; null = the address listened on */
  readonly advertisePg: string | null;
  /** `--availability-zone` */
  readonly availabilityZone: string | null;
  /** `--no-sync`: unsafe, for tests */
  readonly noSync: boolean;
  /** `--broker-endpoint`; null = no broker */
  readonly brokerEndpoint: string | null;
  /** `--broker-keepalive-interval` */
  readonly brokerKeepaliveIntervalMs: number;
  /** `--disable-periodic-broker-push` */
  readonly disablePeriodicBrokerPush: boolean;
  /** `--testing-mode`: failpoints may be set over HTTP */
  readonly testingMode?: boolean;
  /** Others than `CONNECTION_TIMEOUTS`: for tests. */
  readonly connectionTimeouts?: ConnectionTimeouts;
  /** `--heartbeat-timeout`: a peer silent for longer is taken for dead */
  readonly heartbeatTimeoutMs: number;
  /** `--peer-recovery` */
  readonly peerRecovery: boolean;
  /** `--remote-storage`: where WAL is backed up; null = nowhere */
  readonly remoteStorage: RemoteStorageConfig | null;
  /** `--disable-wal-backup`: WAL is removed without waiting for its backup */
  readonly disableWalBackup: boolean;
  /** `--max-offloader-lag` */
  readonly maxOffloaderLagBytes: number;
  /** `--wal-backup-parallel-jobs` */
  readonly walBackupParallelJobs: number;
  /** `--partial-backup-timeout` */
  readonly partialBackupTimeoutMs: number;
  /** `--partial-backup-concurrency` */
  readonly partialBackupConcurrency: number;
  /** `--control-file-save-interval` */
  readonly controlFileSaveIntervalMs: number;
  /** `--walsenders-keep-horizon`: WAL that a connected reader still needs is not removed */
  readonly walSendersKeepHorizon: boolean;
  /** `--max-timeline-disk-usage-bytes`; 0 = no limit */
  readonly maxTimelineDiskUsageBytes: number;
  /** `--pg-auth-public-key-path` */
  readonly pgAuthPublicKeyPath: string | null;
  /** `--pg-tenant-only-auth-public-key-path` */
  readonly pgTenantOnlyAuthPublicKeyPath: string | null;
  /** `--http-auth-public-key-path` */
  readonly httpAuthPublicKeyPath: string | null;
  /** `--auth-token-path`: token shown to other safekeepers and the broker */
  readonly authTokenPath: string | null;
  /** `--listen-https`: the same as `--listen-http`, over TLS */
  readonly httpsAddress?: Address | null;
  /** `--ssl-cert-file`, `--ssl-key-file`, `--ssl-cert-reload-period`; needed for the two that use TLS */
  readonly tls?: TlsFiles | null;
  /** `--enable-tls-wal-service-api`: clients of --listen-pg that ask for TLS get it */
  readonly tlsWalService?: boolean;
  /** `--ssl-ca-file` */
  readonly sslCaFile: string | null;
  /** `--ssl-mode`: of libpq connections to other safekeepers */
  readonly sslMode?: SslMode;
  /** `--use-https-safekeeper-api`: other safekeepers are asked over HTTPS */
  readonly useHttpsSafekeeperApi?: boolean;
}

export const SAFEKEEPER_DEFAULTS: SafekeeperConfig = {
  dataDirectory: "./",
  nodeId: null,
  pgAddress: { host: "127.0.0.1", port: 5454 },
  pgTenantOnlyAddress: null,
  httpAddress: { host: "127.0.0.1", port: 7676 },
  advertisePg: null,
  availabilityZone: null,
  noSync: false,
  brokerEndpoint: "http://127.0.0.1:50051",
  brokerKeepaliveIntervalMs: 5000,
  disablePeriodicBrokerPush: false,
  heartbeatTimeoutMs: 5000,
  peerRecovery: false,
  remoteStorage: null,
  disableWalBackup: false,
  maxOffloaderLagBytes: 128 * 1024 * 1024,
  walBackupParallelJobs: 5,
  partialBackupTimeoutMs: 15 * 60_000,
  partialBackupConcurrency: 5,
  controlFileSaveIntervalMs: 300_000,
  walSendersKeepHorizon: false,
  maxTimelineDiskUsageBytes: 0,
  pgAuthPublicKeyPath: null,
  pgTenantOnlyAuthPublicKeyPath: null,
  httpAuthPublicKeyPath: null,
  authTokenPath: null,
  sslCaFile: null,
};

/** Bounds of the queue between a proposer's connection and the acceptor. */
export const RECEIVE_QUEUE_MESSAGES = 1024;
export const RECEIVE_QUEUE_BYTES = 16 * 1024 * 1024;

/** Parses `host:port`. @throws StrataError fix-input `bad-address` */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = match === null ? Number.NaN : Number(match[3]);
  if (match === null || port > 65535) throw new StrataError("fix-input", "bad-address", `"${text}" is not an address of the form host:port`);
  return { host: match[1] ?? match[2] ?? "", port };
}
