/** Routes for an operator's hand: a timeline copied, its control file changed, its partial backup forgotten. */
import { z } from "@hono/zod-openapi";
import { StrataError } from "../../kit/errors.ts";
import type { HttpApp } from "../../http/app.ts";
import type { Permission } from "../../http/auth.ts";
import { lsnText, tenantIdText, timelineIdText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import { parsePatch, presentState } from "../control-file/json.ts";
import { copyTimeline } from "../timeline/copy-timeline.ts";
import { patchControlFile } from "../timeline/patch-control-file.ts";
import type { SafekeeperHttpOptions } from "./options.ts";

const NODE: Permission = { kind: "scope", scopes: ["safekeeperdata"] };
const ONE_TIMELINE: Permission = { kind: "scope", scopes: ["safekeeperdata", "tenant"], tenantParam: "tenant_id", timelineParam: "timeline_id" };
const timelineParams = z.object({ tenant_id: tenantIdText, timeline_id: timelineIdText });
const nothing = { 200: { description: "done", schema: z.null() } };
const stateJson = z.record(z.string(), z.unknown());

export function operatorRoutes(app: HttpApp, { timelines, dump, clock, backup }: SafekeeperHttpOptions): void {
  app.route(
    {
      method: "post", path: "/v1/tenant/:tenant_id/timeline/:source_timeline_id/copy", summary: "A new timeline with the WAL of this one up to an LSN", permission: NODE,
      params: z.object({ tenant_id: tenantIdText, source_timeline_id: timelineIdText }), body: z.object({ target_timeline_id: timelineIdText, until_lsn: lsnText }), responses: nothing,
    },
    async ({ params, body }) => {
      const [source, target] = [params.source_timeline_id, body.target_timeline_id].map((timelineId) => ({ tenantId: params.tenant_id, timelineId }));
      const copySegments = backup === null ? null : backup.whole.copySegments.bind(backup.whole);
      await copyTimeline({ source, target, untilLsn: body.until_lsn }, { timelines, files: dump.platform.files, sync: !dump.config.noSync, nowMs: clock.wallMs(), copySegments });
      return jsonReply(200, null);
    },
  );
  app.route(
    {
      method: "patch", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/control_file", summary: "Change fields of the control file", permission: NODE, params: timelineParams,
      body: z.object({ updates: stateJson, apply_fields: z.array(z.string()).max(100) }),
      responses: { 200: { description: "before and after", schema: z.object({ old_control_file: stateJson, new_control_file: stateJson }) } },
    },
    async ({ params, body }) => {
      const timeline = timelines.get({ tenantId: params.tenant_id, timelineId: params.timeline_id });
      const patch = parsePatch(body.updates, body.apply_fields);
      const before = presentState(timeline.state);
      await timeline.gate.run(() => patchControlFile(timeline, patch));
      timeline.log.warn("control file changed by hand", { fields: body.apply_fields.join(",") });
      return jsonReply(200, { old_control_file: before, new_control_file: presentState(timeline.state) });
    },
  );
  app.route(
    {
      method: "post", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/backup_partial_reset", summary: "Forget and remove the backup of the unfinished segment", permission: ONE_TIMELINE,
      params: timelineParams, responses: { 200: { description: "names of what may have been there", schema: z.array(z.string()) } },
    },
    async ({ params }) => {
      const timeline = timelines.get({ tenantId: params.tenant_id, timelineId: params.timeline_id });
      if (backup === null) throw new StrataError("conflict", "no-backup", "this safekeeper backs up no WAL: it has no remote storage");
      return jsonReply(200, await timeline.gate.run(() => backup.partial.reset(timeline)));
    },
  );
}
