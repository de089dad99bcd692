/**
 * Profiles of the running process, on every role.
 *
 * - `/profile/cpu` and `/profile/heap`, without authentication, as in the peer (libs/http-utils/src/endpoint.rs).
 *   The first: `seconds` 1–60 (5), `frequency` up to 1000 Hz (99), `format` pprof or svg; one at a time: a second is refused with 409, or
 *   with `force=true` ends the first, whose caller gets what it has. The second: `format` pprof or svg, at once.
 * - `/profile/heap/snapshot`, beyond the peer: every object, in V8's format. It shows memory's contents and stops the process for its
 *   while, so it wants a token (where none are asked for it is not there), and there is one at a time.
 */
import { z } from "@hono/zod-openapi";
import { liveBufferSamples } from "../kit/buffers.ts";
import { StrataError } from "../kit/errors.ts";
import { cpuFlameGraph, cpuPprof } from "../observability/cpu-profile.ts";
import { heapFlameGraph, heapPprof } from "../observability/heap-profile.ts";
import type { Clock } from "../platform/clock.ts";
import { sampleCpu } from "../platform/real/cpu-sampler.ts";
import { heapSnapshot, heapTotals } from "../platform/real/heap.ts";
import { booleanText, integerText } from "./params.ts";
import type { RouteRegistry } from "./route.ts";

const cpuQuery = z.object({
  format: z.enum(["pprof", "svg"]).default("pprof"),
  seconds: integerText.refine((seconds) => seconds >= 1 && seconds <= 60, "duration must be 1-60 secs").default(5),
  frequency: integerText.refine((hertz) => hertz >= 1 && hertz <= 1000, "frequency must be <=1000 Hz").default(99),
  force: booleanText.default(false),
});
const heapQuery = z.object({ format: z.enum(["pprof", "svg"], "format is pprof or svg").default("pprof") });
const PIECE_CHARACTERS = 1024 * 1024;

export function addProfileRoutes(app: RouteRegistry, { clock, auth }: { readonly clock: Clock; readonly auth: unknown }): void {
  app.route(
    {
      method: "get",
      path: "/profile/cpu",
      permission: { kind: "public" },
      summary: "Where this process spends its time",
      query: cpuQuery,
      responses: { 200: { description: "pprof protobuf, or a flame graph", contentType: "application/octet-stream" } },
    },
    async ({ query }) => {
      const samples = await sampleCpu({ durationMs: query.seconds * 1000, frequencyHz: query.frequency, force: query.force });
      return query.format === "svg" ? svgReply(cpuFlameGraph(samples)) : fileReply(cpuPprof(samples), "profile.pb");
    },
  );
  app.route(
    {
      method: "get",
      path: "/profile/heap",
      permission: { kind: "public" },
      summary: "What this process keeps in memory: buffers by who asked for them, objects by type",
      query: heapQuery,
      responses: { 200: { description: "pprof protobuf, or a flame graph", contentType: "application/octet-stream" } },
    },
    ({ query }) => {
      const state = { totals: heapTotals(), buffers: liveBufferSamples(), takenMs: clock.wallMs() };
      return query.format === "svg" ? svgReply(heapFlameGraph(state)) : fileReply(heapPprof(state), "heap.pb.gz");
    },
  );
  if (auth !== null) addSnapshotRoute(app);
}

function addSnapshotRoute(app: RouteRegistry): void {
  app.route(
    {
      method: "get",
      path: "/profile/heap/snapshot",
      permission: { kind: "scope", scopes: ["admin"] },
      summary: "All objects in memory, for a heap viewer; the process stands still meanwhile",
      responses: { 200: { description: "heap snapshot in V8's format", contentType: "application/json" } },
    },
    () => new Response(snapshotBody(), { headers: { "content-type": "application/json", "content-disposition": 'attachment; filename="strata.heapsnapshot"' } }),
  );
}

let snapshotUnderWay = false;

/** Nothing else may take one until this one was read or given up: it is about as large as the heap. */
function snapshotBody(): ReadableStream<Uint8Array> {
  if (snapshotUnderWay) throw new StrataError("conflict", "snapshot-running", "a heap snapshot is under way already");
  let text = heapSnapshot();
  snapshotUnderWay = true;
  const end = () => {
    snapshotUnderWay = false;
    text = "";
  };
  const encoder = new TextEncoder();
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= text.length) {
        end();
        controller.close();
        return;
      }
      controller.enqueue(encoder.encode(text.slice(at, at + PIECE_CHARACTERS)));
      at += PIECE_CHARACTERS;
    },
    cancel: end,
  });
}

function svgReply(svg: string): Response {
  return new Response(svg, { headers: { "content-type": "image/svg+xml" } });
}

function fileReply(bytes: Uint8Array, name: string): Response {
  return new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { "content-type": "application/octet-stream", "content-disposition": `attachment; filename="${name}"` } });
}
