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
import type { OffloadedTimelines } from "./offloaded-timelines.ts";
import type { TenantDeps } from "./timeline-deps.ts";
import type { Timeline } from "./timeline.ts";

export type ArchivalState = "Archived" | "Unarchived";

/** What archiving needs of the timelines' manager. */
export interface ArchivalHost {
  readonly deps: TenantDeps;
  readonly offloaded: OffloadedTimelines;
  /** @throws StrataError not-found `timeline-not-found`; unavailable `timeline-broken` */
  get(timelineId: TimelineId): Timeline;
  find(timelineId: TimelineId): Timeline | undefined;
  /** Refuses others meanwhile. @throws StrataError conflict `timeline-busy` */
  whileBusy<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T>;
  /** Stops a timeline and forgets it here; branches and objects stay. */
  unload(timelineId: TimelineId): Promise<void>;
  /** From its index. @throws StrataError when it cannot be loaded */
  load(timelineId: TimelineId, signal: AbortSignal | undefined): Promise<Timeline>;
  removeLocalFiles(timelineId: TimelineId): Promise<void>;
  /** Aborts when nothing may be started any more. */
  readonly stopping: AbortSignal;
}

export class Archival {
  readonly #host: ArchivalHost;

  constructor(host: ArchivalHost) {
    this.#host = host;
  }

  /** Durable when it returns. @throws StrataError not-found; conflict `precondition-failed`, `timeline-busy` */
  async configure(timelineId: TimelineId, state: ArchivalState, signal?: AbortSignal): Promise<void> {
    const { offloaded } = this.#host;
    const entry = offloaded.get(timelineId);
    // Busy, so that it is not offloaded or deleted meanwhile.
    if (entry === undefined) return await this.#host.whileBusy(timelineId, `being ${state.toLowerCase()}`, () => this.#mark(this.#host.get(timelineId), state, signal));
    if (state === "Archived") return;
    this.#assertAncestorIsThere(entry.ancestor?.timelineId ?? null);
    await this.#host.whileBusy(timelineId, "being unarchived", async () => {
      const loaded = await this.#host.load(timelineId, signal);
      try {
        await offloaded.remove(timelineId);
      } catch (error) {
        await this.#host.unload(timelineId);
        throw error;
      }
      await this.#mark(loaded, state, signal);
    });
  }

  async #mark(timeline: Timeline, state: ArchivalState, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#host.deps.platform;
    if (state === "Archived") this.#assertNoChildInUse(timeline);
    else this.#assertAncestorIsThere(timeline.ancestor?.timelineId ?? null);
    if ((timeline.remoteClient.archivedAt !== null) !== (state === "Archived")) timeline.remoteClient.setArchived(state === "Archived" ? clock.wallMs() : null);
    // Also when an earlier request did it: its client may not have waited for the upload.
    await timeline.waitUploaded(signal);
  }

  #assertNoChildInUse(timeline: Timeline): void {
    // Of one that is being made, or cannot be read, nobody knows better.
    const isArchived = (child: TimelineId) => this.#host.offloaded.get(child) !== undefined || (this.#host.find(child)?.remoteClient.archivedAt ?? null) !== null;
    const inUse = [...timeline.branchPoints.keys()].filter((child) => !isArchived(child));
    if (inUse.length > 0) throw new StrataError("conflict", "precondition-failed", `timeline ${timeline.timelineId} has branches that are not archived: ${inUse.join(", ")}`);
  }

  #assertAncestorIsThere(ancestor: TimelineId | null): void {
    if (ancestor === null) return;
    const isArchived = this.#host.offloaded.get(ancestor) !== undefined || this.#host.get(ancestor).remoteClient.archivedAt !== null;
    if (isArchived) throw new StrataError("conflict", "precondition-failed", `the ancestor ${ancestor} is archived`);
  }

  /** Whether `offload` would take it. */
  canOffload(timeline: Timeline): boolean {
    return timeline.remoteClient.archivedAt !== null && [...timeline.branchPoints.keys()].every((child) => this.#host.offloaded.get(child) !== undefined);
  }

  /**
   * Puts an archived timeline out of memory and off the local disk. On failure it is loaded as before.
   * @throws StrataError not-found; conflict `timeline-not-archived`, `timeline-busy`; unavailable
   */
  async offload(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    const { offloaded } = this.#host;
    if (offloaded.get(timelineId) !== undefined) return;
    const timeline = this.#host.get(timelineId);
    if (!this.canOffload(timeline)) throw new StrataError("conflict", "timeline-not-archived", `timeline ${timelineId} is not archived, or a branch of it is loaded`);
    await this.#host.whileBusy(timelineId, "being offloaded", async () => {
      await timeline.freezeAndFlush();
      await timeline.waitUploaded(signal);
      const { archivedAt } = timeline.remoteClient;
      if (archivedAt === null) throw new StrataError("conflict", "timeline-not-archived", `timeline ${timelineId} was unarchived meanwhile`);
      await this.#host.unload(timelineId);
      try {
        await offloaded.add({ timelineId, ancestor: timeline.ancestor, archivedAt });
      } catch (error) {
        if (!this.#host.stopping.aborted) await this.#host.load(timelineId, signal);
        throw error;
      }
      await this.#host.removeLocalFiles(timelineId);
    });
  }
}
