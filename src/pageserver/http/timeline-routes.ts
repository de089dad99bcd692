/** Routes of timelines: create, list, look, delete, LSN and time, leases. */
import { z } from "zod";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { parseTimelineId, type TenantShardId, type TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { HttpApp } from "../../http/app.ts";
import { booleanText, lsnText, tenantShardIdText, timelineIdText } from "../../http/params.ts";
import { jsonTextReply, listJson } from "../../http/long-reply.ts";
import { emptyReply, jsonReply } from "../../http/route.ts";
import { majorFromVersionNum } from "../../postgres/versions/major.ts";
import { lsnByTimestampSchema, lsnLeaseSchema, type TimelineCreate, timelineCreateSchema, timelineInfoSchema } from "../api/timelines.ts";
import { lsnForTimestamp, timestampOfLsn } from "../datadir/lsn-for-timestamp.ts";
import type { Tenant } from "../tenant/tenant.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { TenantTimeline } from "../tenant/tenant-timeline.ts";
import { shardParams } from "./tenant-routes.ts";
import { TENANT_PERMISSION, TIMELINE_PERMISSION } from "./permissions.ts";
import { knownTimelineInfo, timelineInfo } from "./present.ts";
import { formatTimestamp, fromPostgresTimestamp, timestampText, toPostgresTimestamp } from "./timestamps.ts";

export const timelineParams = z.object({ tenant_shard_id: tenantShardIdText, timeline_id: timelineIdText });

const sizeQuery = z.object({ "include-non-incremental-logical-size": booleanText.optional(), "force-await-initial-logical-size": booleanText.optional() });

function sizeOptions(query: z.output<typeof sizeQuery>) {
  return { countLogicalSize: query["include-non-incremental-logical-size"] === true, awaitLogicalSize: query["force-await-initial-logical-size"] === true };
}

export interface TimelineRouteOptions {
  readonly tenants: Tenants;
  readonly defaultPgVersion: number;
}

export function addTimelineRoutes(app: HttpApp, options: TimelineRouteOptions): void {
  const { tenants } = options;
  const find = (params: z.output<typeof timelineParams>): Promise<TenantTimeline> => tenants.attached(params.tenant_shard_id).timeline(params.timeline_id);
  app.route(
    { method: "post", path: "/v1/tenant/:tenant_shard_id/timeline", permission: TENANT_PERMISSION, summary: "Create a timeline: a branch, or from initdb, a fresh one or an archived one", params: shardParams, body: timelineCreateSchema, responses: { 201: { description: "created", schema: timelineInfoSchema } } },
    async ({ params, body }) => jsonReply(201, knownTimelineInfo(await createTimeline(tenants.attached(params.tenant_shard_id), body, options.defaultPgVersion))),
  );
  app.route(
    { method: "get", path: "/v1/tenant/:tenant_shard_id/timeline", permission: TENANT_PERMISSION, summary: "All timelines of a tenant shard", params: shardParams, query: sizeQuery, responses: { 200: { description: "timelines", schema: z.array(timelineInfoSchema) } } },
    async ({ params, query, signal }) => {
      const tenant = tenants.attached(params.tenant_shard_id);
      await tenant.load();
      const sizes = sizeOptions(query);
      const asked = sizes.awaitLogicalSize || sizes.countLogicalSize;
      const timelines = tenant.listTimelines();
      if (!asked) return jsonTextReply(200, await listJson(timelines, knownTimelineInfo, { clock: tenant.clock, signal }));
      return jsonReply(200, await Promise.all(timelines.map((timeline) => timelineInfo(timeline, { signal, ...sizes }))));
    },
  );
  app.route(
    { method: "get", path: "/v1/tenant/:tenant_shard_id/timeline/:timeline_id", permission: TIMELINE_PERMISSION, summary: "One timeline", params: timelineParams, query: sizeQuery, responses: { 200: { description: "timeline", schema: timelineInfoSchema } } },
    async ({ params, query, signal }) => jsonReply(200, await timelineInfo(await find(params), { signal, ...sizeOptions(query) })),
  );
  app.route(
    { method: "delete", path: "/v1/tenant/:tenant_shard_id/timeline/:timeline_id", permission: TIMELINE_PERMISSION, summary: "Delete a timeline for good", params: timelineParams, responses: { 202: { description: "deleted, ask again to be sure" }, 404: { description: "gone" } } },
    async ({ params }) => {
      await tenantToDeleteFrom(tenants, params.tenant_shard_id).deleteTimeline(params.timeline_id);
      return emptyReply(202);
    },
  );
  app.route(
    { method: "post", path: "/v1/tenant/:tenant_shard_id/timeline/:timeline_id/preserve_initdb_archive", permission: TIMELINE_PERMISSION, summary: "Keep the archive of the timeline's initdb beyond its deletion", params: timelineParams, responses: { 200: { description: "kept", schema: z.null() } } },
    async ({ params }) => {
      await tenants.attached(params.tenant_shard_id).preserveInitdbArchive(params.timeline_id);
      return jsonReply(200, null);
    },
  );
  addLsnRoutes(app, find);
}

/** 404 says that the timeline is gone: of a tenant that is not here nobody may conclude that. */
function tenantToDeleteFrom(tenants: Tenants, id: TenantShardId): Tenant {
  try {
    return tenants.attached(id);
  } catch (cause) {
    if (!isStrataError(cause, "tenant-not-found")) throw cause;
    throw new StrataError("conflict", "precondition-failed", "the tenant is not here: whether it has the timeline is not known", { cause });
  }
}

/** 409 is for good; of a timeline that is being made the answer comes with the next try. */
function assertNotBusy(tenant: Tenant, timelineId: TimelineId): void {
  try {
    tenant.manager.assertNotBusy(timelineId);
  } catch (cause) {
    if (!isStrataError(cause, "timeline-busy")) throw cause;
    throw new StrataError("retry", "too-many-requests", cause.message, { cause });
  }
}

async function createTimeline(tenant: Tenant, body: TimelineCreate, defaultPgVersion: number): Promise<TenantTimeline> {
  await tenant.load();
  const timelineId = parseTimelineId(body.new_timeline_id);
  if (body.ancestor_timeline_id != null && body.existing_initdb_timeline_id != null) throw new StrataError("fix-input", "bad-timeline-create", "a branch begins from its ancestor, not from an initdb archive");
  // One that is half made is no answer yet.
  assertNotBusy(tenant, timelineId);
  const existing = tenant.manager.has(timelineId) ? tenant.timelineNow(timelineId) : null;
  if (existing !== null) {
    if (isTheSame(existing, body)) return existing;
    throw new StrataError("conflict", "timeline-exists", `timeline ${timelineId} exists already, with another origin`);
  }
  // Told before an initdb is run for it.
  if (tenant.manager.brokenTimelines.has(timelineId)) throw new StrataError("conflict", "timeline-exists", `timeline ${timelineId} exists already, and cannot be used`);
  if (body.ancestor_timeline_id != null) {
    const lsn = body.ancestor_start_lsn == null ? undefined : parseLsn(body.ancestor_start_lsn);
    return await tenant.branchTimeline({ timelineId, ancestorTimelineId: parseTimelineId(body.ancestor_timeline_id), ...(lsn === undefined ? {} : { lsn }) });
  }
  const pgVersion = body.pg_version == null ? null : majorFromVersionNum(body.pg_version * 10_000);
  const existingInitdb = body.existing_initdb_timeline_id == null ? null : parseTimelineId(body.existing_initdb_timeline_id);
  return await tenant.bootstrapTimeline({ timelineId, pgVersion, defaultPgVersion: majorFromVersionNum(defaultPgVersion * 10_000), existingInitdb });
}

/** A repeated request is answered like the first: its client may not have got the answer. */
function isTheSame(existing: TenantTimeline, body: TimelineCreate): boolean {
  const { ancestor, pgVersion } = existing.timeline;
  const wanted: TimelineId | null = body.ancestor_timeline_id ?? null;
  if ((ancestor?.timelineId ?? null) !== wanted) return false;
  if (ancestor === null) return body.pg_version == null || body.pg_version === pgVersion;
  return body.ancestor_start_lsn == null || parseLsn(body.ancestor_start_lsn) === ancestor.lsn;
}

/** Transaction statuses are on shard 0 only. */
function shardZero(params: z.output<typeof timelineParams>): z.output<typeof timelineParams> {
  if (params.tenant_shard_id.number !== 0) throw new StrataError("fix-input", "not-shard-zero", "timestamps are known on shard zero only");
  return params;
}

/** An answer without a lease is still an answer: the LSN may be one that is kept anyway. */
function leaseIfPossible(view: TenantTimeline, lsn: Lsn, log: Logger): { valid_until?: string } {
  try {
    return { valid_until: new Date(view.grantLease(lsn, view.timeline.config.lsnLeaseLengthForTsMs)).toISOString() };
  } catch (error) {
    log.info("no lease for the LSN of a timestamp", { lsn: lsnToString(lsn), error });
    return {};
  }
}

function addLsnRoutes(app: HttpApp, find: (params: z.output<typeof timelineParams>) => Promise<TenantTimeline>): void {
  const base = "/v1/tenant/:tenant_shard_id/timeline/:timeline_id";
  app.route(
    {
      method: "get", path: `${base}/get_lsn_by_timestamp`, permission: TIMELINE_PERMISSION, summary: "The LSN that shows all commits up to a moment", params: timelineParams,
      query: z.object({ timestamp: timestampText, with_lease: booleanText.optional() }), responses: { 200: { description: "LSN", schema: lsnByTimestampSchema } },
    },
    async ({ params, query, signal, log }) => {
      const view = await find(shardZero(params));
      await view.timeline.deps.failpoints?.hit("find-lsn-for-timestamp", signal);
      const found = await lsnForTimestamp(view.datadir, toPostgresTimestamp(query.timestamp), { task: "http", signal });
      return jsonReply(200, { lsn: lsnToString(found.lsn), kind: found.kind, ...(query.with_lease === true ? leaseIfPossible(view, found.lsn, log) : {}) });
    },
  );
  app.route(
    { method: "get", path: `${base}/get_timestamp_of_lsn`, permission: TIMELINE_PERMISSION, summary: "When the newest commit that an LSN shows was made", params: timelineParams, query: z.object({ lsn: lsnText }), responses: { 200: { description: "RFC 3339 time", schema: z.string() } } },
    async ({ params, query, signal }) => {
      const timestamp = await timestampOfLsn((await find(shardZero(params))).datadir, query.lsn, { task: "http", signal });
      if (timestamp === null) throw new StrataError("conflict", "precondition-failed", `timestamp for lsn ${lsnToString(query.lsn)} not found`);
      return jsonReply(200, formatTimestamp(fromPostgresTimestamp(timestamp)));
    },
  );
  app.route(
    { method: "post", path: `${base}/lsn_lease`, permission: TIMELINE_PERMISSION, summary: "Keep what an LSN shows", params: timelineParams, body: z.object({ lsn: z.string() }), responses: { 200: { description: "until when", schema: lsnLeaseSchema } } },
    async ({ params, body }) => jsonReply(200, { valid_until: new Date((await find(params)).grantLease(parseLsn(body.lsn))).toISOString() }),
  );
}
