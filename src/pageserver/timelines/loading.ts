/** How timelines come from object storage: all of a shard's when it is attached, one that was offloaded when it is wanted again. */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { TimelineId } from "../../kit/ids.ts";
import { isTransient } from "../../kit/retry.ts";
import { logRetries, withRetries } from "../../remote-storage/retry.ts";
import type { IndexPart } from "../remote-timeline/index-part.ts";
import { listRemoteTimelines, loadIndexPart } from "../remote-timeline/remote-download.ts";
import { reconcileLocalFiles } from "../timeline/local-files.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { WorkSlots } from "../timeline/work-slots.ts";
import type { ShardTimelines } from "./shard-timelines.ts";
import type { TimelineDeletion } from "./deletion.ts";

const LOADS_AT_ONCE = 8;

interface LoadedIndex {
  readonly index: IndexPart;
  readonly generation: number | null;
}

export class TimelineLoading {
  readonly #timelines: ShardTimelines;
  /** Of those that are found half deleted. */
  readonly #deletion: TimelineDeletion;

  constructor(timelines: ShardTimelines, deletion: TimelineDeletion) {
    this.#timelines = timelines;
    this.#deletion = deletion;
  }

  /**
   * All timelines that object storage has for the shard, ancestors first. One that cannot be loaded is broken, and so
   * are its descendants; the others go on. Deletions found under way are finished in the background.
   * Object storage that cannot be reached is waited for.
   */
  async loadTimelines(signal?: AbortSignal): Promise<void> {
    const { metrics: { tenants }, platform: { clock } } = this.#timelines.deps;
    const startMs = clock.monotonicMs();
    await this.#timelines.deps.failpoints?.hit("storage-sync-list-remote-timelines", signal);
    const ids = await this.#untilReached(() => listRemoteTimelines(this.#timelines.deps.remote, this.#timelines.deps.tenantShardId, signal), signal);
    await this.#loadManifest(signal);
    const slots = new WorkSlots(LOADS_AT_ONCE);
    const indexes = new Map<TimelineId, LoadedIndex>();
    await Promise.all(ids.map((id) => slots.run(() => this.#loadIndex(id, indexes, signal))));
    const loadedMs = clock.monotonicMs();
    tenants.preload.recordMs(loadedMs - startMs);
    for (const [id, { index }] of indexes) {
      if (index.deletedAt !== null) {
        indexes.delete(id);
        this.#timelines.offloaded.forget(id);
        this.#deletion.resume(id, index);
      }
    }
    for (const { timelineId } of this.#timelines.offloaded.all) this.#leaveOffloaded(timelineId, indexes);
    if (this.#timelines.ofUnknownOrigin.size > 0) this.#timelines.deps.log.warn("timelines whose index cannot be read may be branches of any other: nothing is collected or deleted until they can be read", { timelineIds: [...this.#timelines.ofUnknownOrigin] });
    for (const id of ancestorsFirst(indexes)) await this.#loadTimeline(id, (indexes.get(id) as LoadedIndex).index);
    await this.#removeUnknownDirectories(new Set(ids.filter((id) => this.#timelines.offloaded.get(id) === undefined)));
    tenants.attach.recordMs(clock.monotonicMs() - loadedMs);
  }

  /** Without a readable manifest everything is loaded, which is only more work. */
  async #loadManifest(signal?: AbortSignal): Promise<void> {
    try {
      await this.#untilReached(() => this.#timelines.offloaded.load(signal), signal);
    } catch (error) {
      if (!isStrataError(error, "bad-tenant-manifest")) throw error;
      this.#timelines.deps.log.error("the tenant manifest cannot be read; offloaded timelines are loaded", { error });
    }
  }

  /** The manifest may be older than the timeline's index: one that is gone is no entry, one that is unarchived is loaded. */
  #leaveOffloaded(timelineId: TimelineId, indexes: Map<TimelineId, LoadedIndex>): void {
    const index = indexes.get(timelineId)?.index;
    if (index?.archivedAt === null || (index === undefined && !this.#timelines.broken.has(timelineId))) return this.#timelines.offloaded.forget(timelineId);
    indexes.delete(timelineId);
    // Nobody needs it now: that it cannot be read matters to who unarchives it. The manifest tells what it stands on.
    this.#timelines.forgetBroken(timelineId);
  }

  async loadAgain(timelineId: TimelineId, signal?: AbortSignal): Promise<Timeline> {
    const { remote: storage, tenantShardId, generation } = this.#timelines.deps;
    await this.#loadTimeline(timelineId, (await loadIndexPart({ storage, tenantShardId, timelineId, clock: this.#timelines.deps.platform.clock, mayBeOurs: true }, generation, signal)).index);
    const cause = this.#timelines.broken.get(timelineId);
    if (cause === undefined) return this.#timelines.get(timelineId);
    this.#timelines.forgetBroken(timelineId);
    throw new StrataError("unavailable", "timeline-broken", `timeline ${timelineId} cannot be loaded`, { cause });
  }

  /** A start while object storage is away, or refuses, must not leave everything broken when it is back. */
  async #untilReached<T>(operation: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { platform, log } = this.#timelines.deps;
    const isRetryable = (error: unknown) => isTransient(error) || (isStrataError(error) && error.kind === "forbidden");
    return await withRetries(operation, { ...platform, maxAttempts: Number.POSITIVE_INFINITY, signal, isRetryable, onRetry: logRetries(log, "object storage cannot be read, will try again") });
  }

  async #loadIndex(timelineId: TimelineId, into: Map<TimelineId, LoadedIndex>, signal?: AbortSignal): Promise<void> {
    const { remote: storage, tenantShardId, generation, log } = this.#timelines.deps;
    try {
      into.set(timelineId, await this.#untilReached(() => loadIndexPart({ storage, tenantShardId, timelineId, clock: this.#timelines.deps.platform.clock }, generation, signal), signal));
    } catch (error) {
      if (isStrataError(error, "index-part-not-found")) return log.info("objects without an index are left alone", { timelineId });
      signal?.throwIfAborted();
      this.#timelines.markOfUnknownOrigin(timelineId, error);
    }
  }

  async #loadTimeline(timelineId: TimelineId, index: IndexPart): Promise<void> {
    const origin = index.metadata.ancestor;
    // Whether or not it can be loaded now, its ancestor keeps what it sees.
    if (origin !== null) this.#timelines.find(origin.timelineId)?.branchPoints.set(timelineId, origin.lsn);
    try {
      const ancestor = origin === null ? null : { timeline: this.#timelines.get(origin.timelineId), lsn: origin.lsn };
      const { metrics, platform: { clock } } = this.#timelines.deps;
      const startMs = clock.monotonicMs();
      const local = await reconcileLocalFiles(this.#timelines.deps.platform, this.#timelines.directoryOf(timelineId), index);
      const timeline = this.#timelines.start(timelineId, { metadata: index.metadata, clean: index, ancestor });
      timeline.adoptIndex(index, local.resident);
      metrics.took("load layer map", timeline.counts, clock.monotonicMs() - startMs);
      for (const child of this.#timelines.offloaded.childrenOf(timelineId)) timeline.branchPoints.set(child.timelineId, child.lsn);
    } catch (error) {
      this.#timelines.markBroken(timelineId, error);
    }
  }

  async #removeUnknownDirectories(known: ReadonlySet<TimelineId>): Promise<void> {
    const { files } = this.#timelines.deps.platform;
    const parent = this.#timelines.directory;
    if (!(await files.exists(parent))) return;
    for (const name of await files.list(parent)) {
      if (!known.has(name) && this.#timelines.find(name) === undefined && /^[0-9a-f]{32}$/.test(name)) await files.removeTree(`${parent}/${name}`);
    }
  }
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
