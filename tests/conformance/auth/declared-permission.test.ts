/** A route without a permission does not get past the type checker; one that is forced past it does not get past registration. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RouteSpec } from "../../../src/http/route.ts";
import { RoleApp } from "./role-apps.ts";

const ROOT = join(import.meta.dir, "../../..");

const FIXTURE = (permission: string): string => `
import type { HttpApp } from "../src/http/app.ts";
import { emptyReply } from "../src/http/route.ts";
export function add(app: HttpApp): void {
  app.route({ method: "get", path: "/v1/new", ${permission} summary: "new", responses: { 200: { description: "ok" } } }, () => emptyReply(200));
}
`;

/** Errors of a file with each of these permissions, by the project's own compiler and settings. */
function typeErrors(permissions: readonly string[]): string[] {
  // Inside the project, so that its modules resolve; the name keeps it out of every other program.
  const directory = mkdtempSync(join(ROOT, ".type-test-"));
  try {
    permissions.forEach((permission, index) => writeFileSync(join(directory, `fixture-${index}.ts`), FIXTURE(permission)));
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ extends: "../tsconfig.json", include: ["*.ts"] }));
    const result = Bun.spawnSync([process.execPath, "x", "tsc", "--noEmit", "-p", directory], { cwd: ROOT });
    const errors = (result.stdout.toString() + result.stderr.toString()).split(/^(?=\S)/m);
    return permissions.map((_, index) => errors.filter((error) => error.includes(`fixture-${index}.ts`)).join(""));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

test("the type checker, which every build runs through, wants a permission that is one", () => {
  const [everybody, scoped, missing, nothing, empty, unknownKind, noScopes, unknownScope] = typeErrors([
    'permission: { kind: "public" },', 'permission: { kind: "scope", scopes: ["infra"] },', "", "permission: undefined,", "permission: null,",
    'permission: { kind: "anybody" },', 'permission: { kind: "scope" },', 'permission: { kind: "scope", scopes: ["everything"] },',
  ]);
  expect([everybody, scoped]).toEqual(["", ""]);
  expect(missing).toContain("Property 'permission' is missing");
  for (const error of [nothing, empty, unknownKind]) expect(error).toContain("error TS");
  expect(noScopes).toContain("scopes");
  expect(unknownScope).toContain("everything");
}, 60_000);

test("registration wants it too", () => {
  const { app } = new RoleApp("broker");
  const before = app.routes.length;
  const base = { method: "get", path: "/v1/new/:tenant_id", params: { safeParse: () => ({}) }, summary: "new", responses: {} };
  for (const permission of [undefined, null, {}, { kind: "anybody" }, { kind: "scope", scopes: [] }, { kind: "scope", scopes: ["tenant"] }, { kind: "scope", scopes: ["tenant"], tenantParam: "nobody" }]) {
    expect(() => app.route({ ...base, permission } as unknown as RouteSpec, () => new Response())).toThrow();
  }
  expect(app.routes.length).toBe(before);
});
