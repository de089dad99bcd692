/**
 * Who may do what over HTTP, written down a second time. A route of a role that stands in no table here, or stands here
 * and is gone, fails the matrix test; so does one that admits anybody else than it says.
 */
import type { Scope } from "../../../src/http/auth.ts";

export type RoleName = "broker" | "safekeeper" | "pageserver" | "controller" | "compute" | "dev";

export interface Expectation {
  /** Null: everybody, without a token. */
  readonly scopes: readonly Scope[] | null;
  /** The path parameter a tenant's token must match, and the one a token bound to a timeline must match. */
  readonly tenantParam?: string;
  readonly timelineParam?: string;
}

export interface RoleExpectations {
  /** Scope `admin` may do everything. */
  readonly adminIsSuperset: boolean;
  readonly routes: Readonly<Record<string, Expectation>>;
}

const EVERYBODY: Expectation = { scopes: null };
const only = (...scopes: Scope[]): Expectation => ({ scopes });

/** Of every role. */
const COMMON: Readonly<Record<string, Expectation>> = {
  "get /status": EVERYBODY,
  "get /metrics": EVERYBODY,
  "get /v1/openapi.json": EVERYBODY,
  "get /profile/cpu": EVERYBODY,
  "get /profile/heap": EVERYBODY,
};

/** Of every role that authenticates. */
const GUARDED = { ...COMMON, "get /profile/heap/snapshot": only("admin") };

const SAFEKEEPER_NODE = only("safekeeperdata");
const SAFEKEEPER_TENANT: Expectation = { scopes: ["safekeeperdata", "tenant"], tenantParam: "tenant_id" };
const SAFEKEEPER_TIMELINE: Expectation = { ...SAFEKEEPER_TENANT, timelineParam: "timeline_id" };
const SAFEKEEPER = "/v1/tenant/:tenant_id/timeline/:timeline_id";

const OPERATOR = only("pageserverapi");
const SHARD: Expectation = { scopes: ["pageserverapi", "tenant"], tenantParam: "tenant_shard_id" };
const SHARD_TIMELINE: Expectation = { ...SHARD, timelineParam: "timeline_id" };
const PAGESERVER = "/v1/tenant/:tenant_shard_id";

