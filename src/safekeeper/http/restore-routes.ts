/** A timeline of which there is nothing but the WAL backup. Not one of the peer's routes. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { tenantIdText, timelineIdText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import type { SafekeeperHttpOptions } from "./options.ts";

const lsn = z.string();
const restoredSchema = z.object({ timeline_start_lsn: lsn, commit_lsn: lsn, flush_lsn: lsn, unfinished_segment: z.string().nullable() });

export function restoreRoutes(app: HttpApp, { restore }: SafekeeperHttpOptions): void {
  app.route(
    {
      method: "post", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/restore_from_backup", summary: "Make a timeline that all safekeepers have lost from its WAL backup",
      permission: { kind: "scope", scopes: ["safekeeperdata"] }, params: z.object({ tenant_id: tenantIdText, timeline_id: timelineIdText }),
      body: z.object({ ignore_gap: z.boolean().optional() }), responses: { 200: { description: "how far the backup goes", schema: restoredSchema } },
    },
    async ({ params, body, signal }) => {
      if (restore === null) throw new StrataError("conflict", "no-backup", "this safekeeper backs up no WAL: it has no remote storage");
      const wal = await restore({ tenantId: params.tenant_id, timelineId: params.timeline_id }, { ignoreGap: body.ignore_gap === true, signal });
      return jsonReply(200, { timeline_start_lsn: lsnToString(wal.startLsn), commit_lsn: lsnToString(wal.commitLsn), flush_lsn: lsnToString(wal.flushLsn), unfinished_segment: wal.partial?.name ?? null });
    },
  );
}
