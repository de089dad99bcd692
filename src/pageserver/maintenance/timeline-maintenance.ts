/** The background life of a timeline: compaction after flushes and every period, garbage collection every period. */
import { Cancelled, isStrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ReadContext } from "../timeline/timeline-store.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { compactL0, createImage } from "./compaction.ts";
import { type ImagePartition, needsImage, partitionKeySpace, planL0Compaction } from "./compaction-planner.ts";
import { type GcCounts, NOTHING_COLLECTED, planGc, planGcCutoff } from "./gc-planner.ts";
import { countInvisible, retainedBy } from "./layer-visibility.ts";
import { PrudentClock } from "./prudent-clock.ts";
import type { Layer } from "../layers/layer.ts";
import { Pacer } from "../layers/pacer.ts";

/** A period of 0 means off; the loop looks again whether that changed. */
const IDLE_CHECK_MS = 10_000;

export interface CollectedGarbage extends GcCounts {
  readonly cutoff: Lsn;
  readonly elapsedMs: number;
}

export class TimelineMaintenance {
  readonly #timeline: Timeline;
  readonly #stop = new AbortController();
  #started = false;
  #loops: Promise<unknown> | null = null;
  #wake = Promise.withResolvers<void>();
  /** Compaction and GC of one timeline never overlap: both change the layer map by plan. */
  #turn: Promise<void> = Promise.resolve();
  #lastImageCheckLsn: Lsn | null = null;
  #gcBlocked = 0;
  readonly #loadedMs: number | null;
  readonly #prudentClock: PrudentClock;

  /** @param options.loadedMs when the timeline was loaded, in monotonic milliseconds; null for one that was made just now */
  constructor(timeline: Timeline, options: { readonly loadedMs: number | null }) {
    this.#timeline = timeline;
    this.#loadedMs = options.loadedMs;
    this.#prudentClock = new PrudentClock(timeline.deps.platform.clock);
    timeline.onLayers(() => this.#layersCame());
  }

  /** The loops wait for the first layer: a branch at rest, of which there may be thousands, has no timers. */
  start(): void {
    this.#started = true;
    if (this.#hasLayers) this.#loops ??= Promise.all([this.#counted(this.#compactionLoop()), this.#counted(this.#gcLoop())]);
  }

  async #counted(loop: Promise<void>): Promise<void> {
    const { tenants } = this.#timeline.deps.metrics;
    tenants.tasksStarted++;
    await loop.finally(() => tenants.tasksStopped++);
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Cancelled("maintenance is stopping"));
    await this.#loops;
    await this.#turn;
  }

  #layersCame(): void {
    if (this.#loops === null && this.#started && !this.#stop.signal.aborted) this.start();
    if (this.#timeline.stack.map.l0.length >= this.#timeline.config.compactionThreshold) this.#wake.resolve();
  }

  async #compactionLoop(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const { compactionPeriodMs } = this.#timeline.config;
      await this.#sleep(compactionPeriodMs || IDLE_CHECK_MS, this.#wake.promise);
      this.#wake = Promise.withResolvers<void>();
      if (this.#timeline.config.compactionPeriodMs > 0 && this.#hasLayers) await this.#guard("compaction", () => this.compact());
    }
  }

