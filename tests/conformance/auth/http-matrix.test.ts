/** Every route of every role × every scope × whose tenant and timeline the token is for: cell by cell, over the routes the applications really have. */
import { describe, expect, test } from "bun:test";
import { type Claims, SCOPES } from "../../../src/http/auth.ts";
import type { RouteSummary } from "../../../src/http/route.ts";
import { EXPECTED, type Expectation, type RoleExpectations, type RoleName } from "./expected-routes.ts";
import { RoleApp } from "./role-apps.ts";
import { badTokens, OTHER_TENANT, OTHER_TIMELINE, TENANT, TIMELINE, token } from "./tokens.ts";

const ROLES = Object.keys(EXPECTED) as RoleName[];

const nameOf = (route: RouteSummary): string => `${route.method} ${route.path}`;

/** Profiles are refused for a parameter, once they have let somebody in: they take their time. */
const REFUSED_QUERIES: Readonly<Record<string, string>> = { "/profile/cpu": "?seconds=0", "/profile/heap": "?format=jemalloc" };

/** The route's path with TENANT and TIMELINE in it. */
function urlOf(path: string): string {
  const filled = path.replace(/:(tenant_shard_id|tenant_id)/, TENANT).replace(":timeline_id", TIMELINE).replace(/:(node_id|destination_id|name)/, "1").replace("*", "rest");
  return `http://x${filled}${REFUSED_QUERIES[path] ?? ""}`;
}

async function statusOf(role: RoleApp, route: RouteSummary, headers: Record<string, string>): Promise<number> {
  const method = route.method.toUpperCase();
  const reply = await role.app.fetch(new Request(urlOf(route.path), { method, headers, ...(method === "GET" ? {} : { body: "{}" }) }));
  return reply.status;
}

const bearer = (text: string): Record<string, string> => ({ authorization: `Bearer ${text}` });
const isRefusal = (status: number): boolean => status === 401 || status === 403;

/** Every kind of bearer: scope × tenant × timeline. */
function allClaims(): Claims[] {
  const all: Claims[] = [];
  for (const scope of SCOPES) {
    for (const tenantId of [undefined, TENANT, OTHER_TENANT]) {
      for (const timelineId of [undefined, TIMELINE, OTHER_TIMELINE]) {
        all.push({ scope, ...(tenantId === undefined ? {} : { tenantId }), ...(timelineId === undefined ? {} : { timelineId }) });
      }
    }
  }
  return all;
}

/** Signed once: every route is asked with all of them. */
const BEARERS = allClaims().map((claims) => ({ claims, headers: bearer(token(claims)) }));

/** By the table alone. */
function mayPass(claims: Claims, expectation: Expectation, role: RoleExpectations): boolean {
  if (expectation.scopes === null) return true;
  if (claims.scope === "admin" && role.adminIsSuperset) return true;
  if (!expectation.scopes.includes(claims.scope)) return false;
  if (claims.scope === "tenant" && (expectation.tenantParam === undefined || claims.tenantId !== TENANT)) return false;
  return claims.timelineId === undefined || (expectation.timelineParam !== undefined && claims.timelineId === TIMELINE);
}

describe.each(ROLES)("%s", (name) => {
  const role = new RoleApp(name);
  const { routes } = EXPECTED[name];

  test("the table names every route and no other", () => {
    expect(role.app.routes.map(nameOf).sort()).toEqual(Object.keys(routes).sort());
  });

  test("no token: 401 everywhere but on public routes, and nothing is touched", async () => {
    for (const route of role.app.routes) {
      const open = routes[nameOf(route)]?.scopes === null;
      role.reached = 0;
      const without: Record<string, string>[] = [{}, { authorization: "Basic dXNlcjpwYXNz" }, { authorization: "Bearer" }, { authorization: "" }];
      for (const headers of without) {
        expect([nameOf(route), headers, isRefusal(await statusOf(role, route, headers))]).toEqual([nameOf(route), headers, !open]);
        if (!open) expect([nameOf(route), await statusOf(role, route, headers), role.reached]).toEqual([nameOf(route), 401, 0]);
      }
    }
  });

  test("a token that is no good: 403, and nothing is touched", async () => {
    for (const route of role.app.routes) {
      const { scopes } = routes[nameOf(route)];
      if (scopes === null) continue;
      role.reached = 0;
      const claims: Claims = { scope: scopes[0], tenantId: TENANT };
      expect([nameOf(route), isRefusal(await statusOf(role, route, bearer(token(claims))))]).toEqual([nameOf(route), false]);
      role.reached = 0;
      for (const [what, bad] of Object.entries(badTokens(claims))) {
        expect([nameOf(route), what, await statusOf(role, route, bearer(bad)), role.reached]).toEqual([nameOf(route), what, 403, 0]);
      }
    }
  });

  test("each scope, tenant and timeline: in where the table says so, 403 elsewhere", async () => {
    let cells = 0;
    for (const route of role.app.routes) {
      const expectation = routes[nameOf(route)];
      for (const { claims, headers } of BEARERS) {
        role.reached = 0;
        const status = await statusOf(role, route, headers);
        const allowed = mayPass(claims, expectation, EXPECTED[name]);
        const cell = `${nameOf(route)} ${JSON.stringify(claims)}`;
        expect(`${cell}: ${allowed ? !isRefusal(status) : status}`).toBe(`${cell}: ${allowed ? true : 403}`);
        if (!allowed) expect([cell, role.reached]).toEqual([cell, 0]);
        cells++;
      }
    }
    expect(cells).toBe(role.app.routes.length * SCOPES.length * 9);
  }, 30_000);
});

test("there are matrix cells in which a tenant's own token passes and another's does not", () => {
  const bound = ROLES.flatMap((name) => Object.values(EXPECTED[name].routes)).filter(({ scopes }) => scopes?.includes("tenant"));
  expect(bound.length).toBeGreaterThan(15);
  expect(bound.every(({ tenantParam }) => tenantParam !== undefined)).toBe(true);
});

test.each(ROLES.filter((name) => name !== "compute" && name !== "dev"))("%s: what is not there answers nobody without a token, whatever its path looks like", async (name) => {
  const { app } = new RoleApp(name);
  for (const path of ["/nowhere", "/v1", "/v1/tenant/x/y/z/status", "//status", "/status/", "/metrics/../v1/tenant", "/%73tatus2", "/v1/%2e%2e/v1/tenant"]) {
    expect([path, (await app.fetch(new Request(`http://x${path}`))).status]).toEqual([path, 401]);
    expect([path, (await app.fetch(new Request(`http://x${path}`, { method: "POST", body: "{}" }))).status]).toEqual([path, 401]);
  }
});
