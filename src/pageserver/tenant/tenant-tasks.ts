/** What is done for tenants in the background beside their timelines' own maintenance: heatmaps, and offloading what was archived. */
import { Cancelled, isStrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { BackgroundTask } from "../background-tasks.ts";
import type { Tenant } from "./tenant.ts";
import type { Tenants } from "./tenants.ts";

/** How often is looked which tenants' turn it is. */
const HEATMAP_CHECK_MS = 1000;
const OFFLOAD_PERIOD_MS = 20_000;

export function tenantTasks({ tenants, clock, log }: { readonly tenants: Tenants; readonly clock: Clock; readonly log: Logger }): BackgroundTask[] {
  return [
    { name: "heatmap uploads", periodMs: () => HEATMAP_CHECK_MS, run: (signal) => uploadHeatmaps({ tenants, clock, log }, signal) },
    { name: "offloading", periodMs: () => OFFLOAD_PERIOD_MS, run: (signal) => offloadArchived(tenants, log, signal) },
  ];
}

async function uploadHeatmaps(context: { readonly tenants: Tenants; readonly clock: Clock; readonly log: Logger }, signal: AbortSignal): Promise<void> {
  const { tenants, clock, log } = context;
  for (const { tenant, location } of tenants.list()) {
    // Of two that are attached the single one knows what is hot.
    if (tenant?.state !== "active" || location.mode !== "AttachedSingle") continue;
    const uploadPeriodMs = tenant.settings.heatmapPeriodMs;
    const nowMs = clock.monotonicMs();
    if (uploadPeriodMs === 0 || !tenant.heatmap.isDue(uploadPeriodMs, nowMs)) continue;
    await guarded("heatmap could not be uploaded", { tenant, log, signal }, async () => {
      await tenant.heatmap.upload({ uploadPeriodMs, nowMs, signal });
    });
  }
}

async function offloadArchived(tenants: Tenants, log: Logger, signal: AbortSignal): Promise<void> {
  for (const { tenant } of tenants.list()) {
    if (tenant?.state !== "active" || !tenant.settings.timelineOffloading) continue;
    for (const { timeline } of tenant.listTimelines()) {
      if (!tenant.manager.archival.canOffload(timeline)) continue;
      await guarded("timeline could not be offloaded", { tenant, log, signal }, async () => {
        await timeline.deps.failpoints?.hit("before-timeline-auto-offload", signal);
        await tenant.offloadTimeline(timeline.timelineId, signal);
      });
    }
  }
}

/** One tenant's trouble is not the next one's. */
async function guarded(what: string, context: { readonly tenant: Tenant; readonly log: Logger; readonly signal: AbortSignal }, work: () => Promise<void>): Promise<void> {
  context.signal.throwIfAborted();
  try {
    await work();
  } catch (error) {
    if (context.signal.aborted || !(isStrataError(error) || error instanceof Cancelled)) throw error;
    context.log.info(what, { tenantId: context.tenant.tenantShardId.tenantId, error });
  }
}
