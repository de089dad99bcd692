/** Routes that take a cluster from elsewhere: archives as the bodies of requests. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { integerText, lsnText, tenantIdText, timelineIdText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import { majorFromVersionNum } from "../../postgres/versions/major.ts";
import type { Imports } from "../import/imports.ts";

const params = z.object({ tenant_id: tenantIdText, timeline_id: timelineIdText });
const permission = { kind: "scope", scopes: ["tenant", "pageserverapi"], tenantParam: "tenant_id", timelineParam: "timeline_id" } as const;
const path = "/v1/tenant/:tenant_id/timeline/:timeline_id";
const done = { 200: { description: "done", schema: z.null() } };

export function addImportRoutes(app: HttpApp, { imports }: { readonly imports: Imports }): void {
  app.route(
    { method: "put", path: `${path}/import_basebackup`, permission, summary: "A timeline from a base backup: a tar archive", params, query: z.object({ base_lsn: lsnText, end_lsn: lsnText, pg_version: integerText }), rawBodyType: "application/x-tar", responses: done },
    async ({ params: { tenant_id: tenantId, timeline_id: timelineId }, query, raw }) => {
      await imports.baseBackup({ tenantId, timelineId }, { baseLsn: query.base_lsn, endLsn: query.end_lsn, pgVersion: majorFromVersionNum(query.pg_version * 10_000) }, bodyOf(raw));
      return jsonReply(200, null);
    },
  );
  app.route(
    { method: "put", path: `${path}/import_wal`, permission, summary: "WAL for an imported timeline: a tar archive of segments", params, query: z.object({ start_lsn: lsnText, end_lsn: lsnText }), rawBodyType: "application/x-tar", responses: done },
    async ({ params: { tenant_id: tenantId, timeline_id: timelineId }, query, raw }) => {
      await imports.wal({ tenantId, timelineId }, { startLsn: query.start_lsn, endLsn: query.end_lsn }, bodyOf(raw));
      return jsonReply(200, null);
    },
  );
}

function bodyOf(request: Request): AsyncIterable<Uint8Array> {
  if (request.body === null) throw new StrataError("fix-input", "bad-archive", "an archive is wanted as the body");
  return request.body;
}
