/**
 * A role's HTTP interface. Every route is registered through `route`, which wants a permission and gives in return:
 * authentication before anything else, authorization before the body is read, checked input, errors as the peer
 * prints them, a request id, a log line, a metric, and its place in the OpenAPI document.
 *
 *   const app = createHttpApp({ role: "safekeeper", log, auth, metrics, version, clock, random });
 *   app.route({ method: "get", path: "/v1/tenant/:tenant_id", summary: "…", params: z.object({ tenant_id: tenantIdText }),
 *     permission: { kind: "scope", scopes: ["tenant", "safekeeperdata"], tenantParam: "tenant_id" },
 *     responses: { 200: { description: "…", schema } } }, async ({ params }) => jsonReply(200, await …));
 *
 * Default deny: nothing is reachable that was not declared, and with authentication on an unknown path answers 401
 * or 403 to whoever could not have used a known one.
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { z } from "zod";
import { InvariantError, StrataError } from "../kit/errors.ts";
import { parseTenantShardId, parseTimelineId } from "../kit/ids.ts";
import type { Logger } from "../observability/log.ts";
import type { DurationChild, Family, Metrics } from "../observability/metrics.ts";
import { LATENCY_BUCKETS } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import { Pacer } from "../platform/pacer.ts";
import type { Random } from "../platform/random.ts";
import { bearerToken, checkPermission, type Claims, type JwtAuth, type Permission, type PermissionTarget } from "./auth.ts";
import { errorReply, statusOf } from "./errors.ts";
import { readJsonBody } from "./body.ts";
import { registerInDocument } from "./openapi.ts";
import { countScrapes, registerProcessMetrics } from "./process-metrics.ts";
import { addProfileRoutes } from "./profile-routes.ts";
import { checkRouteSpec, jsonReply, type RouteHandler, type RouteRegistry, type RouteSpec, type RouteSummary, type Undeclared } from "./route.ts";

export interface AuthConfig {
  readonly jwt: JwtAuth;
  /** The storage controller alone lets scope `admin` do what any other scope may. */
  readonly adminIsSuperset?: boolean;
}

export interface HttpAppOptions {
  readonly role: string;
  readonly log: Logger;
  /** null: authentication is off and everything is allowed, as in the peer. */
  readonly auth: AuthConfig | null;
  readonly metrics: Metrics;
  readonly version: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Bound of a JSON body; 16 MiB unless given. */
  readonly maxBodyBytes?: number;
  /** For a JSON body to come in; 60 s unless given. */
  readonly bodyTimeoutMs?: number;
  /** Checks every JSON reply against its declared schema: for tests. */
  readonly checkReplies?: boolean;
}

const DEFAULT_MAX_BODY_BYTES = 16 * 1024 * 1024;
const DEFAULT_BODY_TIMEOUT_MS = 60_000;
const REQUEST_ID_HEADER = "x-request-id";
/** Scraped and polled all the time: logged at debug only. */
const QUIET_PATHS = new Set(["/metrics", "/status", "/v1/status", "/ready"]);

function paused(clock: Clock): () => Promise<void> | undefined {
  const pacer = new Pacer(clock);
  return () => pacer.pause();
}

export function createHttpApp(options: HttpAppOptions): HttpApp {
  const app = new HttpApp(options);
  registerProcessMetrics(options.metrics, options);
  const scraped = countScrapes(options.metrics);
  app.route(
    { method: "get", path: "/status", permission: { kind: "public" }, summary: "Answers when the listener is up", responses: { 200: { description: "up", schema: z.null() } } },
    () => jsonReply(200, null),
  );
  app.route(
    { method: "get", path: "/metrics", permission: { kind: "public" }, summary: "Prometheus metrics", responses: { 200: { description: "text exposition format", contentType: "text/plain" } } },
    async () => {
      scraped();
      return new Response(await options.metrics.render(paused(options.clock)), { headers: { "content-type": options.metrics.contentType } });
    },
  );
  app.route(
    { method: "get", path: "/v1/openapi.json", permission: { kind: "public" }, summary: "This document", responses: { 200: { description: "OpenAPI 3.1", contentType: "application/json" } } },
    () => jsonReply(200, app.document()),
  );
  addProfileRoutes(app, options);
  return app;
}

