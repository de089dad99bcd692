/**
 * Settings of a pageserver, normalized, and the files they come from, in its working directory:
 *
 * - `pageserver.toml`: the peer's names, below; what is not given has its default. Unknown names are told and ignored.
 * - `identity.toml`: `id = N`.
 * - `metadata.json`: where others reach it: host, port, http_host, http_port, and `other.availability_zone_id`; with it
 *   the pageserver registers itself at the control plane.
 *
 * Source: the peer's pageserver_api config module.
 */
import { parse as parseToml } from "smol-toml";
import { z } from "zod";
import { utf8ToString } from "../kit/bytes.ts";
import { isStrataError, StrataError } from "../kit/errors.ts";
import { parseDuration } from "../kit/humantime.ts";
import type { TlsFiles } from "../http/credentials.ts";
import type { Logger } from "../observability/log.ts";
import type { FileSystem } from "../platform/files.ts";
import type { RemoteStorageConfig } from "../remote-storage/open-remote-storage.ts";
import { type Environment, parseRemoteStorage } from "../remote-storage/parse-config.ts";
import { SSL_MODES, type SslMode } from "../wire/client-tls.ts";
import { evictionOrderSchema } from "./api/utilization.ts";
import { tellUnusedNames } from "./config-names.ts";
import type { ConsumptionConfig } from "./consumption/consumption-metrics.ts";
import type { DiskUsageEvictionConfig } from "./eviction/eviction.ts";
import type { InitdbSettings } from "./tenant/bootstrap.ts";
import { walProtocolSchema } from "../safekeeper/api/wal-protocol.ts";
import { type TenantSettings, tenantSettings } from "./tenant/tenant-config.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface NodeMetadata {
  readonly host: string;
  readonly port: number;
  readonly httpHost: string;
  readonly httpPort: number;
  readonly httpsPort?: number | null;
  readonly availabilityZone: string;
}

export interface PageserverConfig {
  readonly workDirectory: string;
  readonly nodeId: number;
  readonly pgAddress: Address;
  readonly httpAddress: Address;
  /** The HTTP interface over TLS. */
  readonly httpsAddress?: Address | null;
  /** Needed for the two that use TLS. */
  readonly tls?: TlsFiles | null;
  /** Clients of the page service that ask for TLS get it. */
  readonly tlsPageService?: boolean;
  /** Certificate authorities that the pageserver trusts as a client, instead of the system's. */
  readonly sslCaFile?: string | null;
  /** Of connections to safekeepers. */
  readonly sslMode?: SslMode;
  /** Null: no broker, no WAL. */
  readonly brokerEndpoint: string | null;
  /** Between HTTP/2 pings to the broker; the client's own unless given. */
  readonly brokerKeepaliveIntervalMs?: number | undefined;
  /** Base of the upcall API; null: local generations are trusted. */
  readonly controlPlaneApi: string | null;
  readonly controlPlaneToken: string | null;
  /** Tenants are attached as this node last knew them, without a word from the control plane, which may be away. */
  readonly emergencyMode?: boolean;
  readonly availabilityZone: string | null;
  /** Null: it does not register itself. */
  readonly metadata: NodeMetadata | null;
  readonly remoteStorage: RemoteStorageConfig;
  readonly diskUsageEviction: DiskUsageEvictionConfig;
  /** Failpoints may be set over HTTP, and tenants be broken. */
  readonly testingMode: boolean;
  readonly initdb: InitdbSettings;
  readonly tenantDefaults: TenantSettings;
  readonly pageCacheBytes: number;
  readonly maxOpenFiles: number;
  /** Between two calculations of all tenants' synthetic sizes; 0: none. */
  readonly syntheticSizeIntervalMs: number;
  /** Counts of logical sizes at past LSNs that may run at once; one unless given. */
  readonly sizeCountsAtOnce?: number;
  /** Null, or none: nobody is told what tenants consume. */
  readonly consumption?: ConsumptionConfig | null;
  readonly pgAuth: boolean;
  readonly httpAuth: boolean;
  readonly authPublicKeyPath: string | null;
  /** Token shown to safekeepers. */
  readonly safekeeperToken: string | null;
}

const BLOCK_SIZE = 8192;
const DURATION = z.string().transform((text, context) => {
  try {
    return parseDuration(text);
  } catch {
    context.issues.push({ code: "custom", message: `"${text}" is not a duration`, input: text });
    return z.NEVER;
  }
});
const authType = z.enum(["Trust", "NeonJWT"]);

