/**
 * The timelines of one attached tenant shard: create, branch, load from object storage, delete, shut down.
 *
 *   const manager = new TimelineManager(deps);
 *   await manager.loadTimelines();                                   // from object storage, local files reused
 *   const root = await manager.createTimeline({ timelineId, initdbLsn, pgVersion });
 *   … put, advance (import of initdb's files at initdbLsn) …
 *   await root.freezeAndFlush(); await root.waitUploaded();          // from here on it survives anything
 *   const branch = await manager.createBranch({ timelineId, ancestorTimelineId, lsn });
 */
import { Cancelled, describeError, isStrataError, StrataError } from "../../kit/errors.ts";
import { tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { isTransient } from "../../kit/retry.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { logRetries, withRetries } from "../../remote-storage/retry.ts";
import { TimelineMaintenance } from "../maintenance/timeline-maintenance.ts";
import type { IndexPart, TimelineMetadata } from "../remote-timeline/index-part.ts";
import type { OffloadedTimeline } from "../remote-timeline/tenant-manifest.ts";
import { listRemoteTimelines, loadIndexPart } from "../remote-timeline/remote-download.ts";
import { deleteRemoteTimeline, discardUnfinishedTimeline, RemoteTimelineClient } from "../remote-timeline/remote-timeline-client.ts";
import { indexPartKey } from "../remote-timeline/remote-paths.ts";
import { Archival } from "./archival.ts";
import { reconcileLocalFiles } from "./local-files.ts";
import { OffloadedTimelines } from "./offloaded-timelines.ts";
import { Timeline } from "./timeline.ts";
import type { TenantDeps } from "./timeline-deps.ts";
import { WorkSlots } from "./work-slots.ts";

const LOADS_AT_ONCE = 8;
const UNBORN_ATTEMPTS = 10;
const VALIDATE_ATTEMPTS = 10;
const DELETION_PAUSE_MS = 30_000;
const CHILDREN_TOLD_MAX = 10;

interface Managed {
  readonly timeline: Timeline;
  readonly maintenance: TimelineMaintenance;
}

/** Where a root timeline begins. */
export interface RootOrigin {
  readonly initdbLsn: Lsn;
  readonly pgVersion: PgMajor;
}

interface LoadedIndex {
  readonly index: IndexPart;
  readonly generation: number | null;
}

export class TimelineManager {
  readonly #deps: TenantDeps;
  readonly #timelines = new Map<TimelineId, Managed>();
  /** Timelines that could not be loaded, and why; nothing of theirs is touched. */
  readonly #broken = new Map<TimelineId, unknown>();
  /** Those of them whose index cannot be read: each may be a branch of any other. */
  readonly #ofUnknownOrigin = new Set<TimelineId>();
  /** Being created or deleted. */
  readonly #busy = new Map<TimelineId, string>();
  /** Under way on busy timelines; none ends with an error. */
  readonly #works = new Set<Promise<void>>();
  readonly #deletions = new Map<TimelineId, Promise<void>>();
  readonly #stop = new AbortController();
  readonly #offloaded: OffloadedTimelines;
  readonly archival: Archival;

  constructor(deps: TenantDeps) {
    this.#deps = deps;
    this.#offloaded = new OffloadedTimelines(deps, this.#stop.signal);
    this.archival = new Archival({
      deps,
      offloaded: this.#offloaded,
      get: (timelineId) => this.get(timelineId),
      find: (timelineId) => this.#timelines.get(timelineId)?.timeline,
      whileBusy: (timelineId, what, work) => this.#whileBusy(timelineId, what, work),
      unload: (timelineId) => this.#unload(timelineId),
      load: (timelineId, signal) => this.#loadAgain(timelineId, signal),
      stopping: this.#stop.signal,
      removeLocalFiles: (timelineId) => deps.platform.files.removeTree(this.#directoryOf(timelineId)),
    });
  }

  /** Those that are in object storage alone. */
  get offloaded(): readonly OffloadedTimeline[] {
    return this.#offloaded.all;
  }

  /** Being made, deleted, archived or the like. */
  isBusy(timelineId: TimelineId): boolean {
    return this.#busy.has(timelineId);
  }

  isOffloaded(timelineId: TimelineId): boolean {
    return this.#offloaded.get(timelineId) !== undefined;
  }

  get timelineIds(): TimelineId[] {
    return [...this.#timelines.keys()];
  }

  /** Whether it is here and can be used. */
  has(timelineId: TimelineId): boolean {
    return this.#timelines.has(timelineId);
  }

  get brokenTimelines(): ReadonlyMap<TimelineId, unknown> {
    return this.#broken;
  }

  /** @throws StrataError not-found `timeline-not-found`; unavailable `timeline-broken` */
  get(timelineId: TimelineId): Timeline {
    const managed = this.#timelines.get(timelineId);
    if (managed !== undefined) return managed.timeline;
    const cause = this.#broken.get(timelineId);
    if (cause !== undefined) throw new StrataError("unavailable", "timeline-broken", `timeline ${timelineId} cannot be used: ${describeError(cause)}`, { cause });
    const where = this.#offloaded.get(timelineId) === undefined ? "was not found" : "is offloaded";
    throw new StrataError("not-found", "timeline-not-found", `timeline ${timelineId} ${where}`, { details: { timelineId } });
  }

  /** Compaction, GC and image creation of a timeline, for the routes that ask for them by hand. */
  maintenanceOf(timelineId: TimelineId): TimelineMaintenance {
    this.get(timelineId);
    return (this.#timelines.get(timelineId) as Managed).maintenance;
  }

  #directoryOf(timelineId: TimelineId): string {
    return `${this.#deps.workDirectory}/tenants/${tenantShardIdToString(this.#deps.tenantShardId)}/timelines/${timelineId}`;
  }

  // ---- Creating

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
      if (this.#stop.signal.aborted) throw new Cancelled("the tenant is shut down");
      const metadata: TimelineMetadata = { diskConsistentLsn: 0, prevRecordLsn: null, ancestor: null, latestGcCutoffLsn: initdbLsn, initdbLsn, pgVersion };
      await this.#clearDirectory(timelineId);
      return this.#start(timelineId, { metadata, clean: null, ancestor: null });
    };
    return await this.#exclusively(timelineId, "being created", async () => {
      try {
        return await work(create);
      } catch (error) {
        if (this.#timelines.has(timelineId)) await this.#discardRoot(timelineId);
        throw error;
      }
    });
  }

  async #discardRoot(timelineId: TimelineId): Promise<void> {
    const { remote: storage, tenantShardId, generation, platform, log } = this.#deps;
    if (!(await this.#discardUnborn(timelineId))) return;
    await discardUnfinishedTimeline({ storage, tenantShardId, timelineId, generation, platform }, this.#stop.signal).catch((error: unknown) => log.info("objects of an unfinished timeline are left behind", { timelineId, error }));
  }

  /** @throws StrataError conflict `timeline-busy` while it is made or deleted */
  assertNotBusy(timelineId: TimelineId): void {
    const busy = this.#busy.get(timelineId);
    if (busy !== undefined) throw busyError(timelineId, busy);
  }

  /**
   * A branch of `ancestorTimelineId` at `lsn` (its last record LSN unless given): one index_part uploaded, nothing copied.
   * @throws StrataError conflict `timeline-exists`, `timeline-busy`; not-found; fix-input `bad-branch-lsn` outside the ancestor's history
   */
  async createBranch(options: { readonly timelineId: TimelineId; readonly ancestorTimelineId: TimelineId; readonly lsn?: Lsn; readonly signal?: AbortSignal }): Promise<Timeline> {
    const { timelineId, signal } = options;
    const parent = this.get(options.ancestorTimelineId);
    const lsn = options.lsn ?? parent.lastRecordLsn;
    return await this.#exclusively(timelineId, "being created", async () => {
      await parent.waitLsn(lsn, { who: `creation of branch ${timelineId}`, signal });
      this.#assertIdle(parent.timelineId);
      checkBranchLsn(parent, lsn);
      await ensureInObjectStorage(parent, signal);
      // From the checks to the entry nothing else runs: GC and deletion of the ancestor see the branch point, or came before.
      this.#assertIdle(parent.timelineId);
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
    await this.#clearDirectory(timelineId);
    const timeline = this.#start(timelineId, { metadata, clean: null, ancestor: { timeline: parent, lsn } });
    timeline.remoteClient.scheduleIndexUpload();
    await timeline.waitUploaded(signal);
    return timeline;
  }

  /**
   * Of a timeline whose creation failed. Its index may have arrived although nobody heard of it, and would bring it back at the
   * next start: true only when it is surely not there. As long as it may be, the ancestor's history must stay.
   */
  async #discardUnborn(timelineId: TimelineId): Promise<boolean> {
    const { platform, remote, tenantShardId, generation, log } = this.#deps;
    const managed = this.#timelines.get(timelineId);
    this.#timelines.delete(timelineId);
    try {
      await managed?.maintenance.stop();
      await managed?.timeline.shutdown(false);
      await platform.files.removeTree(this.#directoryOf(timelineId));
      const { signal } = this.#stop;
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
    if (this.get(timelineId) !== parent) throw busyError(timelineId, "not the one it was");
  }

  #assertIdle(timelineId: TimelineId): void {
    this.assertNotBusy(timelineId);
    if (this.#offloaded.get(timelineId) === undefined) this.get(timelineId);
  }

  async #exclusively<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
    this.assertNotBusy(timelineId);
    if (this.#timelines.has(timelineId) || this.#broken.has(timelineId) || this.#offloaded.get(timelineId) !== undefined) {
      throw new StrataError("conflict", "timeline-exists", `timeline ${timelineId} exists already`, { details: { timelineId } });
    }
    return await this.#markedBusy(timelineId, what, work);
  }

  async #markedBusy<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
    this.#busy.set(timelineId, what);
    const running = work();
    const ended = running.then(
      () => {},
      () => {},
    );
    this.#works.add(ended);
    try {
      return await running;
    } finally {
      this.#works.delete(ended);
      this.#busy.delete(timelineId);
    }
  }

  /** Of leftovers of a creation that never came to an index. The directory itself comes with its first file: most branches are never written to. */
  async #clearDirectory(timelineId: TimelineId): Promise<void> {
    const { platform: { files }, failpoints, deletionQueue, tenantShardId } = this.#deps;
    await deletionQueue.discardShard(tenantShardId, timelineId);
    const directory = this.#directoryOf(timelineId);
    if (await files.exists(directory)) await files.removeTree(directory);
    await failpoints?.hit("timeline-creation-after-uninit", this.#stop.signal);
    await failpoints?.hit("after-timeline-dir-creation", this.#stop.signal);
  }

  #start(timelineId: TimelineId, state: { metadata: TimelineMetadata; clean: IndexPart | null; ancestor: { timeline: Timeline; lsn: Lsn } | null }): Timeline {
    const { metadata, clean, ancestor } = state;
    const remoteClient = this.#remoteClient(timelineId, { metadata, clean });
    const timeline = new Timeline({ deps: this.#deps, timelineId, directory: this.#directoryOf(timelineId), remoteClient, metadata, ancestor });
    const maintenance = new TimelineMaintenance(timeline, { loadedMs: clean === null ? null : this.#deps.platform.clock.monotonicMs() });
    this.#timelines.set(timelineId, { timeline, maintenance });
    // Until the next load: what timelines see that cannot be read now must be there when they can.
    if (this.#ofUnknownOrigin.size > 0) maintenance.blockGc();
    maintenance.start();
    return timeline;
  }

  #remoteClient(timelineId: TimelineId, state: { metadata: TimelineMetadata; clean: IndexPart | null }): RemoteTimelineClient {
    const { platform, log, remote, deletionQueue, tenantShardId, generation, failpoints, metrics } = this.#deps;
    return new RemoteTimelineClient({ platform, log: log.child({ timelineId }), storage: remote, deletionQueue, tenantShardId, timelineId, generation, ...state, metrics, ...(failpoints === undefined ? {} : { failpoints }) });
  }

  // ---- Loading

  /**
   * All timelines that object storage has for the shard, ancestors first. One that cannot be loaded is broken, and so
   * are its descendants; the others go on. Deletions found under way are finished in the background.
   * Object storage that cannot be reached is waited for.
   */
  async loadTimelines(signal?: AbortSignal): Promise<void> {
    const { metrics: { tenants }, platform: { clock } } = this.#deps;
    const startMs = clock.monotonicMs();
    await this.#deps.failpoints?.hit("storage-sync-list-remote-timelines", signal);
    const ids = await this.#untilReached(() => listRemoteTimelines(this.#deps.remote, this.#deps.tenantShardId, signal), signal);
    await this.#loadManifest(signal);
    const slots = new WorkSlots(LOADS_AT_ONCE);
    const indexes = new Map<TimelineId, LoadedIndex>();
    await Promise.all(ids.map((id) => slots.run(() => this.#loadIndex(id, indexes, signal))));
    const loadedMs = clock.monotonicMs();
    tenants.preload.recordMs(loadedMs - startMs);
    for (const [id, { index }] of indexes) {
      if (index.deletedAt !== null) {
        indexes.delete(id);
        this.#offloaded.forget(id);
        this.#resumeDeletion(id, index);
      }
    }
    for (const { timelineId } of this.#offloaded.all) this.#leaveOffloaded(timelineId, indexes);
    if (this.#ofUnknownOrigin.size > 0) this.#deps.log.warn("timelines whose index cannot be read may be branches of any other: nothing is collected or deleted until they can be read", { timelineIds: [...this.#ofUnknownOrigin] });
    for (const id of ancestorsFirst(indexes)) await this.#loadTimeline(id, (indexes.get(id) as LoadedIndex).index);
    await this.#removeUnknownDirectories(new Set(ids.filter((id) => this.#offloaded.get(id) === undefined)));
    tenants.attach.recordMs(clock.monotonicMs() - loadedMs);
  }

  /** Without a readable manifest everything is loaded, which is only more work. */
  async #loadManifest(signal?: AbortSignal): Promise<void> {
    try {
      await this.#untilReached(() => this.#offloaded.load(signal), signal);
    } catch (error) {
      if (!isStrataError(error, "bad-tenant-manifest")) throw error;
      this.#deps.log.error("the tenant manifest cannot be read; offloaded timelines are loaded", { error });
    }
  }

  /** The manifest may be older than the timeline's index: one that is gone is no entry, one that is unarchived is loaded. */
  #leaveOffloaded(timelineId: TimelineId, indexes: Map<TimelineId, LoadedIndex>): void {
    const index = indexes.get(timelineId)?.index;
    if (index?.archivedAt === null || (index === undefined && !this.#broken.has(timelineId))) return this.#offloaded.forget(timelineId);
    indexes.delete(timelineId);
    // Nobody needs it now: that it cannot be read matters to who unarchives it. The manifest tells what it stands on.
    this.#broken.delete(timelineId);
    this.#ofUnknownOrigin.delete(timelineId);
  }

  async #loadAgain(timelineId: TimelineId, signal?: AbortSignal): Promise<Timeline> {
    const { remote: storage, tenantShardId, generation } = this.#deps;
    await this.#loadTimeline(timelineId, (await loadIndexPart({ storage, tenantShardId, timelineId, clock: this.#deps.platform.clock }, generation, signal)).index);
    const cause = this.#broken.get(timelineId);
    if (cause === undefined) return this.get(timelineId);
    this.#broken.delete(timelineId);
    throw new StrataError("unavailable", "timeline-broken", `timeline ${timelineId} cannot be loaded`, { cause });
  }

  async #unload(timelineId: TimelineId): Promise<void> {
    const managed = this.#timelines.get(timelineId);
    await managed?.maintenance.stop();
    await managed?.timeline.shutdown(false);
    this.#timelines.delete(timelineId);
  }

  async #whileBusy<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
    this.#assertIdle(timelineId);
    return await this.#markedBusy(timelineId, what, work);
  }

  /** A start while object storage is away, or refuses, must not leave everything broken when it is back. */
  async #untilReached<T>(operation: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { platform, log } = this.#deps;
    const isRetryable = (error: unknown) => isTransient(error) || (isStrataError(error) && error.kind === "forbidden");
    return await withRetries(operation, { ...platform, maxAttempts: Number.POSITIVE_INFINITY, signal, isRetryable, onRetry: logRetries(log, "object storage cannot be read, will try again") });
  }

  async #loadIndex(timelineId: TimelineId, into: Map<TimelineId, LoadedIndex>, signal?: AbortSignal): Promise<void> {
    const { remote: storage, tenantShardId, generation, log } = this.#deps;
    try {
      into.set(timelineId, await this.#untilReached(() => loadIndexPart({ storage, tenantShardId, timelineId, clock: this.#deps.platform.clock }, generation, signal), signal));
    } catch (error) {
      if (isStrataError(error, "index-part-not-found")) return log.info("objects without an index are left alone", { timelineId });
      signal?.throwIfAborted();
      this.#ofUnknownOrigin.add(timelineId);
      this.#markBroken(timelineId, error);
    }
  }

  #markBroken(timelineId: TimelineId, error: unknown): void {
    this.#deps.log.error("timeline cannot be loaded", { timelineId, error });
    this.#broken.set(timelineId, error);
  }

  async #loadTimeline(timelineId: TimelineId, index: IndexPart): Promise<void> {
    const origin = index.metadata.ancestor;
    // Whether or not it can be loaded now, its ancestor keeps what it sees.
    if (origin !== null) this.#timelines.get(origin.timelineId)?.timeline.branchPoints.set(timelineId, origin.lsn);
    try {
      const ancestor = origin === null ? null : { timeline: this.get(origin.timelineId), lsn: origin.lsn };
      const { metrics, platform: { clock } } = this.#deps;
      const startMs = clock.monotonicMs();
      const local = await reconcileLocalFiles(this.#deps.platform, this.#directoryOf(timelineId), index);
      const timeline = this.#start(timelineId, { metadata: index.metadata, clean: index, ancestor });
      timeline.adoptIndex(index, local.resident);
      metrics.took("load layer map", timeline.counts, clock.monotonicMs() - startMs);
      for (const child of this.#offloaded.childrenOf(timelineId)) timeline.branchPoints.set(child.timelineId, child.lsn);
    } catch (error) {
      this.#markBroken(timelineId, error);
    }
  }

  async #removeUnknownDirectories(known: ReadonlySet<TimelineId>): Promise<void> {
    const { files } = this.#deps.platform;
    const parent = this.#directoryOf("").slice(0, -1);
    if (!(await files.exists(parent))) return;
    for (const name of await files.list(parent)) {
      if (!known.has(name) && !this.#timelines.has(name) && /^[0-9a-f]{32}$/.test(name)) await files.removeTree(`${parent}/${name}`);
    }
  }

  // ---- Deleting

  /**
   * Deletes a timeline for good. Once the deleted mark is in object storage, a restart finishes what was begun.
   * @throws StrataError not-found; conflict `timeline-has-children`, `timeline-busy`; unavailable, to be tried again
   */
  async deleteTimeline(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    const running = this.#deletions.get(timelineId);
    if (running !== undefined) return await running;
    const stop = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    const managed = this.#assertDeletable(timelineId);
    const deletion = this.#whileBusy(timelineId, "being deleted", () => (managed === null ? this.#deleteOffloaded(timelineId, stop) : this.#delete(managed, stop)));
    this.#deletions.set(timelineId, deletion);
    await deletion.finally(() => this.#deletions.delete(timelineId));
  }

  /** @throws as `deleteTimeline`, before anything is done */
  assertDeletable(timelineId: TimelineId): void {
    if (!this.#deletions.has(timelineId)) this.#assertDeletable(timelineId);
  }

  /** Null for an offloaded timeline. */
  #assertDeletable(timelineId: TimelineId): Managed | null {
    this.#assertIdle(timelineId);
    const isOffloaded = this.#offloaded.get(timelineId) !== undefined;
    const children = isOffloaded ? this.#offloaded.childrenOf(timelineId).map((child) => child.timelineId) : [...this.get(timelineId).branchPoints.keys()];
    const told = [...children.slice(0, CHILDREN_TOLD_MAX), ...(children.length > CHILDREN_TOLD_MAX ? ["…"] : [])].join(", ");
    if (children.length > 0) throw new StrataError("conflict", "timeline-has-children", `timeline ${timelineId} has branches: ${told}`, { details: { timelineId, children: children.length } });
    if (this.#ofUnknownOrigin.size > 0) throw new StrataError("conflict", "precondition-failed", `timelines that cannot be read may be branches of ${timelineId}: ${[...this.#ofUnknownOrigin].join(", ")}`);
    return isOffloaded ? null : (this.#timelines.get(timelineId) as Managed);
  }

  async #deleteOffloaded(timelineId: TimelineId, signal: AbortSignal): Promise<void> {
    const { remote: storage, tenantShardId, generation } = this.#deps;
    const ancestorId = this.#offloaded.get(timelineId)?.ancestor?.timelineId;
    const { index } = await loadIndexPart({ storage, tenantShardId, timelineId, clock: this.#deps.platform.clock }, generation, signal);
    await this.#deleteRemote(timelineId, index, signal);
    await this.#offloaded.remove(timelineId);
    if (ancestorId !== undefined) this.#timelines.get(ancestorId)?.timeline.branchPoints.delete(timelineId);
  }

  async #delete({ timeline, maintenance }: Managed, signal: AbortSignal): Promise<void> {
    const { timelineId } = timeline;
    await maintenance.stop();
    await timeline.shutdown(false);
    const { failpoints, platform } = this.#deps;
    await failpoints?.hit("timeline-delete-before-index-deleted-at", signal);
    await this.#deleteRemote(timelineId, timeline.remoteClient.cleanIndex, signal);
    await failpoints?.hit("timeline-delete-before-rm", signal);
    await platform.files.removeTree(this.#directoryOf(timelineId));
    await failpoints?.hit("timeline-delete-after-rm", signal);
    if (timeline.ancestor !== null) this.#timelines.get(timeline.ancestor.timelineId)?.timeline.branchPoints.delete(timelineId);
    this.#timelines.delete(timelineId);
  }

  /**
   * The mark first, at our own generation, then all objects, then the marked index. Only as the newest generation: under a later one
   * the timeline may have been deleted and made again meanwhile.
   */
  async #deleteRemote(timelineId: TimelineId, index: IndexPart | null, signal?: AbortSignal): Promise<void> {
    const { remote: storage, tenantShardId, generation, platform, failpoints } = this.#deps;
    await this.#assertNewest(signal);
    if (index === null) return await deleteRemoteTimeline({ storage, tenantShardId, timelineId, generation, platform }, signal);
    const client = this.#remoteClient(timelineId, { metadata: index.metadata, clean: index });
    // Whoever gives up has it end with him: a mark that came later would delete what goes on elsewhere.
    await client.persistDeletedMark(signal).finally(() => client.shutdown());
    await failpoints?.hit("timeline-delete-before-schedule", signal);
    await failpoints?.hit("in_progress_delete", signal);
    await this.#assertNewest(signal);
    await client.deleteAll(signal);
  }

  async #assertNewest(signal: AbortSignal | undefined): Promise<void> {
    const { platform, deletionQueue, tenantShardId, generation } = this.#deps;
    await withRetries(() => deletionQueue.assertNewest({ tenantShardId, generation }), { ...platform, maxAttempts: VALIDATE_ATTEMPTS, signal });
  }

  #resumeDeletion(timelineId: TimelineId, index: IndexPart): void {
    this.#busy.set(timelineId, "being deleted");
    const work = this.#finishDeletion(timelineId, index).finally(() => {
      this.#deletions.delete(timelineId);
      this.#busy.delete(timelineId);
    });
    this.#deletions.set(timelineId, work);
  }

  /** Tries until it is done, or not ours to do any more. Never throws. */
  async #finishDeletion(timelineId: TimelineId, index: IndexPart): Promise<void> {
    const { log, platform } = this.#deps;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#deleteRemote(timelineId, index, signal);
        return await platform.files.removeTree(this.#directoryOf(timelineId));
      } catch (error) {
        if (signal.aborted) return;
        log.warn("deletion of a timeline could not be finished", { timelineId, error });
        if (isStrataError(error, "stale-generation")) return;
        await platform.clock.sleep(DELETION_PAUSE_MS, signal).catch(() => {});
      }
    }
  }

  // ---- Ending

  /** @param options.flush everything ingested goes to object storage first, unless `signal` ends the wait */
  async shutdown(options: { readonly flush: boolean; readonly signal?: AbortSignal }): Promise<void> {
    this.#stop.abort();
    const all = [...this.#timelines.values()];
    await Promise.all(all.map(({ maintenance }) => maintenance.stop()));
    await Promise.all(all.map((managed) => this.#shutdownTimeline(managed.timeline, options)));
    await Promise.allSettled([...this.#deletions.values(), ...this.#works]);
    this.#timelines.clear();
  }

  async #shutdownTimeline(timeline: Timeline, options: { readonly flush: boolean; readonly signal?: AbortSignal }): Promise<void> {
    try {
      await timeline.shutdown(options.flush, options.signal);
    } catch (error) {
      this.#deps.log.warn("timeline could not be flushed at shutdown; its WAL will come again", { timelineId: timeline.timelineId, error });
      await timeline.shutdown(false);
    }
  }
}

/** A branch in object storage whose ancestor is not there could never be loaded. */
async function ensureInObjectStorage(parent: Timeline, signal: AbortSignal | undefined): Promise<void> {
  if (parent.remoteClient.cleanIndex !== null) return;
  await parent.freezeAndFlush();
  await parent.waitUploaded(signal);
}

function busyError(timelineId: TimelineId, busy: string): StrataError {
  return new StrataError("conflict", "timeline-busy", `timeline ${timelineId} is ${busy}`, { details: { timelineId } });
}

function checkBranchLsn(parent: Timeline, lsn: Lsn): void {
  const lowest = Math.max(parent.gcCutoffLsn, parent.ancestor?.lsn ?? 0);
  if (lsn >= parent.gcCutoffLsn || parent.leases.has(lsn)) {
    if (lsn >= (parent.ancestor?.lsn ?? 0)) return;
  }
  throw new StrataError("fix-input", "bad-branch-lsn", `branch at LSN ${lsnToString(lsn)}: timeline ${parent.timelineId} has history from ${lsnToString(lowest)} on`, { details: { lsn: lsnToString(lsn), lowest: lsnToString(lowest) } });
}

/** Timelines whose ancestors are unknown come last, and will fail there. */
function ancestorsFirst(indexes: ReadonlyMap<TimelineId, LoadedIndex>): TimelineId[] {
  const order: TimelineId[] = [];
  const placed = new Set<TimelineId>();
  const waiting = new Map<TimelineId, TimelineId[]>();
  for (const [id, { index }] of indexes) {
    const ancestor = index.metadata.ancestor?.timelineId ?? "";
    const siblings = waiting.get(ancestor);
    if (siblings === undefined) waiting.set(ancestor, [id]);
    else siblings.push(id);
  }
  order.push(...(waiting.get("") ?? []));
  for (let at = 0; at < order.length; at++) {
    placed.add(order[at]);
    for (const child of waiting.get(order[at]) ?? []) order.push(child);
  }
  return [...order, ...[...indexes.keys()].filter((id) => !placed.has(id))];
}
