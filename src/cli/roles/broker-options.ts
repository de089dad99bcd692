/** The broker's command line: the peer's storage_broker flags, and ours for TLS and authentication. */
import { BROKER_DEFAULTS, type BrokerConfig } from "../../broker/config.ts";
import { StrataError } from "../../kit/errors.ts";
import { parseDuration } from "../../kit/humantime.ts";
import { option, type OptionValues } from "../options/option-table.ts";
import { hostPort, integer, optionalPath } from "../options/parsers.ts";
import { COMMON_OPTIONS } from "./common-options.ts";
import { TLS_OPTIONS } from "./tls-options.ts";

export const BROKER_OPTIONS = {
  ...COMMON_OPTIONS,
  listenAddr: option({ flag: "-l, --listen-addr <host:port>", help: "where to listen for gRPC and HTTP", parse: hostPort, default: { host: BROKER_DEFAULTS.listenHost, port: BROKER_DEFAULTS.listenPort } }),
  timelineChanSize: option({ flag: "--timeline-chan-size <count>", help: "queue length of a subscriber to one timeline", parse: integer(1, 1_000_000), default: BROKER_DEFAULTS.timelineQueueLength }),
  allKeysChanSize: option({ flag: "--all-keys-chan-size <count>", help: "queue length of a subscriber to everything", parse: integer(1, 1_000_000), default: BROKER_DEFAULTS.allKeysQueueLength }),
  http2KeepaliveInterval: option({ flag: "--http2-keepalive-interval <duration>", help: "between HTTP/2 pings", parse: parseDuration, default: BROKER_DEFAULTS.http2KeepaliveIntervalMs }),
  authPublicKeyPath: option({ flag: "--auth-public-key-path <path>", help: "PEM file or directory of Ed25519 public keys; tokens are required with it", parse: optionalPath, default: null }),
  listenHttpsAddr: option({ flag: "--listen-https-addr <host:port>", help: "where to listen with TLS as well", parse: hostPort, default: null }),
  sslCertFile: option({ flag: "--ssl-cert-file <path>", help: "certificate, for TLS: on --listen-https-addr, or without one on --listen-addr", parse: optionalPath, default: null }),
  sslKeyFile: option({ flag: "--ssl-key-file <path>", help: "its private key", parse: optionalPath, default: null }),
  sslCertReloadPeriod: TLS_OPTIONS.sslCertReloadPeriod,
};

export function brokerConfig(values: OptionValues<typeof BROKER_OPTIONS>): BrokerConfig {
  const { sslCertFile, sslKeyFile } = values;
  if ((sslCertFile === null) !== (sslKeyFile === null)) throw new StrataError("fix-input", "usage", "--ssl-cert-file and --ssl-key-file go together");
  return {
    listenHost: values.listenAddr.host,
    listenPort: values.listenAddr.port,
    timelineQueueLength: values.timelineChanSize,
    allKeysQueueLength: values.allKeysChanSize,
    http2KeepaliveIntervalMs: values.http2KeepaliveInterval,
    authPublicKeyPath: values.authPublicKeyPath,
    httpsAddress: values.listenHttpsAddr,
    tls: sslCertFile === null || sslKeyFile === null ? null : { certPath: sslCertFile, keyPath: sslKeyFile, reloadPeriodMs: values.sslCertReloadPeriod },
  };
}
