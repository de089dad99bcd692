/**
 * Archiving, offloading and their reverse. An archived timeline says in its index that nobody needs it for now; an offloaded one is
 * archived and not even loaded: the tenant's manifest says so.
 *
 * In this order, so that a crash at any point leaves a timeline that is loaded, or one that the manifest has, and never one that is lost:
 * offload: all is uploaded, the timeline stops, the manifest gets it, its local files go. Unarchive: the timeline is loaded, the manifest
 * loses it, its index stops saying archived.
 *
 * Source: the peer's timeline/offload module and tenant module (apply_timeline_archival_config).
 */
import { StrataError } from "../../kit/errors.ts";
import type { TimelineId } from "../../kit/ids.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { ShardTimelines } from "./shard-timelines.ts";
import type { TimelineLoading } from "./loading.ts";

export type ArchivalState = "Archived" | "Unarchived";

export class Archival {
  readonly #timelines: ShardTimelines;
  readonly #loading: TimelineLoading;

  constructor(timelines: ShardTimelines, loading: TimelineLoading) {
    this.#timelines = timelines;
    this.#loading = loading;
  }

  /** Durable when it returns. @throws StrataError not-found; conflict `precondition-failed`, `timeline-busy` */
  async configure(timelineId: TimelineId, state: ArchivalState, signal?: AbortSignal): Promise<void> {
    const { offloaded } = this.#timelines;
    const entry = offloaded.get(timelineId);
    // Busy, so that it is not offloaded or deleted meanwhile.
    if (entry === undefined) return await this.#timelines.whileBusy(timelineId, `being ${state.toLowerCase()}`, () => this.#mark(this.#timelines.get(timelineId), state, signal));
    if (state === "Archived") return;
    this.#assertAncestorIsThere(entry.ancestor?.timelineId ?? null);
    await this.#timelines.whileBusy(timelineId, "being unarchived", async () => {
      const loaded = await this.#loading.loadAgain(timelineId, signal);
      try {
        await offloaded.remove(timelineId);
      } catch (error) {
        await this.#timelines.unload(timelineId);
        throw error;
      }
      await this.#mark(loaded, state, signal);
    });
  }

  async #mark(timeline: Timeline, state: ArchivalState, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#timelines.deps.platform;
    if (state === "Archived") this.#assertNoChildInUse(timeline);
    else this.#assertAncestorIsThere(timeline.ancestor?.timelineId ?? null);
    if ((timeline.remoteClient.archivedAt !== null) !== (state === "Archived")) timeline.remoteClient.setArchived(state === "Archived" ? clock.wallMs() : null);
    // Also when an earlier request did it: its client may not have waited for the upload.
    await timeline.waitUploaded(signal);
  }

  #assertNoChildInUse(timeline: Timeline): void {
    // Of one that is being made, or cannot be read, nobody knows better.
    const isArchived = (child: TimelineId) => this.#timelines.offloaded.get(child) !== undefined || (this.#timelines.find(child)?.remoteClient.archivedAt ?? null) !== null;
    const inUse = [...timeline.branchPoints.keys()].filter((child) => !isArchived(child));
    if (inUse.length > 0) throw new StrataError("conflict", "precondition-failed", `timeline ${timeline.timelineId} has branches that are not archived: ${inUse.join(", ")}`);
  }

  #assertAncestorIsThere(ancestor: TimelineId | null): void {
    if (ancestor === null) return;
    const isArchived = this.#timelines.offloaded.get(ancestor) !== undefined || this.#timelines.get(ancestor).remoteClient.archivedAt !== null;
    if (isArchived) throw new StrataError("conflict", "precondition-failed", `the ancestor ${ancestor} is archived`);
  }

  /** Whether `offload` would take it. */
  canOffload(timeline: Timeline): boolean {
    return timeline.remoteClient.archivedAt !== null && [...timeline.branchPoints.keys()].every((child) => this.#timelines.offloaded.get(child) !== undefined);
  }

  /**
   * Puts an archived timeline out of memory and off the local disk. On failure it is loaded as before.
   * @throws StrataError not-found; conflict `timeline-not-archived`, `timeline-busy`; unavailable
   */
  async offload(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    const { offloaded } = this.#timelines;
    if (offloaded.get(timelineId) !== undefined) return;
    const timeline = this.#timelines.get(timelineId);
    if (!this.canOffload(timeline)) throw new StrataError("conflict", "timeline-not-archived", `timeline ${timelineId} is not archived, or a branch of it is loaded`);
    await this.#timelines.whileBusy(timelineId, "being offloaded", async () => {
      await timeline.freezeAndFlush();
      await timeline.waitUploaded(signal);
      const { archivedAt } = timeline.remoteClient;
      if (archivedAt === null) throw new StrataError("conflict", "timeline-not-archived", `timeline ${timelineId} was unarchived meanwhile`);
      await this.#timelines.unload(timelineId);
      try {
        await offloaded.add({ timelineId, ancestor: timeline.ancestor, archivedAt });
      } catch (error) {
        if (!this.#timelines.stopping.aborted) await this.#loading.loadAgain(timelineId, signal);
        throw error;
      }
      await this.#timelines.deps.platform.files.removeTree(this.#timelines.directoryOf(timelineId));
    });
  }
}