export const EXPECTED: Readonly<Record<RoleName, RoleExpectations>> = {
  broker: { adminIsSuperset: false, routes: GUARDED },
  safekeeper: {
    adminIsSuperset: false,
    routes: {
      ...GUARDED,
      "get /v1/status": EVERYBODY,
      "put /v1/failpoints": SAFEKEEPER_NODE,
      "get /v1/utilization": SAFEKEEPER_NODE,
      "get /v1/tenant/timeline": SAFEKEEPER_NODE,
      "post /v1/tenant/timeline": SAFEKEEPER_NODE,
      "get /v1/debug_dump": SAFEKEEPER_NODE,
      "post /v1/pull_timeline": SAFEKEEPER_NODE,
      "delete /v1/tenant/:tenant_id": SAFEKEEPER_TENANT,
      [`get ${SAFEKEEPER}`]: SAFEKEEPER_TIMELINE,
      [`delete ${SAFEKEEPER}`]: SAFEKEEPER_TIMELINE,
      [`put ${SAFEKEEPER}/exclude`]: SAFEKEEPER_TIMELINE,
      [`post ${SAFEKEEPER}/term_bump`]: SAFEKEEPER_TIMELINE,
      [`put ${SAFEKEEPER}/membership`]: SAFEKEEPER_TIMELINE,
      [`post ${SAFEKEEPER}/checkpoint`]: SAFEKEEPER_NODE,
      [`get ${SAFEKEEPER}/digest`]: SAFEKEEPER_TIMELINE,
      "post /v1/tenant/:tenant_id/timeline/:source_timeline_id/copy": SAFEKEEPER_NODE,
      [`patch ${SAFEKEEPER}/control_file`]: SAFEKEEPER_NODE,
      [`post ${SAFEKEEPER}/backup_partial_reset`]: SAFEKEEPER_TIMELINE,
      [`post ${SAFEKEEPER}/restore_from_backup`]: SAFEKEEPER_NODE,
      [`get ${SAFEKEEPER}/snapshot/:destination_id`]: SAFEKEEPER_TIMELINE,
      "post /v1/record_safekeeper_info/:tenant_id/:timeline_id": SAFEKEEPER_TIMELINE,
    },
  },
  pageserver: {
    adminIsSuperset: false,
    routes: {
      ...GUARDED,
      "get /v1/status": EVERYBODY,
      "put /v1/tenant/:tenant_id/timeline/:timeline_id/import_basebackup": { ...SHARD_TIMELINE, tenantParam: "tenant_id" },
      "put /v1/tenant/:tenant_id/timeline/:timeline_id/import_wal": { ...SHARD_TIMELINE, tenantParam: "tenant_id" },
      "get /v1/utilization": OPERATOR,
      "put /v1/disk_usage_eviction/run": OPERATOR,
      "put /v1/failpoints": OPERATOR,
      [`put ${PAGESERVER}/break`]: OPERATOR,
      "put /v1/deletion_queue/flush": OPERATOR,
      "post /v1/reload_auth_validation_keys": OPERATOR,
      "get /v1/tenant": OPERATOR,
      "put /v1/tenant/config": OPERATOR,
      "patch /v1/tenant/config": OPERATOR,
      "get /v1/location_config": OPERATOR,
      "get /v1/location_config/:tenant_shard_id": OPERATOR,
      [`get ${PAGESERVER}`]: SHARD,
      [`delete ${PAGESERVER}`]: OPERATOR,
      [`get ${PAGESERVER}/config`]: OPERATOR,
      [`put ${PAGESERVER}/location_config`]: OPERATOR,
      [`put ${PAGESERVER}/time_travel_remote_storage`]: SHARD,
      [`get ${PAGESERVER}/synthetic_size`]: SHARD,
      [`get ${PAGESERVER}/timeline_and_offloaded`]: SHARD,
      [`post ${PAGESERVER}/heatmap_upload`]: OPERATOR,
      [`put ${PAGESERVER}/timeline/:timeline_id/archival_config`]: SHARD_TIMELINE,
      [`put ${PAGESERVER}/timeline/:timeline_id/offload`]: OPERATOR,
      [`get ${PAGESERVER}/timeline`]: SHARD,
      [`post ${PAGESERVER}/timeline`]: SHARD,
      [`get ${PAGESERVER}/timeline/:timeline_id`]: SHARD_TIMELINE,
      [`delete ${PAGESERVER}/timeline/:timeline_id`]: SHARD_TIMELINE,
      [`get ${PAGESERVER}/timeline/:timeline_id/get_lsn_by_timestamp`]: SHARD_TIMELINE,
      [`get ${PAGESERVER}/timeline/:timeline_id/get_timestamp_of_lsn`]: SHARD_TIMELINE,
      [`post ${PAGESERVER}/timeline/:timeline_id/lsn_lease`]: SHARD_TIMELINE,
      [`post ${PAGESERVER}/timeline/:timeline_id/preserve_initdb_archive`]: SHARD_TIMELINE,
      [`put ${PAGESERVER}/timeline/:timeline_id/checkpoint`]: OPERATOR,
      [`put ${PAGESERVER}/timeline/:timeline_id/compact`]: OPERATOR,
      [`put ${PAGESERVER}/timeline/:timeline_id/do_gc`]: OPERATOR,
      [`get ${PAGESERVER}/timeline/:timeline_id/layer`]: SHARD_TIMELINE,
      [`get ${PAGESERVER}/timeline/:timeline_id/keyspace`]: SHARD_TIMELINE,
      [`get ${PAGESERVER}/timeline/:timeline_id/layer/:layer_file_name`]: OPERATOR,
      [`delete ${PAGESERVER}/timeline/:timeline_id/layer/:layer_file_name`]: OPERATOR,
    },
  },
  controller: {
    adminIsSuperset: true,
    routes: {
      ...GUARDED,
      "get /ready": EVERYBODY,
      "post /upcall/v1/re-attach": only("generations_api"),
      "post /upcall/v1/validate": only("generations_api"),
      "get /control/v1/node": only("infra"),
      "post /control/v1/node": only("infra"),
      "get /control/v1/node/:node_id": only("infra"),
      "put /control/v1/node/:node_id/config": only("admin"),
      "delete /control/v1/node/:node_id": only("admin"),
      "get /control/v1/tenant": only("admin"),
      "get /control/v1/tenant/:tenant_id": only("admin", "scrubber"),
      "put /control/v1/tenant/:tenant_id/policy": only("admin"),
      "get /debug/v1/tenant/:tenant_id/locate": only("admin"),
      "post /debug/v1/consistency_check": only("admin"),
      "post /debug/v1/reconcile_all": only("admin"),
      "post /v1/tenant": OPERATOR,
      "put /v1/tenant/config": OPERATOR,
      "patch /v1/tenant/config": OPERATOR,
      "get /v1/tenant/:tenant_id": OPERATOR,
      "get /v1/tenant/:tenant_id/*": OPERATOR,
      "delete /v1/tenant/:tenant_id": OPERATOR,
      "post /v1/tenant/:tenant_id/timeline": OPERATOR,
      "delete /v1/tenant/:tenant_id/timeline/:timeline_id": OPERATOR,
      "put /v1/tenant/:tenant_id/time_travel_remote_storage": OPERATOR,
    },
  },
  // These two listen on loopback only, without authentication.
  compute: { adminIsSuperset: false, routes: { ...COMMON, "get /v1/compute/status": EVERYBODY, "get /metrics.json": EVERYBODY } },
  dev: {
    adminIsSuperset: false,
    routes: {
      ...COMMON, "get /v1/dev": EVERYBODY, "post /v1/dev/branch": EVERYBODY, "post /v1/dev/endpoint": EVERYBODY, "post /v1/dev/endpoint/:name/stop": EVERYBODY,
      "post /v1/dev/stop": EVERYBODY,
    },
  },
};
