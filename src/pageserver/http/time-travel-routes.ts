/** The route that takes a detached tenant's objects back to a moment. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { TENANT_PERMISSION } from "./permissions.ts";
import { shardParams } from "./tenant-routes.ts";
import { timestampText } from "./timestamps.ts";

export function addTimeTravelRoutes(app: HttpApp, { tenants, clock }: { readonly tenants: Tenants; readonly clock: Clock }): void {
  app.route(
    {
      method: "put", path: "/v1/tenant/:tenant_shard_id/time_travel_remote_storage", permission: TENANT_PERMISSION, params: shardParams,
      summary: "A detached tenant's objects become what they were; keys changed after done_if_after have been dealt with before",
      query: z.object({ travel_to: timestampText, done_if_after: timestampText }), responses: { 200: { description: "done", schema: z.null() } },
    },
    async ({ params, query, signal }) => {
      // Object stores tell whole seconds, or milliseconds.
      const timestampMs = Number(query.travel_to / 1000n);
      const doneIfAfterMs = Number(query.done_if_after / 1000n);
      if (timestampMs > doneIfAfterMs) throw new StrataError("fix-input", "bad-timestamp", "done_if_after comes before the time to travel to");
      if (timestampMs > clock.wallMs()) throw new StrataError("fix-input", "bad-timestamp", "the time to travel to has not come yet");
      await tenants.timeTravel(params.tenant_shard_id, { timestampMs, doneIfAfterMs, signal });
      return jsonReply(200, null);
    },
  );
}
