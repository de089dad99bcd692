/** Timelines that rest in object storage for a while, for the model test. */
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";

/** Archives a timeline, puts it out of memory and off the disk, does something else, and takes it back, whatever fails. */
export async function restFor(manager: TimelineManager, timelineId: string, tools: { readonly between: () => Promise<void>; readonly retried: (action: () => Promise<void>) => Promise<void> }): Promise<void> {
  const { between, retried } = tools;
  await retried(() => manager.archival.configure(timelineId, "Archived"));
  await retried(() => manager.archival.offload(timelineId));
  await retried(between);
  await retried(() => manager.archival.configure(timelineId, "Unarchived"));
}

/** After a power cut in between: those that rest, or were about to. Ancestors come first. */
export async function wakeAll(manager: TimelineManager, retried: (action: () => Promise<void>) => Promise<void>): Promise<void> {
  const archived = manager.timelineIds.filter((id) => manager.get(id).remoteClient.archivedAt !== null);
  for (const timelineId of [...archived, ...manager.offloaded.map((one) => one.timelineId)]) await retried(() => manager.archival.configure(timelineId, "Unarchived"));
}
