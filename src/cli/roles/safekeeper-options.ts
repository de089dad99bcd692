/** The safekeeper's command line: the peer's flags. */
import { parseDuration } from "../../kit/humantime.ts";
import { type Environment, parseRemoteStorageText } from "../../remote-storage/parse-config.ts";
import { SAFEKEEPER_DEFAULTS as DEFAULTS, type SafekeeperConfig } from "../../safekeeper/config.ts";
import { ignoredOptions, option, type OptionValues, parseBoolean, toggle } from "../options/option-table.ts";
import { hostPort, integer, oneOf, optionalPath, text } from "../options/parsers.ts";
import { SSL_MODES } from "../../wire/client-tls.ts";
import { COMMON_OPTIONS } from "./common-options.ts";
import { TLS_OPTIONS, tlsFiles } from "./tls-options.ts";

const BYTES_MAX = Number.MAX_SAFE_INTEGER;

export const SAFEKEEPER_OPTIONS = {
  ...COMMON_OPTIONS,
  datadir: option({ flag: "-D, --datadir <path>", help: "directory of WAL and control files", parse: text, default: DEFAULTS.dataDirectory }),
  init: toggle("--init", "make the directory with its node id, and end"),
  dumpControlFile: option({ flag: "--dump-control-file <path>", help: "print a timeline's control file as JSON, and end", parse: text, default: null }),
  id: option({ flag: "--id <number>", help: "node id; the directory remembers it", parse: integer(0, BYTES_MAX), default: null }),
  listenPg: option({ flag: "-l, --listen-pg <host:port>", help: "where WAL is received and sent", parse: hostPort, default: DEFAULTS.pgAddress }),
  listenPgTenantOnly: option({ flag: "--listen-pg-tenant-only <host:port>", help: "the same, for tokens of scope tenant only", parse: hostPort, default: null }),
  listenHttp: option({ flag: "--listen-http <host:port>", help: "management and metrics", parse: hostPort, default: DEFAULTS.httpAddress }),
  listenHttps: option({ flag: "--listen-https <host:port>", help: "management and metrics over TLS", parse: hostPort, default: null }),
  ...TLS_OPTIONS,
  enableTlsWalServiceApi: toggle("--enable-tls-wal-service-api", "give TLS to clients of --listen-pg that ask for it"),
  advertisePg: option({ flag: "--advertise-pg <host:port>", help: "address told to others, if not the one listened on", parse: text, default: null }),
  availabilityZone: option({ flag: "--availability-zone <name>", help: "told to pageservers, which prefer their own", parse: text, default: null }),
  noSync: toggle("-n, --no-sync", "do not wait for the disk: unsafe, for tests"),
  brokerEndpoint: option({ flag: "--broker-endpoint <url>", help: "http[s]://host:port of the broker; empty for none", parse: optionalPath, default: DEFAULTS.brokerEndpoint }),
  brokerKeepaliveInterval: option({ flag: "--broker-keepalive-interval <duration>", help: "between HTTP/2 pings to the broker", parse: parseDuration, default: DEFAULTS.brokerKeepaliveIntervalMs }),
  disablePeriodicBrokerPush: toggle("--disable-periodic-broker-push", "tell the broker nothing by itself: for tests"),
  heartbeatTimeout: option({ flag: "--heartbeat-timeout <duration>", help: "silence after which a peer is taken for dead", parse: parseDuration, default: DEFAULTS.heartbeatTimeoutMs }),
  peerRecovery: option({ flag: "--peer-recovery <boolean>", help: "fetch missing WAL from peers", parse: parseBoolean, default: DEFAULTS.peerRecovery }),
  remoteStorage: option({ flag: "--remote-storage <toml>", help: `where WAL is backed up: { local_path = "…" }, { bucket_name = "…", bucket_region = "…" } or { container_name = "…" }; secrets come from the environment`, parse: text, default: null }),
  disableWalBackup: toggle("--disable-wal-backup", "remove WAL without waiting for its backup"),
  maxOffloaderLag: option({ flag: "--max-offloader-lag <bytes>", help: "a safekeeper further behind does not upload", parse: integer(0, BYTES_MAX), default: DEFAULTS.maxOffloaderLagBytes }),
  walBackupParallelJobs: option({ flag: "--wal-backup-parallel-jobs <count>", help: "segments uploaded at once", parse: integer(1, 1000), default: DEFAULTS.walBackupParallelJobs }),
  partialBackupTimeout: option({ flag: "--partial-backup-timeout <duration>", help: "until an unfinished segment is uploaded", parse: parseDuration, default: DEFAULTS.partialBackupTimeoutMs }),
  partialBackupConcurrency: option({ flag: "--partial-backup-concurrency <count>", help: "unfinished segments uploaded at once", parse: integer(1, 1000), default: DEFAULTS.partialBackupConcurrency }),
  controlFileSaveInterval: option({ flag: "--control-file-save-interval <duration>", help: "between saves of pending control file changes", parse: parseDuration, default: DEFAULTS.controlFileSaveIntervalMs }),
  walsendersKeepHorizon: toggle("--walsenders-keep-horizon", "keep WAL that a connected reader still needs"),
  maxTimelineDiskUsage: option({ flag: "--max-timeline-disk-usage-bytes <bytes>", help: "WAL of one timeline; 0 for no limit", parse: integer(0, BYTES_MAX), default: DEFAULTS.maxTimelineDiskUsageBytes }),
  pgAuthPublicKeyPath: option({ flag: "--pg-auth-public-key-path <path>", help: "keys that tokens on --listen-pg must verify with", parse: optionalPath, default: null }),
  pgTenantOnlyAuthPublicKeyPath: option({ flag: "--pg-tenant-only-auth-public-key-path <path>", help: "the same for --listen-pg-tenant-only", parse: optionalPath, default: null }),
  httpAuthPublicKeyPath: option({ flag: "--http-auth-public-key-path <path>", help: "the same for --listen-http", parse: optionalPath, default: null }),
  authTokenPath: option({ flag: "--auth-token-path <path>", help: "file of the token shown to other nodes", parse: optionalPath, default: null }),
  ...ignoredOptions([
    "--max-reelect-offloader-lag-bytes <bytes>", "--current-thread-runtime", "--enable-offload", "--delete-offloaded-wal", "--eviction-min-resident <duration>", "--wal-reader-fanout",
    "--max-delta-for-fanout <bytes>", "--force-metric-collection-on-scrape [boolean]", "--dev", "--enable-pull-timeline-on-startup", "--hcc-base-url <url>",
    "--global-disk-check-interval <duration>", "--max-global-disk-usage-ratio <ratio>",
  ]),
  testingMode: toggle("--testing-mode", "let failpoints be set over HTTP"),
  useHttpsSafekeeperApi: toggle("--use-https-safekeeper-api", "ask other safekeepers over HTTPS"),
  sslMode: option({ flag: "--ssl-mode <mode>", help: "of libpq connections to other safekeepers: disable, require (encrypted, to whoever answers) or verify-full", parse: oneOf(...SSL_MODES), default: "disable" as const }),
  sslCaFile: option({ flag: "--ssl-ca-file <path>", help: "certificate authority to trust", parse: optionalPath, default: null }),
};