  async #gcLoop(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#sleep(this.#timeline.config.gcPeriodMs || IDLE_CHECK_MS);
      if (this.#timeline.config.gcPeriodMs > 0 && this.#hasLayers) await this.#guard("gc", () => this.collectGarbage());
    }
  }

  /** A branch without layers of its own has nothing to compact or collect, and there may be thousands of those. */
  get #hasLayers(): boolean {
    return this.#timeline.stack.map.size > 0;
  }

  async #sleep(durationMs: number, wake?: Promise<void>): Promise<void> {
    const { clock } = this.#timeline.deps.platform;
    const timer = new AbortController();
    const slept = clock.sleep(durationMs, AbortSignal.any([this.#stop.signal, timer.signal])).catch(() => {});
    await (wake === undefined ? slept : Promise.race([slept, wake]));
    timer.abort();
  }

  async #guard(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (this.#stop.signal.aborted || error instanceof Cancelled) return;
      this.#timeline.log.warn(`${what} failed, will try again`, { error });
    }
  }

  #inTurn<T>(task: "compaction" | "gc", work: () => Promise<T>): Promise<T> {
    const { maintenanceSlots, metrics, platform: { clock } } = this.#timeline.deps;
    const next = this.#turn.then(() => {
      this.#stop.signal.throwIfAborted();
      return maintenanceSlots.run(work, this.#stop.signal, metrics.slots.of(task).waits(clock));
    });
    this.#turn = next.then(
      () => {},
      () => {},
    );
    return next;
  }

  // ---- Compaction

  /**
   * One round: L0 to L1 while there is enough, then images where they are due. `forceImages` makes them everywhere, and
   * `forceL0` merges from two L0 layers on.
   */
  compact(options: { readonly forceImages?: boolean; readonly forceL0?: boolean } = {}): Promise<void> {
    return this.#inTurn("compaction", async () => {
      const threshold = options.forceL0 === true ? 2 : this.#timeline.config.compactionThreshold;
      while (await this.#compactL0Once(threshold)) this.#stop.signal.throwIfAborted();
      const force = options.forceImages === true;
      try {
        await this.#createImages(force);
      } catch (error) {
        // Soon after a start an ancestor has yet to catch up: nothing is wrong, and the next round tries again.
        if (force || !isStrataError(error, "ancestor-not-on-disk")) throw error;
        this.#timeline.log.info("images wait for an ancestor", { error });
      }
    });
  }

  async #compactL0Once(threshold: number): Promise<boolean> {
    const timeline = this.#timeline;
    const { compactionTargetSizeBytes, checkpointDistanceBytes } = timeline.config;
    const maxBytes = Math.max(compactionTargetSizeBytes, checkpointDistanceBytes) * Math.max(threshold, 2);
    const batch = planL0Compaction<Layer>(timeline.stack.map.l0, { threshold, maxBytes });
    if (batch.length === 0) return false;
    const { clock } = timeline.deps.platform;
    const startMs = clock.monotonicMs();
    const written = await compactL0(timeline, batch, this.#stop.signal);
    const { metrics } = timeline.deps;
    metrics.layers.writtenL0 += written.length;
    metrics.took("compact", timeline.counts, clock.monotonicMs() - startMs);
    return true;
  }

  async #createImages(force: boolean): Promise<void> {
    const timeline = this.#timeline;
    const lsn = timeline.diskConsistentLsn;
    if (lsn === 0 || (!force && !this.#imageCheckIsDue(lsn))) return;
    const context: ReadContext = { task: "image-creation", signal: this.#stop.signal };
    const space = await timeline.deps.keyspaceAt(timeline, lsn, context);
    const { compactionTargetSizeBytes, imageCreationThreshold } = timeline.config;
    const threshold = force ? 0 : imageCreationThreshold;
    const pacer = new Pacer(timeline.deps.platform.clock);
    for (const partition of partitionKeySpace(space, compactionTargetSizeBytes)) {
      if (needsImage(timeline.stack.map, partition, { lsn, threshold })) await this.#createImage(partition, lsn);
      const pause = pacer.pause();
      if (pause !== undefined) await pause;
    }
    this.#lastImageCheckLsn = lsn;
  }

  /** Counted for the timeline as a whole: a quiet partition must not hide a busy one. */
  #imageCheckIsDue(lsn: Lsn): boolean {
    const { checkpointDistanceBytes, imageLayerCreationCheckThreshold } = this.#timeline.config;
    return this.#lastImageCheckLsn === null || lsn - this.#lastImageCheckLsn >= checkpointDistanceBytes * imageLayerCreationCheckThreshold;
  }

  async #createImage(partition: ImagePartition, lsn: Lsn): Promise<void> {
    const timeline = this.#timeline;
    const { clock, files } = timeline.deps.platform;
    const startMs = clock.monotonicMs();
    const written = await createImage(timeline, partition, { lsn, signal: this.#stop.signal });
    if (written === null) return;
    await files.syncDirectory(timeline.directory);
    timeline.replaceLayers([], [timeline.adoptWritten(written)]);
    const { metrics } = timeline.deps;
    metrics.layers.writtenImages++;
    metrics.took("create images", timeline.counts, clock.monotonicMs() - startMs);
  }

  // ---- Garbage collection

  /** GC does nothing until the returned function is called. */
  blockGc(): () => void {
    this.#gcBlocked++;
    let held = true;
    return () => {
      if (held) this.#gcBlocked--;
      held = false;
    };
  }

  /**
   * Leases were granted by the process before us, or another one, and are not remembered: their holders renew them. Until each had the
   * time to, nothing is collected.
   */
  get #leasesMayBeUnknown(): boolean {
    if (this.#loadedMs === null) return false;
    return this.#timeline.deps.platform.clock.monotonicMs() - this.#loadedMs < this.#timeline.config.lsnLeaseLengthMs;
  }

  /**
   * Moves the cutoff and removes what nobody can see any more; null while blocked, and for the length of a lease after a load.
   * @param options.gcHorizonBytes in place of the configured one
   */
  collectGarbage(options: { readonly gcHorizonBytes?: number } = {}): Promise<CollectedGarbage | null> {
    return this.#inTurn("gc", async () => {
      const timeline = this.#timeline;
      if (this.#gcBlocked > 0 || this.#leasesMayBeUnknown) return null;
      const { clock } = timeline.deps.platform;
      const startMs = clock.monotonicMs();
      await timeline.deps.failpoints?.hit("before-timeline-gc", this.#stop.signal);
      await timeline.deps.failpoints?.hit("Timeline::find_gc_cutoffs", this.#stop.signal);
      const pitrLsn = await timeline.deps.metrics.timed("find gc cutoffs", { counts: timeline.counts, clock }, () => this.#pitrLsn());
      await timeline.deps.failpoints?.hit("gc_iteration_internal_after_getting_gc_timelines", this.#stop.signal);
      // Nothing waits between these: a branch point or lease is seen by the plan, or was refused by the cutoff.
      const { pitrIntervalMs } = timeline.config;
      const { gcHorizonBytes = timeline.config.gcHorizonBytes } = options;
      const { lastRecordLsn, diskConsistentLsn, gcCutoffLsn } = timeline;
      const cutoff = planGcCutoff({ lastRecordLsn, gcHorizonBytes, pitrIntervalMs, pitrLsn, current: gcCutoffLsn, diskConsistentLsn });
      // Unknown is not shorter than what was collected already.
      timeline.pitrCutoffLsn = pitrIntervalMs === 0 ? lastRecordLsn : (pitrLsn ?? gcCutoffLsn);
      timeline.applyGcCutoff(cutoff);
      const horizonLsn = Math.max(cutoff, pitrIntervalMs === 0 ? lastRecordLsn : lastRecordLsn - gcHorizonBytes);
      const counts = await this.#removeCollected(planGc<Layer>(timeline.stack.map, { cutoff, horizonLsn, ...retainedBy(timeline) }));
      await countInvisible(timeline);
      const { metrics } = timeline.deps;
      const elapsedMs = clock.monotonicMs() - startMs;
      metrics.layers.collected += counts.removed;
      metrics.took("gc", timeline.counts, elapsedMs);
      return { ...counts, cutoff, elapsedMs };
    });
  }

  /** What a step of the plan finds leaves the map before the next step; objects and files of all go together, after one index without them. */
  async #removeCollected(steps: Generator<readonly Layer[], GcCounts>): Promise<GcCounts> {
    const timeline = this.#timeline;
    const pacer = new Pacer(timeline.deps.platform.clock);
    let removed = 0;
    try {
      for (;;) {
        const step = steps.next();
        if (step.done === true) return step.value;
        timeline.dropLayers(step.value);
        removed += step.value.length;
        const pause = pacer.pause();
        if (pause !== undefined) await pause;
        this.#stop.signal.throwIfAborted();
        // Who blocks it may rely on all that is there from then on.
        if (this.#gcBlocked > 0) return { ...NOTHING_COLLECTED, removed };
      }
    } finally {
      timeline.deleteDropped();
    }
  }

  async #pitrLsn(): Promise<Lsn | null> {
    const timeline = this.#timeline;
    const { pitrIntervalMs } = timeline.config;
    if (pitrIntervalMs === 0) return null;
    const { deps } = timeline;
    try {
      return await deps.lsnForTimestamp(timeline, this.#prudentClock.wallMs() - pitrIntervalMs, { task: "gc", signal: this.#stop.signal });
    } catch (error) {
      if (!isStrataError(error)) throw error;
      timeline.log.info("the LSN of the PITR interval is not known; history is kept", { error });
      return null;
    }
  }
}
