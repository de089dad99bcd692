/** How timelines of a shard come to be: roots, which are filled by whoever asks for them, and branches, of which one object is uploaded. */
import { Cancelled, StrataError } from "../../kit/errors.ts";
import type { TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import type { TimelineMetadata } from "../remote-timeline/index-part.ts";
import { indexPartKey } from "../remote-timeline/remote-paths.ts";
import { discardUnfinishedTimeline } from "../remote-timeline/remote-timeline-client.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { busyError, type ShardTimelines, type StartState } from "./shard-timelines.ts";

const UNBORN_ATTEMPTS = 10;

/** Where a root timeline begins. */
export interface RootOrigin {
  readonly initdbLsn: Lsn;
  readonly pgVersion: PgMajor;
}

export interface BranchOptions {
  readonly timelineId: TimelineId;
  readonly ancestorTimelineId: TimelineId;
  readonly lsn?: Lsn;
  readonly signal?: AbortSignal;
}

export class TimelineCreation {
  readonly #timelines: ShardTimelines;

  constructor(timelines: ShardTimelines) {
    this.#timelines = timelines;
  }

  /**
   * A root timeline, empty: the caller imports its first content at `initdbLsn`. It is in object storage from the
   * first flush on, and gone after a crash before that.
   * @throws StrataError conflict `timeline-exists`
   */
  async createTimeline(options: { readonly timelineId: TimelineId } & RootOrigin): Promise<Timeline> {
    return await this.whileCreating(options.timelineId, (create) => create(options));
  }

  /**
   * Keeps the id for `work`, which makes the timeline by what it is given, and fills it: until that has ended nobody else makes,
   * branches or deletes it. When `work` fails nothing is left of it but an initdb archive in object storage.
   * @throws StrataError conflict `timeline-exists`, `timeline-busy`
   */
  async whileCreating<T>(timelineId: TimelineId, work: (create: (origin: RootOrigin) => Promise<Timeline>) => Promise<T>): Promise<T> {
    const create = async ({ initdbLsn, pgVersion }: RootOrigin): Promise<Timeline> => {
      const metadata: TimelineMetadata = { diskConsistentLsn: 0, prevRecordLsn: null, ancestor: null, latestGcCutoffLsn: initdbLsn, initdbLsn, pgVersion };
      return await this.#startNew(timelineId, { metadata, ancestor: null });
    };
    return await this.#timelines.whileNew(timelineId, "being created", async () => {
      try {
        return await work(create);
      } catch (error) {
        if (this.#timelines.find(timelineId) !== undefined) await this.#discardRoot(timelineId);
        throw error;
      }
    });
  }

  async #discardRoot(timelineId: TimelineId): Promise<void> {
    const { remote: storage, tenantShardId, generation, platform, log } = this.#timelines.deps;
    if (!(await this.#discardUnborn(timelineId))) return;
    await discardUnfinishedTimeline({ storage, tenantShardId, timelineId, generation, platform }, this.#timelines.stopping).catch((error: unknown) => log.info("objects of an unfinished timeline are left behind", { timelineId, error }));
  }

  /**
   * A branch of `ancestorTimelineId` at `lsn` (its last record LSN unless given): one index_part uploaded, nothing copied.
   * @throws StrataError conflict `timeline-exists`, `timeline-busy`; not-found; fix-input `bad-branch-lsn` outside the ancestor's history
   */
  async createBranch(options: BranchOptions): Promise<Timeline> {
    const { timelineId, signal } = options;
    const parent = this.#timelines.get(options.ancestorTimelineId);
    const lsn = options.lsn ?? parent.lastRecordLsn;
    return await this.#timelines.whileNew(timelineId, "being created", async () => {
      await parent.waitLsn(lsn, { who: `creation of branch ${timelineId}`, signal });
      this.#timelines.assertIdle(parent.timelineId);
      checkBranchLsn(parent, lsn);
      await ensureInObjectStorage(parent, signal);
      // From the checks to the entry nothing else runs: GC and deletion of the ancestor see the branch point, or came before.
      this.#timelines.assertIdle(parent.timelineId);
      this.#assertInUse(parent);
      checkBranchLsn(parent, lsn);
      parent.branchPoints.set(timelineId, lsn);
      try {
        return await this.#branchOff(parent, { timelineId, lsn, signal });
      } catch (error) {
        if (await this.#discardUnborn(timelineId)) parent.branchPoints.delete(timelineId);
        throw error;
      }
    });
  }

  async #branchOff(parent: Timeline, options: { timelineId: TimelineId; lsn: Lsn; signal: AbortSignal | undefined }): Promise<Timeline> {
    const { timelineId, lsn, signal } = options;
    const metadata: TimelineMetadata = {
      diskConsistentLsn: lsn,
      prevRecordLsn: lsn === parent.lastRecordLsn ? parent.prevRecordLsn : null,
      ancestor: { timelineId: parent.timelineId, lsn },
      // A branch point below the ancestor's cutoff stood under a lease; the branch may be read from there on.
      latestGcCutoffLsn: Math.min(parent.gcCutoffLsn, lsn),
      initdbLsn: parent.initdbLsn,
      pgVersion: parent.pgVersion,
    };
    const timeline = await this.#startNew(timelineId, { metadata, ancestor: { timeline: parent, lsn } });
    timeline.remoteClient.scheduleIndexUpload();
    await timeline.waitUploaded(signal);
    return timeline;
  }

  /**
   * Of a timeline whose creation failed. Its index may have arrived although nobody heard of it, and would bring it back at the
   * next start: true only when it is surely not there. As long as it may be, the ancestor's history must stay.
   */
  async #discardUnborn(timelineId: TimelineId): Promise<boolean> {
    const { platform, remote, tenantShardId, generation, log } = this.#timelines.deps;
    const managed = this.#timelines.forget(timelineId);
    try {
      await managed?.maintenance.stop();
      await managed?.timeline.shutdown(false);
      await platform.files.removeTree(this.#timelines.directoryOf(timelineId));
      const signal = this.#timelines.stopping;
      await withRetries(() => remote.delete([indexPartKey(tenantShardId, timelineId, generation)], { signal }), { ...platform, maxAttempts: UNBORN_ATTEMPTS, signal });
      return true;
    } catch (error) {
      log.info("an unfinished timeline may come back at the next start", { timelineId, error });
      return false;
    }
  }

  /** Not archived meanwhile, nor deleted or offloaded and made or loaded again. */
  #assertInUse(parent: Timeline): void {
    const { timelineId } = parent;
    if (parent.remoteClient.archivedAt !== null) throw new StrataError("conflict", "ancestor-archived", `timeline ${timelineId} is archived: no branch can be made of it`);
    if (this.#timelines.get(timelineId) !== parent) throw busyError(timelineId, "not the one it was");
  }

  async #startNew(timelineId: TimelineId, state: Pick<StartState, "metadata" | "ancestor">): Promise<Timeline> {
    await this.#clearDirectory(timelineId);
    // Whoever stops has not seen it, and would leave it running.
    if (this.#timelines.stopping.aborted) throw new Cancelled("the tenant is shut down");
    return this.#timelines.start(timelineId, { ...state, clean: null });
  }

  /** Of leftovers of a creation that never came to an index. The directory itself comes with its first file: most branches are never written to. */
  async #clearDirectory(timelineId: TimelineId): Promise<void> {
    const { platform: { files }, failpoints, deletionQueue, tenantShardId } = this.#timelines.deps;
    await deletionQueue.discardShard(tenantShardId, timelineId);
    const directory = this.#timelines.directoryOf(timelineId);
    if (await files.exists(directory)) await files.removeTree(directory);
    await failpoints?.hit("timeline-creation-after-uninit", this.#timelines.stopping);
    await failpoints?.hit("after-timeline-dir-creation", this.#timelines.stopping);
  }
}

/** A branch in object storage whose ancestor is not there could never be loaded. */
async function ensureInObjectStorage(parent: Timeline, signal: AbortSignal | undefined): Promise<void> {
  if (parent.remoteClient.cleanIndex !== null) return;
  await parent.freezeAndFlush();
  await parent.waitUploaded(signal);
}

function checkBranchLsn(parent: Timeline, lsn: Lsn): void {
  const lowest = Math.max(parent.gcCutoffLsn, parent.ancestor?.lsn ?? 0);
  if (lsn >= parent.gcCutoffLsn || parent.leases.has(lsn)) {
    if (lsn >= (parent.ancestor?.lsn ?? 0)) return;
  }
  throw new StrataError("fix-input", "bad-branch-lsn", `branch at LSN ${lsnToString(lsn)}: timeline ${parent.timelineId} has history from ${lsnToString(lowest)} on`, { details: { lsn: lsnToString(lsn), lowest: lsnToString(lowest) } });
}