const tomlSchema = z.object({
  listen_pg_addr: z.string().default("127.0.0.1:64000"),
  listen_http_addr: z.string().default("127.0.0.1:9898"),
  listen_https_addr: z.string().optional(),
  ssl_key_file: z.string().default("server.key"),
  ssl_cert_file: z.string().default("server.crt"),
  ssl_cert_reload_period: DURATION.default(60_000),
  enable_tls_page_service_api: z.boolean().default(false),
  ssl_ca_file: z.string().optional(),
  // Ours: the peer's connections to safekeepers are always in plain text.
  ssl_mode: z.enum(SSL_MODES).default("disable"),
  pg_auth_type: authType.default("Trust"),
  http_auth_type: authType.default("Trust"),
  auth_validation_public_key_path: z.string().optional(),
  broker_endpoint: z.string().optional(),
  broker_keepalive_interval: DURATION.refine((ms) => ms >= 1, "at least a millisecond").optional(),
  control_plane_api: z.string().optional(),
  control_plane_api_token: z.string().optional(),
  control_plane_emergency_mode: z.boolean().default(false),
  safekeeper_auth_token: z.string().optional(),
  availability_zone: z.string().optional(),
  pg_distrib_dir: z.string().optional(),
  superuser: z.string().min(1).default("cloud_admin"),
  locale: z.string().default("C"),
  initdb_data_checksums: z.boolean().default(false),
  initdb_directory: z.string().default("/tmp"),
  remote_storage: z.record(z.string(), z.unknown()).optional(),
  disk_usage_based_eviction: z
    .object({
      enabled: z.boolean().default(true),
      max_usage_pct: z.number().min(0).max(100).default(80),
      min_avail_bytes: z.number().int().nonnegative().default(2_000_000_000),
      period: DURATION.default(60_000),
      eviction_order: evictionOrderSchema.default({ type: "RelativeAccessed", args: { highest_layer_count_loses_first: true } }),
    })
    // Without the table the disk is left to fill: evicting is for those who said how full it may be.
    .prefault({ enabled: false }),
  testing_mode: z.boolean().default(false),
  page_cache_size: z.number().int().positive().default(8192),
  max_file_descriptors: z.number().int().positive().default(100),
  wait_lsn_timeout: DURATION.default(300_000),
  synthetic_size_calculation_interval: DURATION.default(600_000),
  concurrent_tenant_size_logical_size_queries: z.number().int().min(1).max(1000).default(1),
  timeline_offloading: z.boolean().optional(),
  metric_collection_endpoint: z.url({ protocol: /^https?$/ }).optional(),
  metric_collection_interval: DURATION.refine((ms) => ms >= 1, "at least a millisecond").default(600_000),
  metric_collection_bucket: z.record(z.string(), z.unknown()).optional(),
  wal_receiver_protocol: walProtocolSchema.default({ type: "vanilla" }),
  image_compression: z.string().default("zstd(1)"),
  tenant_config: z.record(z.string(), z.unknown()).default({}),
});

const metadataSchema = z.object({
  host: z.string(),
  port: z.number().int(),
  http_host: z.string(),
  http_port: z.number().int(),
  https_port: z.number().int().nullish(),
  other: z.record(z.string(), z.unknown()).default({}),
});

/** @throws StrataError fix-input `bad-config`, naming the file and what is wrong with it */
export async function loadPageserverConfig(files: FileSystem, workDirectory: string, context: { readonly environment?: Environment; readonly log?: Logger } = {}): Promise<PageserverConfig> {
  const document = await readToml(files, `${workDirectory}/pageserver.toml`);
  const toml = parsed("pageserver.toml", tomlSchema, document);
  if (context.log !== undefined) tellUnusedNames(document, Object.keys(tomlSchema.shape), context.log);
  const identity = parsed("identity.toml", z.object({ id: z.number().int().nonnegative() }), await readToml(files, `${workDirectory}/identity.toml`));
  const metadata = await readMetadata(files, `${workDirectory}/metadata.json`);
  const compression = imageCompressionLevel(toml.image_compression);
  const defaults = tenantSettings({ timeline_offloading: toml.timeline_offloading, ...toml.tenant_config });
  return {
    workDirectory,
    nodeId: identity.id,
    pgAddress: parseAddress("listen_pg_addr", toml.listen_pg_addr),
    httpAddress: parseAddress("listen_http_addr", toml.listen_http_addr),
    httpsAddress: toml.listen_https_addr === undefined ? null : parseAddress("listen_https_addr", toml.listen_https_addr),
    tls: { certPath: inDirectory(workDirectory, toml.ssl_cert_file), keyPath: inDirectory(workDirectory, toml.ssl_key_file), reloadPeriodMs: toml.ssl_cert_reload_period },
    tlsPageService: toml.enable_tls_page_service_api,
    sslCaFile: toml.ssl_ca_file === undefined ? null : inDirectory(workDirectory, toml.ssl_ca_file),
    sslMode: toml.ssl_mode,
    brokerEndpoint: toml.broker_endpoint ?? null,
    brokerKeepaliveIntervalMs: toml.broker_keepalive_interval,
    controlPlaneApi: toml.control_plane_api ?? null,
    controlPlaneToken: toml.control_plane_api_token ?? null,
    emergencyMode: toml.control_plane_emergency_mode,
    availabilityZone: toml.availability_zone ?? null,
    metadata,
    remoteStorage: toml.remote_storage === undefined ? { kind: "local", directory: `${workDirectory}/remote` } : parseRemoteStorage(toml.remote_storage, context.environment ?? {}),
    diskUsageEviction: diskUsageEviction(toml.disk_usage_based_eviction),
    testingMode: toml.testing_mode,
    initdb: {
      pgDistribDirectory: toml.pg_distrib_dir ?? null, temporaryDirectory: toml.initdb_directory, superuser: toml.superuser,
      dataChecksums: toml.initdb_data_checksums, locale: toml.locale,
    },
    tenantDefaults: {
      ...defaults,
      walReceiver: { ...defaults.walReceiver, protocol: toml.wal_receiver_protocol },
      timeline: { ...defaults.timeline, waitLsnTimeoutMs: toml.wait_lsn_timeout, imageCompressionLevel: compression },
    },
    pageCacheBytes: toml.page_cache_size * BLOCK_SIZE,
    maxOpenFiles: toml.max_file_descriptors,
    syntheticSizeIntervalMs: toml.synthetic_size_calculation_interval,
    sizeCountsAtOnce: toml.concurrent_tenant_size_logical_size_queries,
    consumption: consumption(toml, context),
    pgAuth: toml.pg_auth_type === "NeonJWT",
    httpAuth: toml.http_auth_type === "NeonJWT",
    authPublicKeyPath: toml.auth_validation_public_key_path ?? null,
    safekeeperToken: toml.safekeeper_auth_token ?? null,
  };
}

