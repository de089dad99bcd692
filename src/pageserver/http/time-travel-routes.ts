/** The route that takes a detached tenant's objects back to a moment. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { parsedString } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { TENANT_PERMISSION } from "./permissions.ts";
import { shardParams } from "./tenant-routes.ts";

const RFC_3339_UTC = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/;

/** Milliseconds; what is finer is cut off. @throws StrataError fix-input `bad-timestamp` */
function parseTime(text: string): number {
  const timeMs = RFC_3339_UTC.test(text) ? Date.parse(text) : Number.NaN;
  // Days that a month does not have would become days of the next.
  if (Number.isNaN(timeMs) || new Date(timeMs).toISOString().slice(0, 19) !== text.slice(0, 19)) throw new StrataError("fix-input", "bad-timestamp", `"${text}" is not an RFC 3339 time in UTC`);
  return timeMs;
}

const timeText = parsedString(parseTime, "RFC 3339 time in UTC, such as 2026-01-31T12:00:00Z");

export function addTimeTravelRoutes(app: HttpApp, { tenants, clock }: { readonly tenants: Tenants; readonly clock: Clock }): void {
  app.route(
    {
      method: "put", path: "/v1/tenant/:tenant_shard_id/time_travel_remote_storage", permission: TENANT_PERMISSION, params: shardParams,
      summary: "A detached tenant's objects become what they were; keys changed after done_if_after have been dealt with before",
      query: z.object({ travel_to: timeText, done_if_after: timeText }), responses: { 200: { description: "done", schema: z.null() } },
    },
    async ({ params, query, signal }) => {
      const { travel_to: timestampMs, done_if_after: doneIfAfterMs } = query;
      if (timestampMs > doneIfAfterMs) throw new StrataError("fix-input", "bad-timestamp", "done_if_after comes before the time to travel to");
      if (timestampMs > clock.wallMs()) throw new StrataError("fix-input", "bad-timestamp", "the time to travel to has not come yet");
      await tenants.timeTravel(params.tenant_shard_id, { timestampMs, doneIfAfterMs, signal });
      return jsonReply(200, null);
    },
  );
}
