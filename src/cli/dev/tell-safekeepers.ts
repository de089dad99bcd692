/**
 * Tells the safekeepers that a timeline is new, and nobody has lost anything of it: its first compute need not wait until they
 * have found that out, nor for all of them. To be told once, before any compute: a safekeeper told so after it lost its disk would
 * vote as if nothing had been.
 */
import { isStrataError } from "../../kit/errors.ts";
import { HttpClient, type Transport } from "../../http/client.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { SafekeeperClient } from "../../safekeeper/api/client.ts";
import type { Cluster } from "./cluster-file.ts";

export interface TellOptions {
  readonly cluster: Pick<Cluster, "tenantId" | "pgVersion" | "ports">;
  readonly timelineId: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** In place of the network. */
  readonly transport?: Transport;
}

const PATIENCE_MS = 3_000;
const RETRY_PAUSE_MS = 200;
const TIMEOUT_MS = 2_000;

/** Never rejects: who could not be told, which is logged, asks the others when it finds the timeline. */
export async function tellSafekeepers(options: TellOptions): Promise<void> {
  const { log, timelineId, cluster } = options;
  await Promise.all(cluster.ports.safekeepers.map(async ({ http }, index) => {
    try {
      await tell(http, options);
    } catch (error) {
      log.warn("a safekeeper could not be told of a new timeline: it will ask the others before it takes part", { timelineId, safekeeper: index + 1, httpPort: http, error });
    }
  }));
}

async function tell(port: number, { cluster, timelineId, clock, transport }: TellOptions): Promise<void> {
  const http = new HttpClient({ baseUrl: `http://127.0.0.1:${port}`, clock, timeoutMs: TIMEOUT_MS, ...(transport === undefined ? {} : { transport }) });
  const request = { tenant_id: cluster.tenantId, timeline_id: timelineId, pg_version: cluster.pgVersion * 10_000, start_lsn: "0/0" };
  for (const deadlineMs = clock.monotonicMs() + PATIENCE_MS; ; await clock.sleep(RETRY_PAUSE_MS)) {
    try {
      return await new SafekeeperClient(http).createTimeline(request);
    } catch (error) {
      const passing = isStrataError(error) && (error.kind === "unavailable" || error.kind === "retry");
      if (!passing || clock.monotonicMs() >= deadlineMs) throw error;
    }
  }
}