function inDirectory(directory: string, path: string): string {
  return path.startsWith("/") ? path : `${directory}/${path}`;
}

function consumption(toml: z.output<typeof tomlSchema>, context: { readonly environment?: Environment; readonly log?: Logger }): ConsumptionConfig | null {
  const { metric_collection_endpoint: endpoint, metric_collection_interval: intervalMs, metric_collection_bucket: table } = toml;
  const bucket = table === undefined ? null : parseRemoteStorage(table, context.environment ?? {});
  if (endpoint !== undefined) return { endpoint, intervalMs, bucket };
  if (bucket !== null) context.log?.warn("metric_collection_bucket is without effect: there is no metric_collection_endpoint");
  return null;
}

function diskUsageEviction(table: z.output<typeof tomlSchema>["disk_usage_based_eviction"]): DiskUsageEvictionConfig {
  return {
    enabled: table.enabled, maxUsagePercent: table.max_usage_pct, minAvailableBytes: table.min_avail_bytes, periodMs: table.period,
    order: { highestLayerCountLosesFirst: table.eviction_order.args.highest_layer_count_loses_first },
  };
}

function bad(file: string, what: string, cause?: unknown): StrataError {
  return new StrataError("fix-input", "bad-config", `${file}: ${what}`, { cause });
}

function parsed<S extends z.ZodType>(file: string, schema: S, document: unknown): z.output<S> {
  const result = schema.safeParse(document);
  if (!result.success) throw bad(file, z.prettifyError(result.error));
  return result.data;
}

async function readText(files: FileSystem, path: string): Promise<string> {
  try {
    return utf8ToString(await files.readFile(path));
  } catch (cause) {
    if (isStrataError(cause, "file-not-found")) throw bad(path, "it does not exist", cause);
    throw cause;
  }
}

async function readToml(files: FileSystem, path: string): Promise<unknown> {
  const text = await readText(files, path);
  try {
    return parseToml(text);
  } catch (cause) {
    throw bad(path, "it is not TOML", cause);
  }
}

async function readMetadata(files: FileSystem, path: string): Promise<NodeMetadata | null> {
  if (!(await files.exists(path))) return null;
  let document: unknown;
  try {
    document = JSON.parse(await readText(files, path));
  } catch (cause) {
    throw bad(path, "it is not JSON", cause);
  }
  const { host, port, http_host: httpHost, http_port: httpPort, https_port: httpsPort, other } = parsed(path, metadataSchema, document);
  const zone = other.availability_zone_id;
  return { host, port, httpHost, httpPort, httpsPort: httpsPort ?? null, availabilityZone: typeof zone === "string" ? zone : "" };
}

function parseAddress(name: string, text: string): Address {
  const match = /^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(text);
  if (match === null || Number(match[2]) > 65_535) throw bad("pageserver.toml", `${name} = "${text}" is not host:port`);
  return { host: match[1].replace(/^\[|\]$/g, ""), port: Number(match[2]) };
}

/** `disabled`, `zstd` or `zstd(level)`. */
function imageCompressionLevel(text: string): number | null {
  if (text === "disabled") return null;
  const match = /^zstd(?:\((-?\d{1,2})\))?$/.exec(text);
  if (match === null) throw bad("pageserver.toml", `image_compression = "${text}" is neither disabled nor zstd(level)`);
  return Number(match[1] ?? 1);
}
