/**
 * A tenant shard attached to this pageserver: its timelines, loaded from object storage under its generation.
 *
 * States: `attaching` (timelines being loaded), `active`, `broken` (the reason is told to whoever asks; nothing of it
 * is touched), `stopping`.
 */
import { describeError, StrataError } from "../../kit/errors.ts";
import { type TenantShardId, tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { DatadirModification } from "../datadir/datadir-modification.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";
import { keySpaceAt } from "../datadir/keyspace-at.ts";
import { lsnForTimestamp } from "../datadir/lsn-for-timestamp.ts";
import { postgresTimestamp } from "../../wire/replication-messages.ts";
import { importDatadir } from "../import/import-datadir.ts";
import { INITDB_ARCHIVE_MAX_BYTES } from "../import/initdb-archive.ts";
import { InitdbObjects } from "../remote-timeline/initdb-objects.ts";
import { TenantSize } from "../size/tenant-size.ts";
import type { StorageResources } from "../timeline/timeline-deps.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { RootOrigin } from "../timelines/creation.ts";
import { TimelineManager } from "../timelines/timeline-manager.ts";
import type { TimelineStore } from "../timeline/timeline-store.ts";
import type { ArchivalState } from "../timelines/archival.ts";
import { type BootstrapRequest, type InitdbSettings, withFirstContent } from "./bootstrap.ts";
import { HeatmapUpload } from "./heatmap-upload.ts";
import type { TenantSettings } from "./tenant-config.ts";
import { Throttle, type ThrottleMetrics } from "./throttle.ts";
import { TenantTimeline, type WalSource } from "./tenant-timeline.ts";
import type { WorkSlots } from "../timeline/work-slots.ts";

export type TenantState = "attaching" | "active" | "broken" | "stopping";

export interface TenantOptions {
  readonly resources: StorageResources;
  readonly tenantShardId: TenantShardId;
  readonly shard: ShardIdentity;
  readonly generation: number;
  readonly log: Logger;
  readonly settings: () => TenantSettings;
  readonly initdb: InitdbSettings;
  /** Of all tenants together. */
  readonly throttleMetrics: ThrottleMetrics;
  /** Counts of logical sizes at past LSNs that may run at once. */
  readonly sizeSlots: WorkSlots;
  /** Null: no broker, no WAL. */
  readonly walSource: Omit<WalSource, "config"> | null;
  readonly availabilityZone: string | null;
  readonly safekeeperToken: string | null;
}

/** How long a request waits for a tenant that is being attached. As the page service of the peer does. */
const LOAD_WAIT_MS = 30_000;
/** Receivers of WAL that are started in one turn of the event loop. */
const STARTED_AT_ONCE = 8;

export class Tenant {
  readonly #options: TenantOptions;
  readonly #manager: TimelineManager;
  readonly #timelines = new Map<TimelineId, TenantTimeline>();
  /** Their receivers are stopped, for an import. */
  readonly #writtenByHand = new Set<TimelineId>();
  readonly size: TenantSize;
  readonly heatmap: HeatmapUpload;
  readonly #throttle: Throttle;
  #state: TenantState = "attaching";
  #brokenBy: unknown = null;
  #loading: Promise<void> | null = null;
  #receiversStarted: Promise<void> = Promise.resolve();
  readonly #stop = new AbortController();

  constructor(options: TenantOptions) {
    this.#options = options;
    this.size = new TenantSize({ timelines: () => this.listTimelines().filter(({ timeline }) => timeline.remoteClient.archivedAt === null), slots: options.sizeSlots, clock: options.resources.platform.clock });
    this.#throttle = new Throttle({ clock: options.resources.platform.clock, config: () => options.settings().getThrottle, metrics: options.throttleMetrics });
    this.heatmap = new HeatmapUpload(this, options.resources.remote, { clock: options.resources.platform.clock, counts: options.resources.metrics.heatmaps });
    this.#manager = new TimelineManager({
      ...options.resources,
      log: options.log,
      tenantShardId: options.tenantShardId,
      generation: options.generation,
      config: () => options.settings().timeline,
      keyspaceAt: (store, lsn, context) => keySpaceAt(this.#datadirOf(store).at(lsn, context), options.shard.number === 0),
      lsnForTimestamp: async (store, wallMs, context) => {
        const found = await lsnForTimestamp(this.#datadirOf(store), postgresTimestamp(wallMs), context);
        return found.kind === "present" || found.kind === "future" ? found.lsn : null;
      },
    });
  }

  get tenantShardId(): TenantShardId {
    return this.#options.tenantShardId;
  }
  get shard(): ShardIdentity {
    return this.#options.shard;
  }
  get generation(): number {
    return this.#options.generation;
  }
  get state(): TenantState {
    return this.#state;
  }
  get brokenBy(): unknown {
    return this.#brokenBy;
  }
  /** In effect now. */
  get settings(): TenantSettings {
    return this.#options.settings();
  }
  get throttle(): Throttle {
    return this.#throttle;
  }
  get clock(): Clock {
    return this.#options.resources.platform.clock;
  }
  get manager(): TimelineManager {
    return this.#manager;
  }

  #datadirOf(store: TimelineStore) {
    return this.#adopt(this.#manager.get(store.timelineId)).datadir;
  }

  #adopt(timeline: Timeline): TenantTimeline {
    let known = this.#timelines.get(timeline.timelineId);
    if (known === undefined || known.timeline !== timeline) {
      known = new TenantTimeline(timeline, this.#options.shard, this.#throttle);
      this.#timelines.set(timeline.timelineId, known);
    }
    return known;
  }

  /** Begins to load the timelines and then to receive WAL. A failure makes the tenant broken; object storage that cannot be reached is waited for. */
  start(): void {
    this.#loading ??= this.#load();
  }

  /** When that has ended, whichever way. */
  async loaded(): Promise<void> {
    await this.#loading;
  }

  /** Waits for that. @throws StrataError unavailable `tenant-not-ready` when it takes too long to be waited for */
  async load(): Promise<void> {
    this.start();
    if (this.#state !== "attaching") return;
    const loaded = new AbortController();
    const tooLong = this.#options.resources.platform.clock.sleep(LOAD_WAIT_MS, loaded.signal).then(
      () => true,
      () => false,
    );
    const isLate = await Promise.race([this.#loading?.then(() => false), tooLong]);
    loaded.abort();
    if (isLate === true) this.#assertActive();
  }

  async #load(): Promise<void> {
    const { log, resources: { metrics: { tenants }, platform: { clock } } } = this.#options;
    const startMs = clock.monotonicMs();
    try {
      await this.#manager.loadTimelines(this.#stop.signal);
      await this.#options.resources.failpoints?.hit("attach-before-activate", this.#stop.signal);
      if (this.#state !== "attaching") return;
      this.#state = "active";
      tenants.activation.recordMs(clock.monotonicMs() - startMs);
      log.info("tenant attached", { generation: this.generation, timelines: this.#manager.timelineIds.length });
      this.#receiversStarted = this.#startReceivingAll().catch((error: unknown) => log.error("not all timelines take WAL", { error }));
    } catch (error) {
      if (!this.#stop.signal.aborted) this.markBroken(error);
    }
  }

  /** Some at a time: there may be ten thousand, and each asks the broker for something. */
  async #startReceivingAll(): Promise<void> {
    const { clock } = this.#options.resources.platform;
    let started = 0;
    for (const timelineId of this.#manager.timelineIds) {
      if (this.#state !== "active") return;
      if (this.#manager.has(timelineId) && !this.#manager.isBusy(timelineId) && !this.#writtenByHand.has(timelineId)) this.#startReceiving(this.#adopt(this.#manager.get(timelineId)));
      if (++started % STARTED_AT_ONCE === 0) await clock.sleep(0);
    }
  }

  markBroken(error: unknown): void {
    this.#options.resources.metrics.tenants.unexpectedErrors++;
    this.#options.log.error("tenant is broken", { error });
    this.#brokenBy = error;
    this.#state = "broken";
  }

  #startReceiving(timeline: TenantTimeline): void {
    const { walSource, availabilityZone, safekeeperToken, settings } = this.#options;
    if (walSource === null || this.#state !== "active") return;
    const config = { ...settings().walReceiver, availabilityZone, authToken: safekeeperToken };
    timeline.startReceiving({ ...walSource, config });
  }

  /** @throws StrataError unavailable `tenant-not-ready`, `tenant-broken` */
  #assertActive(): void {
    const id = tenantShardIdToString(this.tenantShardId);
    if (this.#state === "active") return;
    if (this.#state === "broken") throw new StrataError("unavailable", "tenant-broken", `tenant ${id} is broken: ${describeError(this.#brokenBy)}`, { cause: this.#brokenBy });
    throw new StrataError("unavailable", "tenant-not-ready", `tenant ${id} is ${this.#state}`);
  }

  /** Waits for the tenant to be loaded. @throws StrataError unavailable, not-found `timeline-not-found` */
  async timeline(timelineId: TimelineId): Promise<TenantTimeline> {
    if (this.#state === "attaching") await this.load();
    return this.timelineNow(timelineId);
  }

  /** @throws StrataError unavailable `tenant-not-ready`, `tenant-broken`, `timeline-broken`; not-found `timeline-not-found` */
  timelineNow(timelineId: TimelineId): TenantTimeline {
    this.#assertActive();
    return this.#adopt(this.#manager.get(timelineId));
  }

  listTimelines(): TenantTimeline[] {
    this.#assertActive();
    return this.#manager.timelineIds.map((id) => this.#adopt(this.#manager.get(id)));
  }

  /**
   * A root timeline from initdb, a fresh one or one that was archived; in object storage when this returns.
   * @throws StrataError conflict `timeline-exists`, `timeline-busy`; and as `withFirstContent`
   */
  async bootstrapTimeline(request: BootstrapRequest): Promise<TenantTimeline> {
    this.#assertActive();
    const { initdb: settings, resources, shard, log } = this.#options;
    // Each shard would get a cluster of its own, and pages of different ones do not go together.
    if (shard.number > 0 && request.existingInitdb === null) throw new StrataError("fix-input", "sharded-bootstrap", "initdb is run for shard zero only: another shard begins from its archive (existing_initdb_timeline_id)");
    const { platform, workDirectory, failpoints } = resources;
    return await this.#manager.whileCreating(request.timelineId, (create) =>
      withFirstContent(request, { platform, log, workDirectory, settings, archives: this.#initdbArchives, failpoints, counts: resources.metrics.initdb }, async (directory, { endLsn, control }) =>
        await this.#fillTimeline(await create({ initdbLsn: endLsn, pgVersion: control.version }), async (datadir) => {
          await importDatadir(new DatadirModification(datadir), platform.files, directory);
        }),
      ),
    );
  }

  /** A root timeline with the content that `fill` commits; in object storage when this returns, or gone. @throws StrataError conflict `timeline-exists` */
  async importTimeline(timelineId: TimelineId, at: RootOrigin, fill: (datadir: TimelineDatadir) => Promise<void>): Promise<TenantTimeline> {
    this.#assertActive();
    return await this.#manager.whileCreating(timelineId, async (create) => await this.#fillTimeline(await create(at), fill));
  }

  async #fillTimeline(created: Timeline, fill: (datadir: TimelineDatadir) => Promise<void>): Promise<TenantTimeline> {
    const timeline = this.#adopt(created);
    try {
      await fill(timeline.datadir);
      await this.#options.resources.failpoints?.hit("before-checkpoint-new-timeline", this.#stop.signal);
      await timeline.timeline.freezeAndFlush();
      await timeline.timeline.waitUploaded();
    } catch (error) {
      this.#timelines.delete(created.timelineId);
      throw error;
    }
    this.#startReceiving(timeline);
    return timeline;
  }

  get #initdbArchives(): InitdbObjects {
    const { resources: { remote: storage, platform } } = this.#options;
    return new InitdbObjects({ storage, tenantId: this.tenantShardId.tenantId, platform, maxBytes: INITDB_ARCHIVE_MAX_BYTES, signal: this.#stop.signal });
  }

  /** Keeps a copy of the timeline's initdb archive beyond its deletion. @throws StrataError not-found `timeline-not-found`, `initdb-archive-not-found` */
  async preserveInitdbArchive(timelineId: TimelineId): Promise<void> {
    // A tenant or a timeline that is broken is just what it is for.
    if (this.#state !== "broken" && !this.#manager.brokenTimelines.has(timelineId)) await this.timeline(timelineId);
    await this.#initdbArchives.preserve(timelineId);
  }

  /** Lets `work` be the only one that writes to a timeline. */
  async withoutReceiving(timelineId: TimelineId, work: (datadir: TimelineDatadir) => Promise<void>): Promise<void> {
    const view = this.timelineNow(timelineId);
    if (this.#writtenByHand.has(timelineId)) throw new StrataError("conflict", "import-running", `WAL is being imported into timeline ${timelineId} already`);
    this.#writtenByHand.add(timelineId);
    try {
      await view.stopReceiving();
      await work(view.datadir);
    } finally {
      this.#writtenByHand.delete(timelineId);
      if (this.#state === "active") this.#startReceiving(view);
    }
  }

  /** @throws StrataError conflict `timeline-exists`; not-found; fix-input `bad-branch-lsn` */
  async branchTimeline(options: { readonly timelineId: TimelineId; readonly ancestorTimelineId: TimelineId; readonly lsn?: Lsn }): Promise<TenantTimeline> {
    this.#assertActive();
    const isArchived = this.#manager.isOffloaded(options.ancestorTimelineId) || this.#manager.get(options.ancestorTimelineId).remoteClient.archivedAt !== null;
    if (isArchived) throw new StrataError("conflict", "ancestor-archived", `timeline ${options.ancestorTimelineId} is archived: no branch can be made of it`);
    const parent = this.#adopt(this.#manager.get(options.ancestorTimelineId));
    const { lastRecordLsn } = parent.timeline;
    const lsn = options.lsn ?? lastRecordLsn;
    // Of this very LSN: counting it again, for thousands of branches, would be most of their work.
    const knownSizeBytes = lsn === lastRecordLsn ? parent.datadir.knownLogicalSizeBytes : null;
    const branch = this.#adopt(await this.#manager.createBranch({ ...options, lsn }));
    branch.inherit(parent, knownSizeBytes);
    this.#startReceiving(branch);
    return branch;
  }

  async deleteTimeline(timelineId: TimelineId): Promise<void> {
    this.#assertActive();
    // What is refused goes on.
    this.#manager.assertDeletable(timelineId);
    await this.#timelines.get(timelineId)?.stopReceiving();
    await this.#manager.deleteTimeline(timelineId);
    this.#forget(timelineId);
  }

  /** Errors as `Archival.configure`; a timeline that was offloaded takes WAL again. */
  async configureArchival(timelineId: TimelineId, state: ArchivalState, signal?: AbortSignal): Promise<void> {
    this.#assertActive();
    try {
      await this.#manager.archival.configure(timelineId, state, signal);
    } finally {
      // It was busy: whoever would have started its receiver meanwhile has not.
      if (this.#manager.has(timelineId) && !this.#writtenByHand.has(timelineId)) this.#startReceiving(this.#adopt(this.#manager.get(timelineId)));
    }
  }

  /** Errors as `Archival.offload`. */
  async offloadTimeline(timelineId: TimelineId, signal?: AbortSignal): Promise<void> {
    if (this.#manager.isOffloaded(timelineId)) return;
    const view = this.timelineNow(timelineId);
    if (this.#manager.archival.canOffload(view.timeline)) await view.stopReceiving();
    try {
      await this.#manager.archival.offload(timelineId, signal);
    } catch (error) {
      if (this.#manager.has(timelineId)) this.#startReceiving(this.timelineNow(timelineId));
      throw error;
    }
    this.#forget(timelineId);
  }

  #forget(timelineId: TimelineId): void {
    this.#timelines.get(timelineId)?.forgotten();
    this.#timelines.delete(timelineId);
  }

  /** @param options.flush everything ingested goes to object storage first */
  async shutdown(options: { readonly flush: boolean }): Promise<void> {
    const wasActive = this.#state === "active";
    this.#state = "stopping";
    this.#stop.abort();
    await this.#loading;
    await this.#receiversStarted;
    await Promise.all([...this.#timelines.values()].map((timeline) => timeline.stopReceiving()));
    await this.#manager.shutdown({ flush: options.flush && wasActive });
    for (const timelineId of this.#timelines.keys()) this.#forget(timelineId);
  }
}
