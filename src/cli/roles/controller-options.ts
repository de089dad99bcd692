/** The controller's command line: the peer's storage_controller flags where both have them. */
import { CONTROLLER_DEFAULTS, type ControllerConfig } from "../../controller/config.ts";
import { parseDuration } from "../../kit/humantime.ts";
import { ignoredOptions, option, type OptionValues, toggle } from "../options/option-table.ts";
import { hostPort, optionalPath, pgMajor, text } from "../options/parsers.ts";
import { COMMON_OPTIONS } from "./common-options.ts";
import { TLS_OPTIONS, tlsFiles } from "./tls-options.ts";

export const CONTROLLER_OPTIONS = {
  ...COMMON_OPTIONS,
  listen: option({ flag: "-l, --listen <host:port>", help: "where to listen for HTTP", parse: hostPort, default: { host: CONTROLLER_DEFAULTS.listenHost, port: CONTROLLER_DEFAULTS.listenPort } }),
  listenHttps: option({ flag: "--listen-https <host:port>", help: "where to listen for HTTP over TLS as well", parse: hostPort, default: null }),
  ...TLS_OPTIONS,
  databaseUrl: option({ flag: "--database-url <url>", help: "postgres:// URL; a private PostgreSQL is started without it", parse: text, default: null }),
  datadir: option({ flag: "-D, --datadir <path>", help: "directory of the private PostgreSQL", parse: text, default: "./controller" }),
  pgVersion: option({ flag: "--pg-version <major>", help: "of the private PostgreSQL", parse: pgMajor, default: 17 as const }),
  pgBinDir: option({ flag: "--pg-bin-dir <path>", help: "PostgreSQL's binaries, if not those of the npm package", parse: optionalPath, default: null }),
  pgUser: option({ flag: "--pg-user <name>", help: "user PostgreSQL runs as when we are root", parse: text, default: null }),
  publicKey: option({ flag: "--public-key <pem>", help: "Ed25519 public key in PEM; tokens are required with it", parse: text, default: null }),
  ...ignoredOptions([
    "--safekeeper-jwt-token <token>", "--control-plane-jwt-token <token>", "--peer-jwt-token <token>", "--control-plane-url <url>", "--dev", "--max-warming-up-interval <duration>",
    "--split-threshold <bytes>", "--max-split-shards <count>", "--initial-split-threshold <bytes>", "--initial-split-shards <count>", "--reconciler-concurrency <count>",
    "--priority-reconciler-concurrency <count>", "--safekeeper-reconciler-concurrency <count>", "--tenant-rate-limit <count>", "--db-connect-timeout <duration>", "--start-as-candidate",
    "--address-for-peers <url>", "--neon-local-repo-dir <path>", "--chaos-interval <duration>", "--chaos-exit-crontab <crontab>", "--max-secondary-lag-bytes <bytes>",
    "--long-reconcile-threshold <duration>", "--timelines-onto-safekeepers", "--use-https-safekeeper-api",
    "--use-local-compute-notifications", "--timeline-safekeeper-count <count>", "--kick-secondary-downloads", "--shard-split-request-timeout <duration>", "--handle-ps-local-disk-loss",
  ]),
  publicKeyPath: option({ flag: "--auth-public-key-path <path>", help: "PEM file or directory of Ed25519 public keys; tokens are required with it", parse: optionalPath, default: null }),
  useHttpsPageserverApi: toggle("--use-https-pageserver-api", "ask pageservers over HTTPS"),
  sslCaFile: option({ flag: "--ssl-ca-file <path>", help: "certificate authorities to trust instead of the system's", parse: optionalPath, default: null }),
  jwtToken: option({ flag: "--jwt-token <token>", help: "shown to pageservers", parse: text, default: null }),
  heartbeatInterval: option({ flag: "--heartbeat-interval <duration>", help: "between looks at the pageservers", parse: parseDuration, default: CONTROLLER_DEFAULTS.heartbeatIntervalMs }),
  maxOfflineInterval: option({ flag: "--max-offline-interval <duration>", help: "silence after which a pageserver is offline", parse: parseDuration, default: CONTROLLER_DEFAULTS.offlineAfterMs }),
};

export function controllerConfig(values: OptionValues<typeof CONTROLLER_OPTIONS>): ControllerConfig {
  return {
    listenHost: values.listen.host,
    listenPort: values.listen.port,
    httpsAddress: values.listenHttps,
    tls: tlsFiles(values),
    databaseUrl: values.databaseUrl,
    dataDirectory: values.datadir,
    pgMajor: values.pgVersion,
    pgBinDirectory: values.pgBinDir,
    pgUser: values.pgUser,
    publicKeyPem: values.publicKey,
    authPublicKeyPath: values.publicKeyPath,
    useHttpsPageserverApi: values.useHttpsPageserverApi,
    sslCaFile: values.sslCaFile,
    jwtToken: values.jwtToken,
    heartbeatIntervalMs: values.heartbeatInterval,
    offlineAfterMs: values.maxOfflineInterval,
  };
}
