/**
 * The safekeeper's HTTP routes: the peer's paths (safekeeper/src/http/routes.rs). What is about one timeline is open to
 * its tenant and to storage nodes (`safekeeperdata`); what is about the node, to storage nodes only.
 */
import { z } from "@hono/zod-openapi";
import { StrataError } from "../../kit/errors.ts";
import type { Permission } from "../../http/auth.ts";
import { createHttpApp, type HttpApp } from "../../http/app.ts";
import { booleanText, integerText, lsnText, tenantIdText, timelineIdText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import {
  configurationFromJson, configurationToJson, deleteReplySchema, digestReplySchema, membershipReplySchema, membershipRequestSchema, peerInfoSchema, pullReplySchema, pullTimelineSchema, statusSchema,
  termBumpReplySchema, termBumpRequestSchema, timelineCreateSchema, timelineRefSchema, timelineStatusSchema, utilizationSchema,
} from "../api/http.ts";
import { isMember } from "../api/membership.ts";
import { lsnToString } from "../../kit/lsn.ts";
import { pullTimeline } from "../timeline/pull-timeline.ts";
import { snapshotStream } from "../timeline/snapshot.ts";
import { debugDump } from "./debug-dump.ts";
import { walDigest } from "./digest.ts";
import { operatorRoutes } from "./operator-routes.ts";
import type { SafekeeperHttpOptions } from "./options.ts";
import { presentStatus } from "./present.ts";
import { restoreRoutes } from "./restore-routes.ts";
import { testingRoutes } from "./testing-routes.ts";

const DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024;
const TIMELINE = "/v1/tenant/:tenant_id/timeline/:timeline_id";
const NODE: Permission = { kind: "scope", scopes: ["safekeeperdata"] };
const ONE_TENANT: Permission = { kind: "scope", scopes: ["safekeeperdata", "tenant"], tenantParam: "tenant_id" };
const ONE_TIMELINE: Permission = { ...ONE_TENANT, timelineParam: "timeline_id" };
const timelineParams = z.object({ tenant_id: tenantIdText, timeline_id: timelineIdText });
const nothing = { 200: { description: "done", schema: z.null() } };

export function safekeeperHttpApp(options: SafekeeperHttpOptions): HttpApp {
  const app = createHttpApp(options);
  nodeRoutes(app, options);
  lifeRoutes(app, options);
  stateRoutes(app, options);
  copyRoutes(app, options);
  operatorRoutes(app, options);
  restoreRoutes(app, options);
  testingRoutes(app, options);
  return app;
}

function nodeRoutes(app: HttpApp, { timelines, dump }: SafekeeperHttpOptions): void {
  app.route(
    { method: "get", path: "/v1/status", summary: "Id of this node", permission: { kind: "public" }, responses: { 200: { description: "id", schema: statusSchema } } },
    () => jsonReply(200, { id: dump.nodeId }),
  );
  app.route(
    { method: "get", path: "/v1/utilization", summary: "How much this node has", permission: NODE, responses: { 200: { description: "counts", schema: utilizationSchema } } },
    () => jsonReply(200, { timeline_count: timelines.all.length }),
  );
  app.route(
    { method: "get", path: "/v1/tenant/timeline", summary: "All timelines", permission: NODE, responses: { 200: { description: "ids", schema: z.array(timelineRefSchema) } } },
    () => jsonReply(200, timelines.all.map(({ id }) => ({ tenant_id: id.tenantId, timeline_id: id.timelineId }))),
  );
  const flag = booleanText.optional();
  app.route(
    {
      method: "get", path: "/v1/debug_dump", summary: "Everything known about timelines, for debugging", permission: NODE,
      query: z.strictObject({
        dump_all: flag, dump_control_file: flag, dump_memory: flag, dump_disk_content: flag, dump_term_history: flag, dump_wal_last_modified: flag,
        tenant_id: tenantIdText.optional(), timeline_id: timelineIdText.optional(),
      }),
      responses: { 200: { description: "dump", contentType: "application/json" } },
    },
    async ({ query }) => {
      const all = query.dump_all ?? false;
      const chosen = timelines.all.filter(({ id }) => (query.tenant_id ?? id.tenantId) === id.tenantId && (query.timeline_id ?? id.timelineId) === id.timelineId);
      return jsonReply(200, await debugDump(dump, chosen, {
        controlFile: query.dump_control_file ?? all, memory: query.dump_memory ?? all, diskContent: query.dump_disk_content ?? all, termHistory: query.dump_term_history ?? true,
      }));
    },
  );
}

function lifeRoutes(app: HttpApp, { timelines, clock, deleteBackup }: SafekeeperHttpOptions): void {
  app.route(
    { method: "post", path: "/v1/tenant/timeline", summary: "Create a timeline", permission: NODE, body: timelineCreateSchema, responses: nothing },
    async ({ body }) => {
      await timelines.create(
        {
          tenantId: body.tenant_id,
          timelineId: body.timeline_id,
          ...(body.mconf === undefined ? {} : { configuration: configurationFromJson(body.mconf) }),
          pgVersion: body.pg_version,
          systemId: parseSystemId(body.system_id),
          walSegmentSizeBytes: body.wal_seg_size ?? DEFAULT_SEGMENT_BYTES,
          startLsn: body.start_lsn,
          commitLsn: body.commit_lsn ?? body.start_lsn,
          createdMs: clock.wallMs(),
        },
        { revive: true },
      );
      return jsonReply(200, null);
    },
  );
  app.route(
    {
      method: "delete", path: TIMELINE, summary: "Delete a timeline here", permission: ONE_TIMELINE, params: timelineParams,
      query: z.object({ only_local: booleanText.optional() }), responses: { 200: { description: "whether it was here", schema: deleteReplySchema } },
    },
    async ({ params, query }) => {
      const id = { tenantId: params.tenant_id, timelineId: params.timeline_id };
      const { existed } = await timelines.delete(id);
      if (query.only_local !== true) await deleteBackup(id);
      return jsonReply(200, { dir_existed: existed });
    },
  );
  app.route(
    {
      method: "delete", path: "/v1/tenant/:tenant_id", summary: "Delete all timelines of a tenant here", permission: ONE_TENANT, params: z.object({ tenant_id: tenantIdText }),
      query: z.object({ only_local: booleanText.optional() }), responses: { 200: { description: "by timeline id", schema: z.record(z.string(), deleteReplySchema) } },
    },
    async ({ params, query }) => {
      const results = await timelines.deleteTenant(params.tenant_id);
      for (const timelineId of query.only_local === true ? [] : results.keys()) await deleteBackup({ tenantId: params.tenant_id, timelineId });
      return jsonReply(200, Object.fromEntries([...results].map(([id, { existed }]) => [id, { dir_existed: existed }])));
    },
  );
  app.route(
    {
      method: "put", path: `${TIMELINE}/exclude`, summary: "Delete a timeline of which this node is no member any more", permission: ONE_TIMELINE, params: timelineParams,
      body: membershipRequestSchema, responses: { 200: { description: "whether it was here", schema: deleteReplySchema } },
    },
    async ({ params, body }) => {
      const id = { tenantId: params.tenant_id, timelineId: params.timeline_id };
      const configuration = configurationFromJson(body);
      const timeline = timelines.find(id);
      if (timeline !== null && isMember(configuration, timeline.acceptor.nodeId)) throw new StrataError("forbidden", "still-a-member", `node ${timeline.acceptor.nodeId} is a member of the configuration`);
      const current = timeline?.state.configuration.generation ?? 0;
      if (configuration.generation < current) throw new StrataError("conflict", "generation-mismatch", `generation ${configuration.generation} is behind ${current}`);
      const { existed } = await timelines.delete(id);
      return jsonReply(200, { dir_existed: existed });
    },
  );
}

function stateRoutes(app: HttpApp, { timelines }: SafekeeperHttpOptions): void {
  const find = (params: { tenant_id: string; timeline_id: string }) => timelines.get({ tenantId: params.tenant_id, timelineId: params.timeline_id });
  const common = { permission: ONE_TIMELINE, params: timelineParams } as const;
  app.route(
    { method: "get", path: TIMELINE, summary: "State of a timeline", ...common, responses: { 200: { description: "state", schema: timelineStatusSchema } } },
    ({ params }) => jsonReply(200, presentStatus(find(params))),
  );
  app.route(
    { method: "post", path: `${TIMELINE}/term_bump`, summary: "Raise the term", ...common, body: termBumpRequestSchema, responses: { 200: { description: "terms", schema: termBumpReplySchema } } },
    async ({ params, body }) => {
      const { previousTerm, currentTerm } = await find(params).run("term bump", (acceptor) => acceptor.bumpTerm(body.term ?? null));
      return jsonReply(200, { previous_term: previousTerm, current_term: currentTerm });
    },
  );
  app.route(
    { method: "put", path: `${TIMELINE}/membership`, summary: "Switch to a newer configuration", ...common, body: membershipRequestSchema, responses: { 200: { description: "configurations", schema: membershipReplySchema } } },
    async ({ params, body }) => {
      const timeline = find(params);
      const configuration = configurationFromJson(body);
      const previous = timeline.state.configuration;
      if (!isMember(configuration, timeline.acceptor.nodeId)) throw new StrataError("forbidden", "not-a-member", `node ${timeline.acceptor.nodeId} is not a member of the configuration`);
      await timeline.run("membership", (acceptor) => acceptor.switchConfiguration(configuration));
      const current = timeline.state.configuration;
      if (current.generation !== configuration.generation) throw new StrataError("conflict", "generation-mismatch", `generation ${configuration.generation} is behind ${current.generation}`);
      return jsonReply(200, { previous_conf: configurationToJson(previous), current_conf: configurationToJson(current), last_log_term: timeline.acceptor.lastLogTerm, flush_lsn: lsnToString(timeline.acceptor.flushLsn) });
    },
  );
  app.route(
    { method: "post", path: `${TIMELINE}/checkpoint`, summary: "Write the control file now", permission: NODE, params: timelineParams, responses: nothing },
    async ({ params }) => {
      await find(params).save();
      return jsonReply(200, null);
    },
  );
  app.route(
    {
      method: "get", path: `${TIMELINE}/digest`, summary: "SHA-256 of a range of WAL", ...common, query: z.object({ from_lsn: lsnText, until_lsn: lsnText }),
      responses: { 200: { description: "digest", schema: digestReplySchema } },
    },
    async ({ params, query }) => jsonReply(200, { sha256: await walDigest(find(params), { fromLsn: query.from_lsn, untilLsn: query.until_lsn }) }),
  );
  app.route(
    {
      method: "post", path: "/v1/record_safekeeper_info/:tenant_id/:timeline_id", summary: "Tell about a peer, for tests", ...common, body: peerInfoSchema, responses: nothing,
    },
    async ({ params, body }) => {
      await find(params).recordPeer({
        tenantId: params.tenant_id, timelineId: params.timeline_id, safekeeperId: 0, term: body.term ?? 0, lastLogTerm: body.last_log_term ?? 0,
        flushLsn: body.flush_lsn ?? 0, commitLsn: body.commit_lsn ?? 0, backupLsn: body.backup_lsn ?? 0, remoteConsistentLsn: body.remote_consistent_lsn ?? 0,
        peerHorizonLsn: body.peer_horizon_lsn ?? 0, localStartLsn: body.local_start_lsn ?? 0, standbyHorizon: body.standby_horizon ?? 0,
        safekeeperConnstr: body.safekeeper_connstr ?? "", httpConnstr: body.http_connstr ?? "",
      });
      return jsonReply(200, null);
    },
  );
}

/** From safekeeper to safekeeper. */
function copyRoutes(app: HttpApp, { timelines, dump, peerToken, peerCaPem }: SafekeeperHttpOptions): void {
  app.route(
    {
      method: "get", path: `${TIMELINE}/snapshot/:destination_id`, summary: "The timeline as a tar archive", permission: ONE_TIMELINE,
      params: timelineParams.extend({ destination_id: integerText }), responses: { 200: { description: "control file and WAL segments", contentType: "application/octet-stream" } },
    },
    ({ params }) => {
      const timeline = timelines.get({ tenantId: params.tenant_id, timelineId: params.timeline_id });
      return new Response(snapshotStream(timeline, dump.platform.files), { headers: { "content-type": "application/octet-stream" } });
    },
  );
  app.route(
    { method: "post", path: "/v1/pull_timeline", summary: "Copy a timeline from other safekeepers", permission: NODE, body: pullTimelineSchema, responses: { 200: { description: "where it came from", schema: pullReplySchema } } },
    async ({ body, signal }) => {
      const id = { tenantId: body.tenant_id, timelineId: body.timeline_id };
      const { mconf } = body;
      const host = await pullTimeline(id, { timelines, platform: dump.platform, nodeId: dump.nodeId, sync: !dump.config.noSync, token: await peerToken(), caPem: peerCaPem, hosts: body.http_hosts, newMember: (mconf?.generation ?? 0) > 0, signal });
      if (mconf != null) await timelines.get(id).run("membership", (acceptor) => acceptor.switchConfiguration(configurationFromJson(mconf)));
      return jsonReply(200, { safekeeper_host: host });
    },
  );
}

/** A number that JSON has rounded is worse than none: the first proposer will say the right one. */
function parseSystemId(value: number | string | null | undefined): bigint {
  if (value === null || value === undefined) return 0n;
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : 0n;
  return BigInt.asUintN(64, BigInt(value));
}
