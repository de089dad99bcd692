/** Sizes found in the background: logical sizes of timelines nobody has asked about yet, and synthetic sizes, for metrics and feedback. */
import { isStrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import type { BackgroundTask } from "../background-tasks.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { Tenant } from "../tenant/tenant.ts";

const INITIAL_SIZE_PERIOD_MS = 10_000;

export interface SizeTaskOptions {
  readonly tenants: Tenants;
  readonly log: Logger;
  /** synthetic_size_calculation_interval; 0: never. */
  readonly syntheticSizeIntervalMs: number;
  /** Somebody waits for the first ones: they are calculated soon after the start, not an interval later. */
  readonly isAwaited?: boolean;
}

export function sizeTasks({ tenants, log, syntheticSizeIntervalMs, isAwaited = false }: SizeTaskOptions): BackgroundTask[] {
  let isSoon = isAwaited;
  /** One tenant's trouble is its own. */
  const each = async (what: string, signal: AbortSignal, work: (tenant: Tenant) => Promise<void>): Promise<void> => {
    for (const { id, tenant } of tenants.list()) {
      if (id.number !== 0 || tenant?.state !== "active") continue;
      signal.throwIfAborted();
      try {
        await work(tenant);
      } catch (error) {
        if (signal.aborted || !isStrataError(error)) throw error;
        log.info(`${what} could not be calculated`, { tenantId: id.tenantId, error });
      }
    }
  };
  return [
    {
      name: "initial logical sizes",
      periodMs: () => INITIAL_SIZE_PERIOD_MS,
      run: (signal) =>
        each("logical size", signal, async (tenant) => {
          for (const { datadir, timeline } of tenant.listTimelines()) {
            if (datadir.knownLogicalSize.isExact) continue;
            await timeline.deps.failpoints?.hit("initial-size-calculation-permit-pause", signal);
            await timeline.deps.failpoints?.hit("timeline-calculate-logical-size-pause", signal);
            await datadir.currentLogicalSizeBytes({ task: "logical-size", signal });
          }
        }),
    },
    {
      name: "synthetic sizes",
      periodMs: () => (isSoon ? Math.min(INITIAL_SIZE_PERIOD_MS, syntheticSizeIntervalMs) : syntheticSizeIntervalMs),
      overrun: { loop: "consumption_metrics_synthetic_size_worker", periodMs: () => syntheticSizeIntervalMs },
      run: (signal) => {
        isSoon = false;
        return each("synthetic size", signal, async (tenant) => {
          await tenant.size.calculate({ signal });
        });
      },
    },
  ];
}
