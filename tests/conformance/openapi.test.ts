/** Each role's OpenAPI document says what a client generated from it would need, and nothing that leads nowhere. */
import { describe, expect, test } from "bun:test";
import { EXPECTED, type RoleName } from "./auth/expected-routes.ts";
import { RoleApp } from "./auth/role-apps.ts";

interface Media {
  readonly schema?: object;
}
interface Operation {
  readonly summary?: string;
  readonly security?: readonly object[];
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean; readonly schema?: object }[];
  readonly requestBody?: { readonly content: Record<string, Media> };
  readonly responses: Record<string, { readonly description?: string; readonly content?: Record<string, Media> }>;
}
interface Document {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly securitySchemes: Record<string, object> };
}

const METHODS = ["get", "put", "post", "delete", "patch"];

describe.each(Object.keys(EXPECTED) as RoleName[])("the document of %s", (name) => {
  const document = new RoleApp(name).app.document() as Document;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation, where: `${method} ${path}` })));

  test("is of its version, and has each route once with its path's parameters, all of them", () => {
    expect(document.openapi).toBe("3.1.0");
    expect(operations.map(({ where }) => where).sort()).toEqual(Object.keys(EXPECTED[name].routes).map((route) => route.replace(/:(\w+)/g, "{$1}").replace(/\*$/, "{rest}")).sort());
    for (const { path, method, operation, where } of operations) {
      expect([where, METHODS.includes(method)]).toEqual([where, true]);
      const inPath = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
      expect([where, inPath.map((parameter) => parameter.name).sort()]).toEqual([where, [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort()]);
      expect([where, inPath.every(({ required }) => required === true)]).toEqual([where, true]);
      expect([where, new Set(operation.parameters?.map((one) => `${one.in} ${one.name}`)).size]).toEqual([where, operation.parameters?.length ?? 0]);
    }
  });

  test("every parameter, body and answer has a schema; references lead somewhere; secured routes name a scheme that is there", () => {
    const text = JSON.stringify(document);
    for (const [, reference] of text.matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const found = reference.split("/").reduce<unknown>((at, part) => (at as Record<string, unknown> | undefined)?.[part], document);
      expect([reference, found !== undefined]).toEqual([reference, true]);
    }
    for (const { operation, where } of operations) {
      expect([where, (operation.summary ?? "").length > 3]).toEqual([where, true]);
      for (const parameter of operation.parameters ?? []) expect([where, parameter.name, Object.keys(parameter.schema ?? {}).length > 0]).toEqual([where, parameter.name, true]);
      for (const media of Object.values(operation.requestBody?.content ?? {})) expect([where, media.schema !== undefined]).toEqual([where, true]);
      expect([where, Object.keys(operation.responses).some((status) => /^[234]\d\d$/.test(status)), operation.responses.default !== undefined]).toEqual([where, true, true]);
      for (const response of Object.values(operation.responses)) {
        expect([where, (response.description ?? "") !== ""]).toEqual([where, true]);
        for (const media of Object.values(response.content ?? {})) expect([where, media.schema !== undefined]).toEqual([where, true]);
      }
      for (const scheme of operation.security?.flatMap((one) => Object.keys(one)) ?? []) expect([where, scheme in document.components.securitySchemes]).toEqual([where, true]);
    }
  });
});

test("a route that takes a whole body by itself says of what kind", () => {
  const { paths } = new RoleApp("pageserver").app.document() as Document;
  for (const what of ["import_basebackup", "import_wal"]) expect(Object.keys(paths[`/v1/tenant/{tenant_id}/timeline/{timeline_id}/${what}`].put.requestBody?.content ?? {})).toEqual(["application/x-tar"]);
});
