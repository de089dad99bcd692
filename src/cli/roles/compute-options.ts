/** The compute's command line. */
import type { ComputeConfig } from "../../compute/config.ts";
import { parseTenantId, parseTimelineId } from "../../kit/ids.ts";
import { parseDuration } from "../../kit/humantime.ts";
import { option, type OptionValues, repeatable, required } from "../options/option-table.ts";
import { hostPort, oneOf, optionalPath, pgMajor, setting, sizeLimit, text } from "../options/parsers.ts";
import { SSL_MODES } from "../../wire/client-tls.ts";
import { COMMON_OPTIONS } from "./common-options.ts";

const MB = 1024 ** 2;

export const COMPUTE_OPTIONS = {
  ...COMMON_OPTIONS,
  datadir: required({ flag: "-D, --datadir <path>", help: "directory for PostgreSQL's files; emptied at every start", parse: text }),
  tenantId: required({ flag: "--tenant-id <id>", help: "tenant", parse: parseTenantId }),
  timelineId: required({ flag: "--timeline-id <id>", help: "timeline", parse: parseTimelineId }),
  safekeepers: required({ flag: "--safekeepers <host:port,…>", help: "all safekeepers of the timeline", parse: (value) => value.split(",").filter(Boolean).map(hostPort) }),
  pageserver: required({ flag: "--pageserver <host:port>", help: "pageserver of the tenant", parse: hostPort }),
  listenPg: option({ flag: "--listen-pg <host:port>", help: "where PostgreSQL listens", parse: hostPort, default: { host: "127.0.0.1", port: 55_432 } }),
  listenHttp: option({ flag: "--listen-http <host:port>", help: "status and metrics", parse: hostPort, default: { host: "127.0.0.1", port: 3080 } }),
  pgVersion: option({ flag: "--pg-version <major>", help: "PostgreSQL to run", parse: pgMajor, default: 17 as const }),
  pgBinDir: option({ flag: "--pg-bin-dir <path>", help: "PostgreSQL's binaries, if not those of the npm package", parse: optionalPath, default: null }),
  pgUser: option({ flag: "--pg-user <name>", help: "user PostgreSQL runs as when we are root", parse: text, default: null }),
  superuser: option({ flag: "--superuser <role>", help: "the cluster's bootstrap superuser", parse: text, default: "cloud_admin" }),
  mode: option({ flag: "--mode <mode>", help: "primary, or replica: a standby that follows the timeline", parse: oneOf("primary", "replica"), default: "primary" as const }),
  setting: repeatable({ flag: "-c, --setting <name=value>", help: "line of postgresql.conf; may be given several times", parse: setting }),
  authToken: option({ flag: "--auth-token <token>", help: "JWT shown to safekeepers and pageserver", parse: text, default: null }),
  sslMode: option({ flag: "--ssl-mode <mode>", help: "of connections to safekeepers and pageserver: disable, require (encrypted, to whoever answers) or verify-full", parse: oneOf(...SSL_MODES), default: "disable" as const }),
  sslCaFile: option({ flag: "--ssl-ca-file <path>", help: "certificate authorities to trust instead of the system's", parse: optionalPath, default: null }),
  shutdownTimeout: option({ flag: "--shutdown-timeout <duration>", help: "how long stopping waits for the quorum", parse: parseDuration, default: null }),
  maxReplicationWriteLag: option({ flag: "--max-replication-write-lag <size>", help: "WAL the pageserver may not have received yet before commits wait for it; 0 for no limit", parse: sizeLimit, default: 500 * MB }),
  maxReplicationFlushLag: option({ flag: "--max-replication-flush-lag <size>", help: "the same for what it has not on disk", parse: sizeLimit, default: 10_240 * MB }),
  maxReplicationApplyLag: option({ flag: "--max-replication-apply-lag <size>", help: "the same for what it has not in object storage", parse: sizeLimit, default: null }),
  maxClusterSize: option({ flag: "--max-cluster-size <size>", help: "size of the timeline from which on transactions are read-only unless they say otherwise; 0 for no limit", parse: sizeLimit, default: null }),
  settleTimeout: option({ flag: "--settle-timeout <duration>", help: "how long starting waits for a majority of safekeepers", parse: parseDuration, default: null }),
};

export function computeConfig(values: OptionValues<typeof COMPUTE_OPTIONS>): ComputeConfig {
  return {
    tenantId: values.tenantId,
    timelineId: values.timelineId,
    safekeepers: values.safekeepers,
    pageserver: values.pageserver,
    pgVersion: values.pgVersion,
    dataDirectory: values.datadir,
    listenHost: values.listenPg.host,
    pgPort: values.listenPg.port,
    httpHost: values.listenHttp.host,
    httpPort: values.listenHttp.port,
    mode: values.mode,
    settings: Object.fromEntries(values.setting),
    superuser: values.superuser,
    lagLimits: { writeBytes: values.maxReplicationWriteLag, flushBytes: values.maxReplicationFlushLag, applyBytes: values.maxReplicationApplyLag },
    ...(values.maxClusterSize === null ? {} : { maxClusterSizeBytes: values.maxClusterSize }),
    ...(values.pgBinDir === null ? {} : { pgBinDirectory: values.pgBinDir }),
    ...(values.pgUser === null ? {} : { osUser: values.pgUser }),
    ...(values.authToken === null ? {} : { authToken: values.authToken }),
    sslMode: values.sslMode,
    ...(values.sslCaFile === null ? {} : { sslCaFile: values.sslCaFile }),
    ...(values.shutdownTimeout === null ? {} : { shutdownTimeoutMs: values.shutdownTimeout }),
    ...(values.settleTimeout === null ? {} : { settleTimeoutMs: values.settleTimeout }),
  };
}
