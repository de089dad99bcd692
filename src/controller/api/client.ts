/** Typed client of the controller: for pageservers (upcalls), the `dev` supervisor and `ctl`. */
import { z } from "zod";
import { HttpClient, type HttpClientOptions, urlPath } from "../../http/client.ts";
import type { NodeId, TenantId, TimelineId } from "../../kit/ids.ts";
import { type NodeDescribeResponse, nodeDescribeResponseSchema } from "./nodes.ts";
import {
  type TenantConfig, type TenantCreateRequest, type TenantCreateResponse, tenantCreateResponseSchema, type TenantDescribeResponse,
  tenantDescribeResponseSchema, type TenantLocateResponse, tenantLocateResponseSchema, type TenantPolicyRequest, type TimelineCreateRequest,
} from "./tenants.ts";
import { type ReAttachRequest, type ReAttachResponse, reAttachResponseSchema, type ValidateRequest, type ValidateResponse, validateResponseSchema } from "./upcall.ts";

/** Creating a timeline may run initdb. */
const CREATE_TIMEOUT_MS = 120_000;

/** All methods throw what the controller answered as StrataError, or unavailable `connect-failed`. */
export class ControllerClient {
  readonly #http: HttpClient;

  constructor(options: HttpClientOptions) {
    this.#http = new HttpClient(options);
  }

  async ready(): Promise<boolean> {
    return (await this.#http.raw({ method: "GET", path: "/ready" })).status === 200;
  }

  reAttach(request: ReAttachRequest, signal?: AbortSignal): Promise<ReAttachResponse> {
    return this.#http.json({ method: "POST", path: "/upcall/v1/re-attach", json: request, ...(signal === undefined ? {} : { signal }) }, reAttachResponseSchema);
  }

  validate(request: ValidateRequest, signal?: AbortSignal): Promise<ValidateResponse> {
    return this.#http.json({ method: "POST", path: "/upcall/v1/validate", json: request, ...(signal === undefined ? {} : { signal }) }, validateResponseSchema);
  }

  nodes(): Promise<NodeDescribeResponse[]> {
    return this.#http.json({ method: "GET", path: "/control/v1/node" }, z.array(nodeDescribeResponseSchema));
  }

  deleteNode(id: NodeId): Promise<void> {
    return this.#http.empty({ method: "DELETE", path: urlPath`/control/v1/node/${id}` });
  }

  tenants(): Promise<TenantDescribeResponse[]> {
    return this.#http.json({ method: "GET", path: "/control/v1/tenant" }, z.array(tenantDescribeResponseSchema));
  }

  describeTenant(id: TenantId): Promise<TenantDescribeResponse> {
    return this.#http.json({ method: "GET", path: urlPath`/control/v1/tenant/${id}` }, tenantDescribeResponseSchema);
  }

  createTenant(request: TenantCreateRequest): Promise<TenantCreateResponse> {
    return this.#http.json({ method: "POST", path: "/v1/tenant", json: request, timeoutMs: CREATE_TIMEOUT_MS }, tenantCreateResponseSchema);
  }

  /** Resolves when it is gone: the API answers a finished deletion with 404. */
  async deleteTenant(id: TenantId): Promise<void> {
    await this.#http.raw({ method: "DELETE", path: urlPath`/v1/tenant/${id}`, timeoutMs: CREATE_TIMEOUT_MS });
  }

  locate(id: TenantId): Promise<TenantLocateResponse> {
    return this.#http.json({ method: "GET", path: urlPath`/debug/v1/tenant/${id}/locate` }, tenantLocateResponseSchema);
  }

  setPolicy(id: TenantId, request: TenantPolicyRequest): Promise<void> {
    return this.#http.empty({ method: "PUT", path: urlPath`/control/v1/tenant/${id}/policy`, json: request });
  }

  setConfig(id: TenantId, config: TenantConfig, how: "replace" | "patch"): Promise<void> {
    return this.#http.empty({ method: how === "replace" ? "PUT" : "PATCH", path: "/v1/tenant/config", json: { tenant_id: id, ...config } });
  }

  /** The pageserver's timeline info, parsed by `schema`. */
  createTimeline<S extends z.ZodType>(id: TenantId, request: TimelineCreateRequest, schema: S): Promise<z.output<S>> {
    return this.#http.json({ method: "POST", path: urlPath`/v1/tenant/${id}/timeline`, json: request, timeoutMs: CREATE_TIMEOUT_MS }, schema);
  }

  deleteTimeline(id: TenantId, timelineId: TimelineId): Promise<void> {
    return this.#http.empty({ method: "DELETE", path: urlPath`/v1/tenant/${id}/timeline/${timelineId}` });
  }

  /** A pageserver's GET below `/v1/tenant/<id>`, passed through to shard 0. */
  tenantGet<S extends z.ZodType>(id: TenantId, request: { rest: string; query?: Record<string, string> }, schema: S): Promise<z.output<S>> {
    return this.#http.json({ method: "GET", path: urlPath`/v1/tenant/${id}` + request.rest, ...(request.query === undefined ? {} : { query: request.query }) }, schema);
  }
}