/** @param environment secrets of the remote storage. @throws StrataError fix-input `bad-remote-storage` */
export function safekeeperConfig(values: OptionValues<typeof SAFEKEEPER_OPTIONS>, environment: Environment): SafekeeperConfig {
  return {
    dataDirectory: values.datadir,
    nodeId: values.id,
    pgAddress: values.listenPg,
    pgTenantOnlyAddress: values.listenPgTenantOnly,
    httpAddress: values.listenHttp,
    httpsAddress: values.listenHttps,
    tls: tlsFiles(values, values.datadir),
    tlsWalService: values.enableTlsWalServiceApi,
    advertisePg: values.advertisePg,
    availabilityZone: values.availabilityZone,
    noSync: values.noSync,
    brokerEndpoint: values.brokerEndpoint,
    brokerKeepaliveIntervalMs: values.brokerKeepaliveInterval,
    disablePeriodicBrokerPush: values.disablePeriodicBrokerPush,
    heartbeatTimeoutMs: values.heartbeatTimeout,
    peerRecovery: values.peerRecovery,
    remoteStorage: values.remoteStorage === null ? null : parseRemoteStorageText(values.remoteStorage, environment),
    disableWalBackup: values.disableWalBackup,
    maxOffloaderLagBytes: values.maxOffloaderLag,
    walBackupParallelJobs: values.walBackupParallelJobs,
    partialBackupTimeoutMs: values.partialBackupTimeout,
    partialBackupConcurrency: values.partialBackupConcurrency,
    controlFileSaveIntervalMs: values.controlFileSaveInterval,
    walSendersKeepHorizon: values.walsendersKeepHorizon,
    maxTimelineDiskUsageBytes: values.maxTimelineDiskUsage,
    pgAuthPublicKeyPath: values.pgAuthPublicKeyPath,
    pgTenantOnlyAuthPublicKeyPath: values.pgTenantOnlyAuthPublicKeyPath,
    httpAuthPublicKeyPath: values.httpAuthPublicKeyPath,
    authTokenPath: values.authTokenPath,
    sslCaFile: values.sslCaFile,
    sslMode: values.sslMode,
    testingMode: values.testingMode,
    useHttpsSafekeeperApi: values.useHttpsSafekeeperApi,
  };
}
