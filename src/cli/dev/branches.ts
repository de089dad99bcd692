/** Making tenant, first timeline and branches through the controller, and finding out which LSN a person means. */
import { z } from "zod";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { HttpClient, urlPath } from "../../http/client.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { ControllerClient } from "../../controller/api/client.ts";
import type { Platform } from "../../platform/platform.ts";
import type { Branch, Cluster } from "./cluster-file.ts";

const timelineSchema = z.object({ timeline_id: z.string(), last_record_lsn: z.string(), ancestor_lsn: z.string().nullish() });
const lsnByTimestampSchema = z.object({ lsn: z.string(), kind: z.enum(["present", "future", "past", "nodata"]) });
const safekeeperTimelineSchema = z.object({ commit_lsn: z.string() });

/** The pageserver may still be attaching the tenant. */
const RETRIES_MAX = 100;
const RETRY_PAUSE_MS = 100;

export interface BranchMakerOptions {
  readonly cluster: Cluster;
  readonly controller: ControllerClient;
  readonly platform: Platform;
}

export class BranchMaker {
  readonly #options: BranchMakerOptions;

  constructor(options: BranchMakerOptions) {
    this.#options = options;
  }

  #newId(): string {
    return this.#options.platform.random.bytes(16).toHex();
  }

  /** Idempotent; waits for the pageserver to be known to the controller. */
  async ensureTenant(): Promise<void> {
    const { controller, cluster } = this.#options;
    await this.#retry(() => controller.createTenant({ new_tenant_id: cluster.tenantId }));
  }

  async bootstrap(name: string): Promise<Branch> {
    const { controller, cluster } = this.#options;
    const timelineId = this.#newId();
    await this.#retry(() => controller.createTimeline(cluster.tenantId, { new_timeline_id: timelineId, pg_version: cluster.pgVersion }, timelineSchema));
    return { name, timelineId, parent: null, lsn: null };
  }

  /** @param request.at an LSN, a timestamp, or "now" */
  async branch(request: { name: string; parent: Branch; at: string }): Promise<Branch> {
    const { controller, cluster } = this.#options;
    const lsn = lsnToString(await this.resolve(request.parent, request.at));
    const timelineId = this.#newId();
    await controller.createTimeline(cluster.tenantId, { new_timeline_id: timelineId, ancestor_timeline_id: request.parent.timelineId, ancestor_start_lsn: lsn }, timelineSchema);
    return { name: request.name, timelineId, parent: request.parent.name, lsn };
  }

  /** The LSN a person means by "now", a timestamp, or an LSN. @throws StrataError fix-input `bad-lsn`, `bad-timestamp`, `beyond-history` */
  async resolve(branch: Branch, at: string): Promise<Lsn> {
    if (at === "now") return this.#committed(branch);
    if (/^[0-9a-fA-F]+\/[0-9a-fA-F]+$/.test(at)) {
      const lsn = parseLsn(at);
      const committed = await this.#committed(branch);
      if (lsn > committed) throw new StrataError("fix-input", "beyond-history", `${at} is beyond the last commit of branch "${branch.name}" (${lsnToString(committed)})`);
      return lsn;
    }
    const timestampMs = Date.parse(at);
    if (Number.isNaN(timestampMs)) throw new StrataError("fix-input", "bad-timestamp", `"${at}" is neither "now", nor an LSN like 0/16B3748, nor a timestamp like 2026-01-31T12:00:00Z`);
    return this.#atTimestamp(branch, new Date(timestampMs).toISOString());
  }

  async #atTimestamp(branch: Branch, timestamp: string): Promise<Lsn> {
    const { controller, cluster } = this.#options;
    const found = await controller.tenantGet(cluster.tenantId, { rest: urlPath`/timeline/${branch.timelineId}/get_lsn_by_timestamp`, query: { timestamp } }, lsnByTimestampSchema);
    if (found.kind === "future") return this.#committed(branch);
    if (found.kind !== "present") throw new StrataError("fix-input", "beyond-history", `branch "${branch.name}" has no history from ${timestamp}`);
    return parseLsn(found.lsn);
  }

  /** The newest committed LSN that any safekeeper knows; where none has WAL yet, the pageserver's. */
  async #committed(branch: Branch): Promise<Lsn> {
    const { cluster, platform, controller } = this.#options;
    const answers = cluster.ports.safekeepers.map(async ({ http }) => {
      const client = new HttpClient({ baseUrl: `http://127.0.0.1:${http}`, clock: platform.clock, timeoutMs: 5000 });
      const status = await client.json({ method: "GET", path: urlPath`/v1/tenant/${cluster.tenantId}/timeline/${branch.timelineId}` }, safekeeperTimelineSchema);
      return parseLsn(status.commit_lsn);
    });
    const settled = await Promise.allSettled(answers);
    const known = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const timeline = await controller.tenantGet(cluster.tenantId, { rest: urlPath`/timeline/${branch.timelineId}` }, timelineSchema);
    return Math.max(parseLsn(timeline.last_record_lsn), ...known);
  }

  async #retry<T>(action: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await action();
      } catch (error) {
        const passing = isStrataError(error) && (error.kind === "unavailable" || error.kind === "retry" || error.code === "tenant-not-found");
        if (!passing || attempt >= RETRIES_MAX) throw error;
        await this.#options.platform.clock.sleep(RETRY_PAUSE_MS);
      }
    }
  }
}
