/** A route's entry in the OpenAPI document. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { openApiPath, type ResponseSpec, type RouteSpec } from "./route.ts";

type DocumentRegistry = OpenAPIHono["openAPIRegistry"];
type PathConfig = Parameters<DocumentRegistry["registerPath"]>[0];

const ERROR_SCHEMA = z.object({ msg: z.string() });

export function registerInDocument(registry: DocumentRegistry, spec: RouteSpec): void {
  registry.registerPath({
    method: spec.method,
    path: openApiPath(spec.path),
    summary: spec.summary,
    ...security(spec),
    request: {
      ...pathParameters(spec),
      ...(spec.query === undefined ? {} : { query: objectSchema(spec.query) }),
      ...(spec.headers === undefined ? {} : { headers: objectSchema(spec.headers) }),
      ...(spec.body === undefined ? {} : { body: { required: spec.bodyDefault === undefined, content: { "application/json": { schema: spec.body } } } }),
      ...(spec.rawBodyType === undefined ? {} : { body: { required: true, content: { [spec.rawBodyType]: { schema: z.string().openapi({ format: "binary" }) } } } }),
    },
    responses: responses(spec),
  });
}

/** What a last segment `*` stands for is a parameter in the document. */
function pathParameters(spec: RouteSpec): { params?: z.ZodObject } {
  const params = spec.params === undefined ? null : objectSchema(spec.params);
  if (!spec.path.endsWith("*")) return params === null ? {} : { params };
  return { params: (params ?? z.object({})).extend({ rest: z.string() }) };
}

/** Parameters can only be listed from an object; anything else would be a route without documented parameters. */
function objectSchema(schema: z.ZodType): z.ZodObject {
  if (schema instanceof z.ZodObject) return schema;
  throw new TypeError("path, query and header schemas must be objects");
}

function security(spec: RouteSpec): Pick<PathConfig, "security" | "description"> {
  if (spec.permission.kind === "public") return { security: [] };
  return { security: [{ JWT: [] }], description: `Scopes: ${spec.permission.scopes.join(", ")}` };
}

function responses(spec: RouteSpec): PathConfig["responses"] {
  const entries: PathConfig["responses"] = { default: { description: "error", content: { "application/json": { schema: ERROR_SCHEMA } } } };
  for (const [status, response] of Object.entries(spec.responses)) {
    entries[status as `${1 | 2 | 3 | 4 | 5}XX`] = responseEntry(response);
  }
  return entries;
}

function responseEntry(response: ResponseSpec): PathConfig["responses"][string] {
  if (response.schema !== undefined) return { description: response.description, content: { "application/json": { schema: response.schema } } };
  if (response.contentType !== undefined) return { description: response.description, content: { [response.contentType]: { schema: z.string() } } };
  return { description: response.description };
}
