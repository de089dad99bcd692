import { expect, test } from "bun:test";
import { z } from "@hono/zod-openapi";
import { createHttpApp, type HttpAppOptions } from "../../src/http/app.ts";
import { generateTokenKeys, JwtAuth, SCOPES, signToken } from "../../src/http/auth.ts";
import { HttpClient, urlPath } from "../../src/http/client.ts";
import { integerText, lsnText, tenantShardIdText, timelineIdText } from "../../src/http/params.ts";
import { emptyReply, jsonReply, type RouteSpec } from "../../src/http/route.ts";
import { serveHttp } from "../../src/http/serve.ts";
import { isStrataError, StrataError } from "../../src/kit/errors.ts";
import { Metrics } from "../../src/observability/metrics.ts";
import { RealClock } from "../../src/platform/real/clock.ts";
import { RealRandom } from "../../src/platform/real/random.ts";
import { newCertificate, selfSignedCertificate } from "../support/certificate.ts";
import { testLogger } from "../support/test-logger.ts";

const TENANT = "3d1f7595b468230304e0b73cecbcb081";
const OTHER = "00000000000000000000000000000001";
const TIMELINE = "11223344556677881122334455667788";
const keys = generateTokenKeys();
const clock = new RealClock();

function makeApp(options: Partial<HttpAppOptions> = {}) {
  const log = testLogger();
  const auth = { jwt: JwtAuth.fromPem(keys.publicKeyPem, { wallMs: () => clock.wallMs() }) };
  const app = createHttpApp({ role: "test", log, auth, metrics: new Metrics(), version: "1", clock, random: new RealRandom(), checkReplies: true, ...options });
  app.route(
    {
      method: "get",
      path: "/v1/tenant/:tenant_shard_id/timeline/:timeline_id/lsn",
      permission: { kind: "scope", scopes: ["tenant", "pageserverapi"], tenantParam: "tenant_shard_id", timelineParam: "timeline_id" },
      summary: "an LSN doubled",
      params: z.object({ tenant_shard_id: tenantShardIdText, timeline_id: timelineIdText }),
      query: z.object({ lsn: lsnText, times: integerText.default(2) }),
      responses: { 200: { description: "ok", schema: z.object({ tenant: z.string(), shard: z.number(), lsn: z.number() }) } },
    },
    ({ params, query }) => jsonReply(200, { tenant: params.tenant_shard_id.tenantId, shard: params.tenant_shard_id.number, lsn: query.lsn * query.times }),
  );
  app.route(
    {
      method: "post",
      path: "/v1/echo",
      permission: { kind: "scope", scopes: ["admin"] },
      summary: "says it again",
      body: z.object({ text: z.string() }),
      responses: { 200: { description: "ok", schema: z.object({ text: z.string() }) } },
    },
    ({ body }) => jsonReply(200, body),
  );
  return { app, log };
}

function bearer(claims: Parameters<typeof signToken>[0]): Record<string, string> {
  return { authorization: `Bearer ${signToken(claims, keys.privateKeyPem)}` };
}

const get = (path: string, headers: Record<string, string> = {}) => new Request(`http://x${path}`, { headers });

test("parameters, queries and shard ids are parsed, bad ones are a 400 in the peer's form", async () => {
  const { app } = makeApp({ auth: null });
  const reply = await app.fetch(get(`/v1/tenant/${TENANT}-0102/timeline/${TIMELINE}/lsn?lsn=0/10`));
  expect(await reply.json()).toEqual({ tenant: TENANT, shard: 1, lsn: 32 });
  const bad = await app.fetch(get(`/v1/tenant/${TENANT}/timeline/${TIMELINE}/lsn?lsn=zz`));
  expect(bad.status).toBe(400);
  expect(Object.keys((await bad.json()) as object)).toEqual(["msg"]);
  const twice = await app.fetch(get(`/v1/tenant/${TENANT}/timeline/${TIMELINE}/lsn?lsn=0/1&lsn=0/2`));
  expect(twice.status).toBe(400);
});

