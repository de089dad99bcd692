/**
 * The timelines of one tenant shard: which are here, which are broken or offloaded, and which somebody is busy with. Who creates, loads,
 * deletes and archives them shares this; nobody else changes it.
 */
import { describeError, StrataError } from "../../kit/errors.ts";
import { tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { TimelineMaintenance } from "../maintenance/timeline-maintenance.ts";
import type { IndexPart, TimelineMetadata } from "../remote-timeline/index-part.ts";
import { RemoteTimelineClient } from "../remote-timeline/remote-timeline-client.ts";
import { Timeline } from "../timeline/timeline.ts";
import type { TenantDeps } from "../timeline/timeline-deps.ts";
import { OffloadedTimelines } from "./offloaded-timelines.ts";

export interface Managed {
  readonly timeline: Timeline;
  readonly maintenance: TimelineMaintenance;
}

export interface TimelineState {
  readonly metadata: TimelineMetadata;
  /** Its index in object storage; null while there is none. */
  readonly clean: IndexPart | null;
}

export interface StartState extends TimelineState {
  /** With the LSN at which it branches off. */
  readonly ancestor: { readonly timeline: Timeline; readonly lsn: Lsn } | null;
}

export class ShardTimelines {
  readonly deps: TenantDeps;
  readonly offloaded: OffloadedTimelines;
  readonly #timelines = new Map<TimelineId, Managed>();
  /** Timelines that could not be loaded, and why; nothing of theirs is touched. */
  readonly #broken = new Map<TimelineId, unknown>();
  /** Those of them whose index cannot be read: each may be a branch of any other. */
  readonly #ofUnknownOrigin = new Set<TimelineId>();
  /** Being created or deleted. */
  readonly #busy = new Map<TimelineId, string>();
  /** Under way on busy timelines; none ends with an error. */
  readonly #works = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(deps: TenantDeps) {
    this.deps = deps;
    this.offloaded = new OffloadedTimelines(deps, this.#stop.signal);
  }

  /** Aborts when nothing may be started any more. */
  get stopping(): AbortSignal {
    return this.#stop.signal;
  }

  // ---- Looking

  get ids(): TimelineId[] {
    return [...this.#timelines.keys()];
  }

  get broken(): ReadonlyMap<TimelineId, unknown> {
    return this.#broken;
  }

  get ofUnknownOrigin(): ReadonlySet<TimelineId> {
    return this.#ofUnknownOrigin;
  }

  find(timelineId: TimelineId): Timeline | undefined {
    return this.#timelines.get(timelineId)?.timeline;
  }

  /** @throws StrataError not-found `timeline-not-found`; unavailable `timeline-broken` */
  get(timelineId: TimelineId): Timeline {
    return this.managed(timelineId).timeline;
  }

  /** @throws as `get` */
  managed(timelineId: TimelineId): Managed {
    const managed = this.#timelines.get(timelineId);
    if (managed !== undefined) return managed;
    const cause = this.#broken.get(timelineId);
    if (cause !== undefined) throw new StrataError("unavailable", "timeline-broken", `timeline ${timelineId} cannot be used: ${describeError(cause)}`, { cause });
    const where = this.offloaded.get(timelineId) === undefined ? "was not found" : "is offloaded";
    throw new StrataError("not-found", "timeline-not-found", `timeline ${timelineId} ${where}`, { details: { timelineId } });
  }

  directoryOf(timelineId: TimelineId): string {
    return `${this.directory}/${timelineId}`;
  }

  get directory(): string {
    return `${this.deps.workDirectory}/tenants/${tenantShardIdToString(this.deps.tenantShardId)}/timelines`;
  }

  // ---- One at a time

  isBusy(timelineId: TimelineId): boolean {
    return this.#busy.has(timelineId);
  }

  /** @throws StrataError conflict `timeline-busy` while it is made or deleted */
  assertNotBusy(timelineId: TimelineId): void {
    const busy = this.#busy.get(timelineId);
    if (busy !== undefined) throw busyError(timelineId, busy);
  }

  /** @throws as `assertNotBusy` and `get`, except for offloaded ones */
  assertIdle(timelineId: TimelineId): void {
    this.assertNotBusy(timelineId);
    if (this.offloaded.get(timelineId) === undefined) this.get(timelineId);
  }

  /** Refuses others meanwhile. @throws StrataError conflict `timeline-busy`; as `get` */
  async whileBusy<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
    this.assertIdle(timelineId);
    return await this.busyWith(timelineId, what, work);
  }

  /** The same for one that is not there yet. @throws StrataError conflict `timeline-exists`, `timeline-busy` */
  async whileNew<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
    this.assertNotBusy(timelineId);
    if (this.#timelines.has(timelineId) || this.#broken.has(timelineId) || this.offloaded.get(timelineId) !== undefined) {
      throw new StrataError("conflict", "timeline-exists", `timeline ${timelineId} exists already`, { details: { timelineId } });
    }
    return await this.busyWith(timelineId, what, work);
  }

  /** Without asking whether it is there, or anybody is busy with it. */
  async busyWith<T>(timelineId: TimelineId, what: string, work: () => Promise<T>): Promise<T> {
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

  // ---- Coming and going

  /** From now on it is here. */
  start(timelineId: TimelineId, state: StartState): Timeline {
    const { metadata, clean, ancestor } = state;
    const remoteClient = this.remoteClient(timelineId, { metadata, clean });
    const timeline = new Timeline({ deps: this.deps, timelineId, directory: this.directoryOf(timelineId), remoteClient, metadata, ancestor });
    const maintenance = new TimelineMaintenance(timeline, { loadedMs: clean === null ? null : this.deps.platform.clock.monotonicMs() });
    this.#timelines.set(timelineId, { timeline, maintenance });
    // Until the next load: what timelines see that cannot be read now must be there when they can.
    if (this.#ofUnknownOrigin.size > 0) maintenance.blockGc();
    maintenance.start();
    return timeline;
  }

  remoteClient(timelineId: TimelineId, state: TimelineState): RemoteTimelineClient {
    const { platform, log, remote, deletionQueue, tenantShardId, generation, failpoints, metrics } = this.deps;
    return new RemoteTimelineClient({ platform, log: log.child({ timelineId }), storage: remote, deletionQueue, tenantShardId, timelineId, generation, ...state, metrics, ...(failpoints === undefined ? {} : { failpoints }) });
  }

  /** @returns what is not here any more, and still runs */
  forget(timelineId: TimelineId): Managed | undefined {
    const managed = this.#timelines.get(timelineId);
    this.#timelines.delete(timelineId);
    return managed;
  }

  /** Stops a timeline and forgets it here; branches and objects stay. */
  async unload(timelineId: TimelineId): Promise<void> {
    const managed = this.#timelines.get(timelineId);
    await managed?.maintenance.stop();
    await managed?.timeline.shutdown(false);
    this.forget(timelineId);
  }

  markBroken(timelineId: TimelineId, error: unknown): void {
    this.deps.log.error("timeline cannot be loaded", { timelineId, error });
    this.#broken.set(timelineId, error);
  }

  /** Its index cannot be read. */
  markOfUnknownOrigin(timelineId: TimelineId, error: unknown): void {
    this.#ofUnknownOrigin.add(timelineId);
    this.markBroken(timelineId, error);
  }

  /** What it stands on is known elsewhere, or it is tried again. */
  forgetBroken(timelineId: TimelineId): void {
    this.#broken.delete(timelineId);
    this.#ofUnknownOrigin.delete(timelineId);
  }

  // ---- Ending

  /** @param options.flush everything ingested goes to object storage first, unless `signal` ends the wait */
  async shutdown(options: { readonly flush: boolean; readonly signal?: AbortSignal }): Promise<void> {
    this.#stop.abort();
    const all = [...this.#timelines.values()];
    await Promise.all(all.map(({ maintenance }) => maintenance.stop()));
    await Promise.all(all.map((managed) => this.#shutdownTimeline(managed.timeline, options)));
    await Promise.allSettled([...this.#works]);
    this.#timelines.clear();
  }

  async #shutdownTimeline(timeline: Timeline, options: { readonly flush: boolean; readonly signal?: AbortSignal }): Promise<void> {
    try {
      await timeline.shutdown(options.flush, options.signal);
    } catch (error) {
      this.deps.log.warn("timeline could not be flushed at shutdown; its WAL will come again", { timelineId: timeline.timelineId, error });
      await timeline.shutdown(false);
    }
  }
}

export function busyError(timelineId: TimelineId, busy: string): StrataError {
  return new StrataError("conflict", "timeline-busy", `timeline ${timelineId} is ${busy}`, { details: { timelineId } });
}
