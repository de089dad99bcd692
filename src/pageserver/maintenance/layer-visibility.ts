/** Which layers nobody needs who reads the newest state, a branch point or a lease: those that history alone keeps. */
import { Pacer } from "../layers/pacer.ts";
import type { Layer } from "../layers/layer.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { planGc } from "./gc-planner.ts";

/** Counts their bytes: of what a collection would remove if no history had to be kept. */
export async function countInvisible(timeline: Timeline): Promise<void> {
  const pacer = new Pacer(timeline.deps.platform.clock);
  const retainLsns = () => [...timeline.branchPoints.values(), ...timeline.leases.valid()];
  let sizeBytes = 0;
  for (const layers of planGc<Layer>(timeline.stack.map, { cutoff: timeline.lastRecordLsn, retainLsns })) {
    for (const { metadata } of layers) sizeBytes += metadata.sizeBytes;
    const pause = pacer.pause();
    if (pause !== undefined) await pause;
  }
  timeline.counts.invisibleBytes = sizeBytes;
}