test("every scope × route × tenant cell", async () => {
  const { app, log } = makeApp();
  log.expectWarn("request refused");
  const urls: Record<string, string> = {
    "/v1/tenant/:tenant_shard_id/timeline/:timeline_id/lsn": `/v1/tenant/${TENANT}/timeline/${TIMELINE}/lsn?lsn=0/1`,
    "/v1/echo": "/v1/echo",
    "/status": "/status",
    "/metrics": "/metrics",
    // Refused for its parameters, but only after it was let in.
    "/profile/cpu": "/profile/cpu?seconds=0",
    "/profile/heap": "/profile/heap?format=svg",
    "/profile/heap/snapshot": "/profile/heap/snapshot",
    "/v1/openapi.json": "/v1/openapi.json",
  };
  for (const route of app.routes) {
    for (const scope of SCOPES) {
      for (const tenantId of [TENANT, OTHER]) {
        const init = { method: route.method.toUpperCase(), headers: bearer({ scope, tenantId }), ...(route.method === "post" ? { body: '{"text":"a"}' } : {}) };
        const reply = await app.fetch(new Request(`http://x${urls[route.path]}`, init));
        await reply.body?.cancel();
        const permission = route.permission;
        const allowed = permission.kind === "public" || (permission.scopes.includes(scope) && (scope !== "tenant" || tenantId === TENANT));
        expect(`${route.path} ${scope} ${reply.status}`).toBe(`${route.path} ${scope} ${!allowed ? 403 : route.path === "/profile/cpu" ? 400 : 200}`);
      }
    }
  }
});

test("no token, a malformed one, an unknown path", async () => {
  const { app, log } = makeApp();
  log.expectWarn("request refused");
  expect((await app.fetch(get("/v1/echo"))).status).toBe(401);
  expect((await app.fetch(get("/nowhere"))).status).toBe(401);
  expect((await app.fetch(get("/nowhere", { authorization: "Basic abc" }))).status).toBe(401);
  expect((await app.fetch(get("/nowhere", { authorization: "Bearer abc" }))).status).toBe(403);
  const known = await app.fetch(get("/nowhere", bearer({ scope: "admin" })));
  expect(known.status).toBe(404);
  expect(await known.json()).toEqual({ msg: "page not found" });
  // The allowlist looks at the path, never at the query.
  expect((await app.fetch(get("/v1/echo?x=/status"))).status).toBe(401);
  const refused = await app.fetch(get("/v1/echo", { authorization: "Bearer abc" }));
  expect(await refused.json()).toEqual({ msg: "Forbidden: JWT authentication error" });
});

test("admin is a superset only where it is said to be", async () => {
  const path = `/v1/tenant/${TENANT}/timeline/${TIMELINE}/lsn?lsn=0/1`;
  const jwt = JwtAuth.fromPem(keys.publicKeyPem, { wallMs: () => clock.wallMs() });
  const { app, log } = makeApp();
  log.expectWarn("request refused");
  expect((await app.fetch(get(path, bearer({ scope: "admin" })))).status).toBe(403);
  expect((await makeApp({ auth: { jwt, adminIsSuperset: true } }).app.fetch(get(path, bearer({ scope: "admin" })))).status).toBe(200);
});

test("bodies: checked, required, bounded", async () => {
  const { app } = makeApp({ auth: null, maxBodyBytes: 100 });
  const post = (body?: string) => app.fetch(new Request("http://x/v1/echo", { method: "POST", ...(body === undefined ? {} : { body }) }));
  expect((await post('{"text":"hi"}')).status).toBe(200);
  expect((await post()).status).toBe(400);
  expect((await post("{")).status).toBe(400);
  expect((await post('{"text":1}')).status).toBe(400);
  expect((await post(JSON.stringify({ text: "x".repeat(200) }))).status).toBe(413);
});

test("a route without a usable permission cannot be declared", () => {
  const { app } = makeApp();
  const base = { method: "get", path: "/v1/a/:t", summary: "s", params: z.object({ t: z.string() }), responses: {} } as const;
  const declare = (spec: unknown) => () => app.route(spec as RouteSpec, () => emptyReply(200));
  expect(declare(base)).toThrow("declares no permission");
  expect(declare({ ...base, permission: { kind: "scope", scopes: [] } })).toThrow("names no scope");
  expect(declare({ ...base, permission: { kind: "scope", scopes: ["tenant"] } })).toThrow("which parameter");
  expect(declare({ ...base, permission: { kind: "scope", scopes: ["admin"], tenantParam: "x" } })).toThrow("no path parameter x");
  expect(declare({ ...base, params: undefined, permission: { kind: "public" } })).toThrow("no schema");
  // @ts-expect-error a permission is mandatory for the type checker too
  const missing: RouteSpec = base;
  expect(missing).toBeDefined();
});

test("the document lists every route with its parameters and scopes", async () => {
  const { app } = makeApp();
  const document = (await (await app.fetch(get("/v1/openapi.json"))).json()) as { paths: Record<string, Record<string, { parameters?: { name: string; in: string }[]; description?: string }>> };
  expect(Object.keys(document.paths).sort()).toEqual(["/metrics", "/profile/cpu", "/profile/heap", "/profile/heap/snapshot", "/status", "/v1/echo", "/v1/openapi.json", "/v1/tenant/{tenant_shard_id}/timeline/{timeline_id}/lsn"]);
  const route = document.paths["/v1/tenant/{tenant_shard_id}/timeline/{timeline_id}/lsn"].get;
  expect(route.parameters?.map((p) => `${p.in}:${p.name}`)).toEqual(["path:tenant_shard_id", "path:timeline_id", "query:lsn", "query:times"]);
  expect(route.description).toBe("Scopes: tenant, pageserverapi");
});

