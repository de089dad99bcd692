/** Which layers nobody needs who reads the newest state, a branch point or a lease: those that history alone keeps. */
import { Pacer } from "../layers/pacer.ts";
import type { Layer } from "../layers/layer.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { type GcInput, planGc } from "./gc-planner.ts";

/** Counts their bytes: of what a collection would remove if no history had to be kept. */
export async function countInvisible(timeline: Timeline): Promise<void> {
  const pacer = new Pacer(timeline.deps.platform.clock);
  let sizeBytes = 0;
  for (const layers of planGc<Layer>(timeline.stack.map, { cutoff: timeline.lastRecordLsn, ...retainedBy(timeline) })) {
    for (const { metadata } of layers) sizeBytes += metadata.sizeBytes;
    const pause = pacer.pause();
    if (pause !== undefined) await pause;
  }
  timeline.counts.invisibleBytes = sizeBytes;
}

export function retainedBy(timeline: Timeline): Pick<GcInput, "branchPoints" | "leases"> {
  return { branchPoints: () => timeline.branchPoints.values(), leases: () => timeline.leases.valid() };
}
