/** Typed client of a safekeeper's HTTP interface. Errors are those of `HttpClient`. */
import { z } from "zod";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { HttpClient } from "../../http/client.ts";
import {
  deleteReplySchema, membershipReplySchema, statusSchema, termBumpReplySchema, type TimelineCreateRequest, timelineRefSchema, timelineStatusSchema, type TimelineStatusReply, utilizationSchema,
} from "./http.ts";

export interface TimelineRef {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
}

export class SafekeeperClient {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  async nodeId(): Promise<number> {
    return (await this.#http.json({ method: "GET", path: "/v1/status" }, statusSchema)).id;
  }

  async timelineCount(): Promise<number> {
    return (await this.#http.json({ method: "GET", path: "/v1/utilization" }, utilizationSchema)).timeline_count;
  }

  async listTimelines(): Promise<TimelineRef[]> {
    const refs = await this.#http.json({ method: "GET", path: "/v1/tenant/timeline" }, z.array(timelineRefSchema));
    return refs.map((ref) => ({ tenantId: ref.tenant_id, timelineId: ref.timeline_id }));
  }

  /** No error when it exists. */
  async createTimeline(request: TimelineCreateRequest): Promise<void> {
    await this.#http.json({ method: "POST", path: "/v1/tenant/timeline", json: request }, z.null());
  }

  async timelineStatus(timeline: TimelineRef, options: { readonly signal?: AbortSignal } = {}): Promise<TimelineStatusReply> {
    return this.#http.json({ method: "GET", path: pathOf(timeline), ...options }, timelineStatusSchema);
  }

  /** Whether it was there. */
  async deleteTimeline(timeline: TimelineRef): Promise<boolean> {
    return (await this.#http.json({ method: "DELETE", path: pathOf(timeline) }, deleteReplySchema)).dir_existed;
  }

  /** @param term null: one more than now */
  async bumpTerm(timeline: TimelineRef, term: number | null): Promise<z.output<typeof termBumpReplySchema>> {
    return this.#http.json({ method: "POST", path: `${pathOf(timeline)}/term_bump`, json: { term } }, termBumpReplySchema);
  }

  async switchMembership(timeline: TimelineRef, configuration: z.input<typeof membershipReplySchema>["current_conf"]): Promise<z.output<typeof membershipReplySchema>> {
    return this.#http.json({ method: "PUT", path: `${pathOf(timeline)}/membership`, json: configuration }, membershipReplySchema);
  }
}

/** Ids are hex digits (checked where they are parsed): nothing in them needs escaping. */
function pathOf({ tenantId, timelineId }: TimelineRef): string {
  return `/v1/tenant/${tenantId}/timeline/${timelineId}`;
}
