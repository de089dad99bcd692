/**
 * `/profile/cpu`, on every role and without authentication, as in the peer (libs/utils/src/http/endpoint.rs): `seconds` 1–60 (5),
 * `frequency` up to 1000 Hz (99), `format` pprof or svg. One at a time: a second is refused with 409, or with `force=true` ends the
 * first, whose caller gets what it has.
 */
import { z } from "@hono/zod-openapi";
import { encodePprof, renderFlameGraph } from "../observability/cpu-profile.ts";
import { sampleCpu } from "../platform/real/cpu-sampler.ts";
import type { HttpApp } from "./app.ts";
import { booleanText, integerText } from "./params.ts";

const querySchema = z.object({
  format: z.enum(["pprof", "svg"]).default("pprof"),
  seconds: integerText.refine((seconds) => seconds >= 1 && seconds <= 60, "duration must be 1-60 secs").default(5),
  frequency: integerText.refine((hertz) => hertz >= 1 && hertz <= 1000, "frequency must be <=1000 Hz").default(99),
  force: booleanText.default(false),
});

export function addProfileRoutes(app: HttpApp): void {
  app.route(
    {
      method: "get",
      path: "/profile/cpu",
      permission: { kind: "public" },
      summary: "Where this process spends its time",
      query: querySchema,
      responses: { 200: { description: "pprof protobuf, or a flame graph", contentType: "application/octet-stream" } },
    },
    async ({ query }) => {
      const samples = await sampleCpu({ durationMs: query.seconds * 1000, frequencyHz: query.frequency, force: query.force });
      if (query.format === "svg") return new Response(renderFlameGraph(samples), { headers: { "content-type": "image/svg+xml" } });
      const headers = { "content-type": "application/octet-stream", "content-disposition": 'attachment; filename="profile.pb"' };
      return new Response(encodePprof(samples) as Uint8Array<ArrayBuffer>, { headers });
    },
  );
}