export class HttpApp implements RouteRegistry {
  readonly #hono = new OpenAPIHono();
  readonly #options: HttpAppOptions;
  readonly #routes: RouteSummary[] = [];
  readonly #durations: Family<DurationChild>;

  constructor(options: HttpAppOptions) {
    this.#options = options;
    this.#durations = options.metrics.duration({
      name: "http_request_duration_seconds",
      help: "Time from a request's arrival to the head of its reply",
      labels: ["method", "route", "status"],
      buckets: LATENCY_BUCKETS,
    });
    this.#hono.openAPIRegistry.registerComponent("securitySchemes", "JWT", { type: "http", scheme: "bearer", bearerFormat: "JWT" });
    this.#hono.notFound((context) => this.#serve(context, null, async () => {
      this.#authenticate(context.req.raw);
      throw new StrataError("not-found", "no-such-route", "page not found");
    }));
  }

  /** All routes so far with their permissions. */
  get routes(): readonly RouteSummary[] {
    return this.#routes;
  }

  /** Declares a route. First declared, first matched. @throws InvariantError on a route without a usable permission */
  route<P extends z.ZodType = Undeclared, Q extends z.ZodType = Undeclared, H extends z.ZodType = Undeclared, B extends z.ZodType = z.ZodUndefined>(
    spec: RouteSpec<P, Q, H, B>,
    handler: RouteHandler<P, Q, H, B>,
  ): void {
    checkRouteSpec(spec);
    registerInDocument(this.#hono.openAPIRegistry, spec);
    this.#routes.push({ method: spec.method, path: spec.path, permission: spec.permission });
    this.#hono.on(spec.method.toUpperCase(), spec.path, (context) => this.#serve(context, spec, async (requestId) => {
      const request = context.req.raw;
      const rawParams = context.req.param() as Record<string, string>;
      const claims = this.#authorize(request, spec.permission, rawParams);
      const reply = await handler({
        params: parsePart("path", spec.params, rawParams),
        query: parsePart("query", spec.query, queryOf(request)),
        headers: parsePart("headers", spec.headers, Object.fromEntries(request.headers)),
        body: parsePart("body", spec.body, spec.body === undefined ? undefined : await this.#body(request, spec.bodyDefault)),
        claims,
        requestId,
        log: this.#options.log.child({ requestId, method: request.method, path: context.req.path }),
        signal: request.signal,
        raw: request,
      });
      if (this.#options.checkReplies === true) await checkReply(spec, reply);
      return reply;
    }));
  }

  #body(request: Request, absent: unknown): Promise<unknown> {
    const { maxBodyBytes: maxBytes = DEFAULT_MAX_BODY_BYTES, bodyTimeoutMs: timeoutMs = DEFAULT_BODY_TIMEOUT_MS, clock } = this.#options;
    return readJsonBody(request, { maxBytes, timeoutMs, clock, absent });
  }

  /** Serves one request; never rejects. */
  async fetch(request: Request): Promise<Response> {
    return this.#hono.fetch(request);
  }

  /** The OpenAPI 3.1 document of all routes so far. */
  document(): unknown {
    return this.#hono.getOpenAPI31Document({ openapi: "3.1.0", info: { title: `strata ${this.#options.role}`, version: this.#options.version } });
  }

  async #serve(context: Context, spec: RouteSummary | null, handle: (requestId: string) => Promise<Response>): Promise<Response> {
    const { clock, log } = this.#options;
    const startMs = clock.monotonicMs();
    const request = context.req.raw;
    const requestId = this.#requestId(request);
    let reply: Response;
    try {
      reply = await handle(requestId);
    } catch (error) {
      reply = errorReply(error);
      logFailure(log.child({ requestId, method: request.method, path: context.req.path }), error);
    }
    const durationMs = clock.monotonicMs() - startMs;
    this.#durations.with(request.method, spec?.path ?? "unknown", String(reply.status)).recordMs(durationMs);
    const quiet = request.method === "GET" || QUIET_PATHS.has(context.req.path);
    log[quiet ? "debug" : "info"]("request served", { requestId, method: request.method, path: context.req.path, status: reply.status, durationMs });
    return withHeader(reply, REQUEST_ID_HEADER, requestId);
  }

  #requestId(request: Request): string {
    const given = request.headers.get(REQUEST_ID_HEADER);
    return given !== null && /^[\w.:-]{1,128}$/.test(given) ? given : this.#options.random.bytes(16).toHex();
  }

  #authenticate(request: Request): Claims | null {
    const auth = this.#options.auth;
    if (auth === null) return null;
    const header = request.headers.get("authorization");
    if (header === null) throw new StrataError("unauthenticated", "missing-authorization", "missing authorization header");
    return auth.jwt.verify(bearerToken(header));
  }

  #authorize(request: Request, permission: Permission, params: Readonly<Record<string, string>>): Claims | null {
    if (permission.kind === "public") return null;
    const claims = this.#authenticate(request);
    if (claims === null) return null;
    const superset = claims.scope === "admin" && this.#options.auth?.adminIsSuperset === true;
    if (!superset) checkPermission(claims, permission, targetOf(permission, params));
    return claims;
  }
}