test("over a socket: errors keep code and kind, request ids are echoed, deadlines hold", async () => {
  const { app, log } = makeApp({ auth: null });
  log.expectWarn("disk on fire");
  const kinds = { conflict: 409, retry: 503, "not-found": 404, corrupt: 500 } as const;
  app.route(
    { method: "get", path: "/fail/:kind", permission: { kind: "public" }, summary: "fails", params: z.object({ kind: z.enum(["conflict", "retry", "not-found", "corrupt"]) }), responses: {} },
    ({ params }) => {
      throw new StrataError(params.kind, "my-code", "outer", { cause: new Error("disk on fire") });
    },
  );
  app.route({ method: "get", path: "/slow", permission: { kind: "public" }, summary: "never", responses: { 200: { description: "late" } } }, async ({ signal }) => {
    await clock.sleep(60_000, signal).catch(() => undefined);
    return emptyReply(200);
  });
  const server = serveHttp(app, { host: "127.0.0.1", port: 0 });
  try {
    const client = new HttpClient({ baseUrl: `http://127.0.0.1:${server.port}`, clock });
    for (const [kind, status] of Object.entries(kinds)) {
      const error = await client.json({ method: "GET", path: urlPath`/fail/${kind}` }, z.null()).catch((thrown: unknown) => thrown);
      expect(isStrataError(error, "my-code") && [error.kind, error.details.status, error.message]).toEqual([kind as "retry", status, `GET /fail/${kind}: HTTP ${status}: outer: disk on fire`]);
    }
    const raw = await client.raw({ method: "GET", path: "/status", headers: { "x-request-id": "abc-1" } });
    expect(raw.headers.get("x-request-id")).toBe("abc-1");
    const slow = await client.empty({ method: "GET", path: "/slow", timeoutMs: 50 }).catch((thrown: unknown) => thrown);
    expect(isStrataError(slow, "request-timeout")).toBe(true);
    const wrong = await client.json({ method: "GET", path: "/status" }, z.string()).catch((thrown: unknown) => thrown);
    expect(isStrataError(wrong, "bad-reply")).toBe(true);
    expect(await client.json({ method: "POST", path: "/v1/echo", json: { text: "é" } }, z.object({ text: z.string() }))).toEqual({ text: "é" });
  } finally {
    await server.stop({ graceMs: 100 });
  }
  const gone = await new HttpClient({ baseUrl: `http://127.0.0.1:${server.port}`, clock }).empty({ method: "GET", path: "/status", connectRetries: 1 }).catch((thrown: unknown) => thrown);
  expect(isStrataError(gone, "connect-failed")).toBe(true);
});

test("over TLS, with the certificate replaced while it serves", async () => {
  const { app } = makeApp({ auth: null });
  const first = selfSignedCertificate();
  const second = newCertificate();
  const server = serveHttp(app, { host: "127.0.0.1", port: 0, tls: first });
  const fetchWith = (caPem: string) => new HttpClient({ baseUrl: `https://localhost:${server.port}`, clock, caPem }).json({ method: "GET", path: "/status" }, z.null());
  try {
    expect(await fetchWith(first.certPem)).toBeNull();
    await expect(fetchWith(second.certPem)).rejects.toThrow("cannot reach");
    await server.reloadTls(second);
    expect(await fetchWith(second.certPem)).toBeNull();
  } finally {
    await server.stop({ graceMs: 100 });
  }
});

test("stopping lets a request in flight finish, and cuts it off after the grace", async () => {
  const { app } = makeApp({ auth: null });
  app.route(
    { method: "get", path: "/wait/:ms", permission: { kind: "public" }, summary: "waits", params: z.object({ ms: integerText }), responses: { 204: { description: "done" } } },
    async ({ params, signal }) => {
      await clock.sleep(params.ms, signal).catch(() => undefined);
      return emptyReply(204);
    },
  );
  const server = serveHttp(app, { host: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${server.port}/wait`;
  const [short, long] = [fetch(`${url}/150`), fetch(`${url}/20000`).catch(() => "cut off")];
  await clock.sleep(50);
  const startMs = clock.monotonicMs();
  await server.stop({ graceMs: 600 });
  expect(clock.monotonicMs() - startMs).toBeLessThan(3000);
  expect((await short).status).toBe(204);
  expect(await long).toBe("cut off");
  await expect(fetch(`${url}/0`)).rejects.toThrow();
});
