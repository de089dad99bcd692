/**
 * The timelines of one attached tenant shard: create, branch, load from object storage, archive, delete, shut down.
 *
 *   const manager = new TimelineManager(deps);
 *   await manager.loadTimelines();                                   // from object storage, local files reused
 *   const root = await manager.createTimeline({ timelineId, initdbLsn, pgVersion });
 *   … put, advance (import of initdb's files at initdbLsn) …
 *   await root.freezeAndFlush(); await root.waitUploaded();          // from here on it survives anything
 *   const branch = await manager.createBranch({ timelineId, ancestorTimelineId, lsn });
 */
import type { TimelineId } from "../../kit/ids.ts";
import type { TimelineMaintenance } from "../maintenance/timeline-maintenance.ts";
import type { OffloadedTimeline } from "../remote-timeline/tenant-manifest.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { TenantDeps } from "../timeline/timeline-deps.ts";
import { Archival } from "./archival.ts";
import { ShardTimelines } from "./shard-timelines.ts";
import { type BranchOptions, type RootOrigin, TimelineCreation } from "./creation.ts";
import { TimelineDeletion } from "./deletion.ts";
import { TimelineLoading } from "./loading.ts";

export class TimelineManager {
  readonly #timelines: ShardTimelines;
  readonly #creation: TimelineCreation;
  readonly #deletion: TimelineDeletion;
  readonly #loading: TimelineLoading;
  readonly archival: Archival;

  constructor(deps: TenantDeps) {
    this.#timelines = new ShardTimelines(deps);
    this.#creation = new TimelineCreation(this.#timelines);
    this.#deletion = new TimelineDeletion(this.#timelines);
    this.#loading = new TimelineLoading(this.#timelines, this.#deletion);
    this.archival = new Archival(this.#timelines, this.#loading);
  }

  /** Those that are in object storage alone. */
  get offloaded(): readonly OffloadedTimeline[] {
    return this.#timelines.offloaded.all;
  }

  isOffloaded(timelineId: TimelineId): boolean {
    return this.#timelines.offloaded.get(timelineId) !== undefined;
  }

  /** Being made, deleted, archived or the like. */
  isBusy(timelineId: TimelineId): boolean {
    return this.#timelines.isBusy(timelineId);
  }

  /** @throws StrataError conflict `timeline-busy` while it is made or deleted */
  assertNotBusy(timelineId: TimelineId): void {
    this.#timelines.assertNotBusy(timelineId);
  }

  get timelineIds(): TimelineId[] {
    return this.#timelines.ids;
  }

  /** Whether it is here and can be used. */
  has(timelineId: TimelineId): boolean {
    return this.#timelines.find(timelineId) !== undefined;
  }

  get brokenTimelines(): ReadonlyMap<TimelineId, unknown> {
    return this.#timelines.broken;
  }

  /** @throws StrataError not-found `timeline-not-found`; unavailable `timeline-broken` */
  get(timelineId: TimelineId): Timeline {
    return this.#timelines.get(timelineId);
  }

  /** Compaction, GC and image creation of a timeline, for the routes that ask for them by hand. @throws as `get` */
  maintenanceOf(timelineId: TimelineId): TimelineMaintenance {
    return this.#timelines.managed(timelineId).maintenance;
  }

  /** As of creation.ts. */
  async createTimeline(options: { readonly timelineId: TimelineId } & RootOrigin): Promise<Timeline> {
    return await this.#creation.createTimeline(options);
  }

  /** As of creation.ts. */
  async whileCreating<T>(timelineId: TimelineId, work: (create: (origin: RootOrigin) => Promise<Timeline>) => Promise<T>): Promise<T> {
    return await this.#creation.whileCreating(timelineId, work);
  }

  /** As of creation.ts. */
  async createBranch(options: BranchOptions): Promise<Timeline> {
    return await this.#creation.createBranch(options);
  }

  /** As of loading.ts. */
  async loadTimelines(signal?: AbortSignal): Promise<void> {
    await this.#loading.loadTimelines(signal);
  }

  /** As of deletion.ts. */
  async deleteTimeline(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    await this.#deletion.deleteTimeline(timelineId, signal);
  }

  /** @throws as `deleteTimeline`, before anything is done */
  assertDeletable(timelineId: TimelineId): void {
    this.#deletion.assertDeletable(timelineId);
  }

  /** @param options.flush everything ingested goes to object storage first, unless `signal` ends the wait */
  async shutdown(options: { readonly flush: boolean; readonly signal?: AbortSignal }): Promise<void> {
    await this.#timelines.shutdown(options);
  }
}