function targetOf(permission: Permission, params: Readonly<Record<string, string>>): PermissionTarget {
  if (permission.kind === "public") return {};
  const tenant = permission.tenantParam === undefined ? undefined : parseTenantShardId(params[permission.tenantParam]).tenantId;
  const timeline = permission.timelineParam === undefined ? undefined : parseTimelineId(params[permission.timelineParam]);
  return { ...(tenant === undefined ? {} : { tenantId: tenant }), ...(timeline === undefined ? {} : { timelineId: timeline }) };
}

/** @throws StrataError fix-input `bad-request` */
function parsePart<S extends z.ZodType>(part: string, schema: S | undefined, value: unknown): z.output<S> {
  // An undeclared part is handed on empty (typed so by `Undeclared`), never unchecked.
  if (schema === undefined) return (part === "body" ? undefined : {}) as z.output<S>;
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new StrataError("fix-input", "bad-request", `bad ${part}: ${z.prettifyError(parsed.error)}`);
}

function queryOf(request: Request): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = {};
  const params = new URL(request.url).searchParams;
  for (const name of params.keys()) {
    const values = params.getAll(name);
    query[name] = values.length === 1 ? values[0] : values;
  }
  return query;
}

function logFailure(log: Logger, error: unknown): void {
  const status = statusOf(error);
  if (status === 500) log.error("request failed", { error });
  else if (status === 401 || status === 403) log.warn("request refused", { error });
  else log.info("request failed", { error });
}

/** Replies of `fetch` have immutable headers: those are copied. */
function withHeader(reply: Response, name: string, value: string): Response {
  try {
    reply.headers.set(name, value);
    return reply;
  } catch {
    const copy = new Response(reply.body, reply);
    copy.headers.set(name, value);
    return copy;
  }
}

async function checkReply(spec: RouteSpec, reply: Response): Promise<void> {
  const declared = spec.responses[reply.status];
  const where = `${spec.method} ${spec.path} → ${reply.status}`;
  if (declared === undefined) throw new InvariantError(`${where} is not declared`);
  if (declared.schema === undefined) return;
  const parsed = declared.schema.safeParse(await reply.clone().json());
  if (!parsed.success) throw new InvariantError(`${where} does not match its schema: ${z.prettifyError(parsed.error)}`);
}
