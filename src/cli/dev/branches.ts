/** Making tenant, first timeline and branches through the controller, and finding out which LSN a person means. */
import { z } from "zod";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { HttpClient, urlPath } from "../../http/client.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { ControllerClient } from "../../controller/api/client.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { Branch, Cluster } from "./cluster-file.ts";
import { tellSafekeepers } from "./tell-safekeepers.ts";

const timelineSchema = z.object({ timeline_id: z.string(), last_record_lsn: z.string(), ancestor_lsn: z.string().nullish() });
const lsnByTimestampSchema = z.object({ lsn: z.string(), kind: z.enum(["present", "future", "past", "nodata"]) });
const safekeeperTimelineSchema = z.object({ commit_lsn: z.string() });

/** The pageserver may still be attaching the tenant: so long that takes at most, on a busy machine too. */
const PATIENCE_MS = 120_000;
const RETRY_PAUSE_MS = 100;

export interface BranchMakerOptions {
  readonly cluster: Cluster;
  readonly controller: ControllerClient;
  readonly platform: Platform;
  readonly log: Logger;
}

export class BranchMaker {
  readonly #options: BranchMakerOptions;

  constructor(options: BranchMakerOptions) {
    this.#options = options;
  }

  /** Idempotent; waits for the pageserver to be known to the controller. @throws StrataError unavailable `dev-step-timeout` */
  async ensureTenant(): Promise<void> {
    const { controller, cluster } = this.#options;
    await this.#retry(`tenant ${cluster.tenantId} attached to the pageserver`, () => controller.createTenant({ new_tenant_id: cluster.tenantId }));
  }

  /** A first branch, not made yet. */
  planFirst(name: string): Branch {
    return { name, timelineId: this.#options.platform.random.bytes(16).toHex(), parent: null, lsn: null };
  }

  /** A branch, not made yet. @param request.at an LSN, a timestamp, or "now". Errors as `resolve` */
  async plan(request: { name: string; parent: Branch; at: string }): Promise<Branch> {
    const lsn = lsnToString(await this.resolve(request.parent, request.at));
    return { name: request.name, timelineId: this.#options.platform.random.bytes(16).toHex(), parent: request.parent.name, lsn };
  }

  /**
   * Makes what was planned; doing it again is no harm before a compute has run on it. @param parent null for a first branch
   */
  async make(branch: Branch, parent: Branch | null): Promise<void> {
    const { controller, cluster, log, platform: { clock } } = this.#options;
    const { timelineId, lsn } = branch;
    const origin = parent === null || lsn === null ? { pg_version: cluster.pgVersion } : { ancestor_timeline_id: parent.timelineId, ancestor_start_lsn: lsn };
    await this.#retry(`branch "${branch.name}" made`, () => controller.createTimeline(cluster.tenantId, { new_timeline_id: timelineId, ...origin }, timelineSchema));
    await tellSafekeepers({ cluster, timelineId, clock, log });
  }

  #safekeeper(port: number): HttpClient {
    return new HttpClient({ baseUrl: `http://127.0.0.1:${port}`, clock: this.#options.platform.clock, timeoutMs: 5000 });
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
    const { cluster, controller } = this.#options;
    const answers = cluster.ports.safekeepers.map(async ({ http }) => {
      const path = urlPath`/v1/tenant/${cluster.tenantId}/timeline/${branch.timelineId}`;
      return parseLsn((await this.#safekeeper(http).json({ method: "GET", path }, safekeeperTimelineSchema)).commit_lsn);
    });
    const settled = await Promise.allSettled(answers);
    const known = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const timeline = await controller.tenantGet(cluster.tenantId, { rest: urlPath`/timeline/${branch.timelineId}` }, timelineSchema);
    return Math.max(parseLsn(timeline.last_record_lsn), ...known);
  }

  /** @param goal what is waited for, for the error */
  async #retry<T>(goal: string, action: () => Promise<T>): Promise<T> {
    const { clock } = this.#options.platform;
    const deadlineMs = clock.monotonicMs() + PATIENCE_MS;
    for (;;) {
      try {
        return await action();
      } catch (error) {
        const passing = isStrataError(error) && (error.kind === "unavailable" || error.kind === "retry" || error.code === "tenant-not-found");
        if (!passing) throw error;
        if (clock.monotonicMs() > deadlineMs) throw new StrataError("unavailable", "dev-step-timeout", `waited ${PATIENCE_MS / 1000} s in vain for: ${goal}`, { cause: error });
        await clock.sleep(RETRY_PAUSE_MS);
      }
    }
  }
}
