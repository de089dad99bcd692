/** How timelines go for good: the mark first, then everything else, so that it is finished whenever it was begun. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { TimelineId } from "../../kit/ids.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import type { IndexPart } from "../remote-timeline/index-part.ts";
import { loadIndexPart } from "../remote-timeline/remote-download.ts";
import { deleteRemoteTimeline } from "../remote-timeline/remote-timeline-client.ts";
import type { Managed, ShardTimelines } from "./shard-timelines.ts";

const VALIDATE_ATTEMPTS = 10;
const DELETION_PAUSE_MS = 30_000;
const CHILDREN_TOLD_MAX = 10;

export class TimelineDeletion {
  readonly #timelines: ShardTimelines;
  /** Under way: whoever asks for one again waits for it. */
  readonly #deletions = new Map<TimelineId, Promise<void>>();

  constructor(timelines: ShardTimelines) {
    this.#timelines = timelines;
  }

  /**
   * Deletes a timeline for good. Once the deleted mark is in object storage, a restart finishes what was begun.
   * @throws StrataError not-found; conflict `timeline-has-children`, `timeline-busy`; unavailable, to be tried again
   */
  async deleteTimeline(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    const running = this.#deletions.get(timelineId);
    if (running !== undefined) return await running;
    const stop = signal === undefined ? this.#timelines.stopping : AbortSignal.any([signal, this.#timelines.stopping]);
    const managed = this.#assertDeletable(timelineId);
    const deletion = this.#timelines.whileBusy(timelineId, "being deleted", () => (managed === null ? this.#deleteOffloaded(timelineId, stop) : this.#delete(managed, stop)));
    this.#deletions.set(timelineId, deletion);
    await deletion.finally(() => this.#deletions.delete(timelineId));
  }

  /** @throws as `deleteTimeline`, before anything is done */
  assertDeletable(timelineId: TimelineId): void {
    if (!this.#deletions.has(timelineId)) this.#assertDeletable(timelineId);
  }

  /** Null for an offloaded timeline. */
  #assertDeletable(timelineId: TimelineId): Managed | null {
    this.#timelines.assertIdle(timelineId);
    const isOffloaded = this.#timelines.offloaded.get(timelineId) !== undefined;
    const children = isOffloaded ? this.#timelines.offloaded.childrenOf(timelineId).map((child) => child.timelineId) : [...this.#timelines.get(timelineId).branchPoints.keys()];
    const told = [...children.slice(0, CHILDREN_TOLD_MAX), ...(children.length > CHILDREN_TOLD_MAX ? ["…"] : [])].join(", ");
    if (children.length > 0) throw new StrataError("conflict", "timeline-has-children", `timeline ${timelineId} has branches: ${told}`, { details: { timelineId, children: children.length } });
    if (this.#timelines.ofUnknownOrigin.size > 0) throw new StrataError("conflict", "precondition-failed", `timelines that cannot be read may be branches of ${timelineId}: ${[...this.#timelines.ofUnknownOrigin].join(", ")}`);
    return isOffloaded ? null : this.#timelines.managed(timelineId);
  }

  async #deleteOffloaded(timelineId: TimelineId, signal: AbortSignal): Promise<void> {
    const ancestorId = this.#timelines.offloaded.get(timelineId)?.ancestor?.timelineId;
    const index = await this.#indexOf(timelineId, signal);
    // Without one the objects are gone already, and an earlier attempt ended before the manifest knew.
    if (index !== null) await this.#deleteRemote(timelineId, index, signal);
    await this.#timelines.offloaded.remove(timelineId);
    if (ancestorId !== undefined) this.#timelines.find(ancestorId)?.branchPoints.delete(timelineId);
  }

  async #indexOf(timelineId: TimelineId, signal: AbortSignal): Promise<IndexPart | null> {
    const { remote: storage, tenantShardId, generation, platform: { clock } } = this.#timelines.deps;
    try {
      return (await loadIndexPart({ storage, tenantShardId, timelineId, clock, mayBeOurs: true }, generation, signal)).index;
    } catch (error) {
      if (isStrataError(error, "index-part-not-found")) return null;
      throw error;
    }
  }

  async #delete({ timeline, maintenance }: Managed, signal: AbortSignal): Promise<void> {
    const { timelineId } = timeline;
    await maintenance.stop();
    await timeline.shutdown(false);
    const { failpoints, platform } = this.#timelines.deps;
    await failpoints?.hit("timeline-delete-before-index-deleted-at", signal);
    await this.#deleteRemote(timelineId, timeline.remoteClient.cleanIndex, signal);
    await failpoints?.hit("timeline-delete-before-rm", signal);
    await platform.files.removeTree(this.#timelines.directoryOf(timelineId));
    await failpoints?.hit("timeline-delete-after-rm", signal);
    if (timeline.ancestor !== null) this.#timelines.find(timeline.ancestor.timelineId)?.branchPoints.delete(timelineId);
    this.#timelines.forget(timelineId);
  }

  /**
   * The mark first, at our own generation, then all objects, then the marked index. Only as the newest generation: under a later one
   * the timeline may have been deleted and made again meanwhile.
   */
  async #deleteRemote(timelineId: TimelineId, index: IndexPart | null, signal?: AbortSignal): Promise<void> {
    const { remote: storage, tenantShardId, generation, platform, failpoints } = this.#timelines.deps;
    await this.#assertNewest(signal);
    if (index === null) return await deleteRemoteTimeline({ storage, tenantShardId, timelineId, generation, platform }, signal);
    const client = this.#timelines.remoteClient(timelineId, { metadata: index.metadata, clean: index });
    // Whoever gives up has it end with him: a mark that came later would delete what goes on elsewhere.
    await client.persistDeletedMark(signal).finally(() => client.shutdown());
    await failpoints?.hit("timeline-delete-before-schedule", signal);
    await failpoints?.hit("in_progress_delete", signal);
    await this.#assertNewest(signal);
    await client.deleteAll(signal);
  }

  async #assertNewest(signal: AbortSignal | undefined): Promise<void> {
    const { platform, deletionQueue, tenantShardId, generation } = this.#timelines.deps;
    await withRetries(() => deletionQueue.assertNewest({ tenantShardId, generation }), { ...platform, maxAttempts: VALIDATE_ATTEMPTS, signal });
  }

  /** Of one that was found marked as deleted: in the background. */
  resume(timelineId: TimelineId, index: IndexPart): void {
    const work = this.#timelines.busyWith(timelineId, "being deleted", () => this.#finishDeletion(timelineId, index)).finally(() => this.#deletions.delete(timelineId));
    this.#deletions.set(timelineId, work);
  }

  /** Tries until it is done, or not ours to do any more. Never throws. */
  async #finishDeletion(timelineId: TimelineId, index: IndexPart): Promise<void> {
    const { log, platform } = this.#timelines.deps;
    const signal = this.#timelines.stopping;
    while (!signal.aborted) {
      try {
        await this.#deleteRemote(timelineId, index, signal);
        return await platform.files.removeTree(this.#timelines.directoryOf(timelineId));
      } catch (error) {
        if (signal.aborted) return;
        log.warn("deletion of a timeline could not be finished", { timelineId, error });
        if (isStrataError(error, "stale-generation")) return;
        await platform.clock.sleep(DELETION_PAUSE_MS, signal).catch(() => {});
      }
    }
  }
}
