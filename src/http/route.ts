/** What a route is: its place, who may use it, the shapes of what comes in and goes out. */
import type { z } from "zod";
import { InvariantError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Claims, Permission } from "./auth.ts";

export type Method = "get" | "post" | "put" | "patch" | "delete";

export interface ResponseSpec {
  readonly description: string;
  /** Of a JSON body. */
  readonly schema?: z.ZodType;
  /** Of a body that is not JSON. */
  readonly contentType?: string;
}

/** The shape of a request part that was not declared: nothing of it is handed on. */
export type Undeclared = z.ZodType<Record<string, never>>;

export interface RouteSpec<
  P extends z.ZodType = z.ZodType,
  Q extends z.ZodType = z.ZodType,
  H extends z.ZodType = z.ZodType,
  B extends z.ZodType = z.ZodType,
> {
  readonly method: Method;
  /** `/v1/tenant/:tenant_shard_id`; a last segment `*` matches the rest. */
  readonly path: string;
  readonly permission: Permission;
  readonly summary: string;
  /** Of the path parameters, all of them. */
  readonly params?: P;
  readonly query?: Q;
  /** Header names in lower case. */
  readonly headers?: H;
  /** Of a JSON body. A route without it reads `raw.body` itself if it wants one. */
  readonly body?: B;
  /** Media type of a body that the route reads itself. */
  readonly rawBodyType?: string;
  /** An absent body is parsed as this instead of being refused. */
  readonly bodyDefault?: unknown;
  readonly responses: Readonly<Record<number, ResponseSpec>>;
}

export interface RouteRequest<P, Q, H, B> {
  readonly params: P;
  readonly query: Q;
  readonly headers: H;
  readonly body: B;
  /** Of the verified bearer; null on public routes and when authentication is off. */
  readonly claims: Claims | null;
  readonly requestId: string;
  /** Carries the request id. */
  readonly log: Logger;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
  /** For streaming bodies and pass-through. */
  readonly raw: Request;
}

export type RouteHandler<P extends z.ZodType, Q extends z.ZodType, H extends z.ZodType, B extends z.ZodType> = (
  request: RouteRequest<z.output<P>, z.output<Q>, z.output<H>, z.output<B>>,
) => Promise<Response> | Response;

/** Where routes are declared. */
export interface RouteRegistry {
  route<P extends z.ZodType = Undeclared, Q extends z.ZodType = Undeclared, H extends z.ZodType = Undeclared, B extends z.ZodType = z.ZodUndefined>(
    spec: RouteSpec<P, Q, H, B>,
    handler: RouteHandler<P, Q, H, B>,
  ): void;
}

/** A route as the permission matrix test sees it. */
export interface RouteSummary {
  readonly method: Method;
  readonly path: string;
  readonly permission: Permission;
}

export function jsonReply(status: number, value: unknown): Response {
  return Response.json(value, { status });
}

export function emptyReply(status: number): Response {
  return new Response(null, { status });
}

export function pathParams(path: string): string[] {
  return [...path.matchAll(/:([A-Za-z_]\w*)/g)].map((match) => match[1]);
}

/** `/a/:b/*` as OpenAPI writes it: `/a/{b}/{rest}`. */
export function openApiPath(path: string): string {
  return path.replace(/:([A-Za-z_]\w*)/g, "{$1}").replace(/\*$/, "{rest}");
}

/**
 * Refuses routes that nobody could call, or that anybody could.
 * @throws InvariantError
 */
export function checkRouteSpec(spec: RouteSpec): void {
  const name = `${spec.method} ${spec.path}`;
  const permission = spec.permission as Permission | undefined;
  if (permission === undefined || (permission.kind !== "public" && permission.kind !== "scope")) throw new InvariantError(`route ${name} declares no permission`);
  const params = pathParams(spec.path);
  if (params.length > 0 && spec.params === undefined) throw new InvariantError(`route ${name} has path parameters and no schema for them`);
  if (permission.kind === "public") return;
  if (permission.scopes.length === 0) throw new InvariantError(`route ${name} names no scope`);
  for (const param of [permission.tenantParam, permission.timelineParam]) {
    if (param !== undefined && !params.includes(param)) throw new InvariantError(`route ${name} has no path parameter ${param}`);
  }
  if (permission.scopes.includes("tenant") && permission.tenantParam === undefined) {
    throw new InvariantError(`route ${name} admits tenants' tokens without saying which parameter is the tenant`);
  }
}
