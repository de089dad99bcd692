/**
 * One timeline's storage: takes values from its one writer, serves reads at any LSN, and keeps itself durable. What
 * happens to its layers later (compaction, images, GC) is in maintenance/; object storage in remote-timeline/.
 */
import { copyBytes } from "../../kit/copy.ts";
import { Cancelled, InvariantError, invariant, StrataError } from "../../kit/errors.ts";
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { KeyValue } from "../../interpret/value.ts";
import { ValueBatch } from "../../interpret/value-batch.ts";
import type { Key, KeyRange } from "../../keyspace/key.ts";
import type { Logger } from "../../observability/log.ts";
import type { Timer } from "../../platform/clock.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import { layerWatch } from "../counts/layer-watch.ts";
import type { TimelineCounts } from "../counts/timeline-counts.ts";
import { EPHEMERAL_PREFIX, EphemeralFile } from "../layers/ephemeral-file.ts";
import { IN_MEMORY_LAYER_MAX_BYTES, InMemoryLayer } from "../layers/in-memory-layer.ts";
import { CACHED_PAGE_SIZE } from "../layers/page-cache.ts";
import { abortable, Layer, type LayerEnvironment, type LayerMetadata } from "../layers/layer.ts";
import { isInFuture, type LayerName } from "../layers/layer-name.ts";
import type { LayerTarget, WrittenLayer } from "../layers/layer-writer.ts";
import { Pacer } from "../layers/pacer.ts";
import { QuickReads } from "../layers/quick-reads.ts";
import { FlushLoop } from "../maintenance/flush-loop.ts";
import { LeaseTable } from "../maintenance/lease-table.ts";
import type { IndexPart, TimelineMetadata } from "../remote-timeline/index-part.ts";
import { downloadLayer } from "../remote-timeline/remote-download.ts";
import type { RemoteTimelineClient } from "../remote-timeline/remote-timeline-client.ts";
import { type CachedPages, LayerStack, type ReadSource } from "./layer-stack.ts";
import { LsnWaiters } from "./lsn-waiters.ts";
import { PageReads } from "./page-reads.ts";
import { nowRead } from "./read-now.ts";
import { ReadStatistics, readVectored } from "./read-path.ts";
import { Reconstructor } from "./reconstruct.ts";
import { keysInSparseRange, presentOf } from "./scan.ts";
import type { TimelineConfig } from "./timeline-config.ts";
import type { TenantDeps } from "./timeline-deps.ts";
import type { PageTarget, ReadContext, TimelineStore } from "./timeline-store.ts";

/** Frozen layers that may wait for the disk before ingest does. */
const FROZEN_MAX = 3;
/** Of values put as objects, encoded together. */
const PUT_BATCH_BYTES = 1024 * 1024;
const TIMEOUT_CHECK_MS = 10_000;
/** About three seconds: who reads waits that long rather than fail for a hiccup of object storage. */
const DOWNLOAD_ATTEMPTS = 6;

export interface TimelineOptions {
  readonly deps: TenantDeps;
  readonly timelineId: TimelineId;
  readonly directory: string;
  readonly remoteClient: RemoteTimelineClient;
  readonly metadata: TimelineMetadata;
  /** The ancestor's timeline, alive as long as this one. */
  readonly ancestor: { readonly timeline: Timeline; readonly lsn: Lsn } | null;
}

export class Timeline implements TimelineStore, ReadSource {
  readonly timelineId: TimelineId;
  readonly stack = new LayerStack();
  readonly remoteClient: RemoteTimelineClient;
  readonly initdbLsn: Lsn;
  /** Where it stood when it was loaded here, or made. */
  readonly loadedAt: { readonly lsn: Lsn; readonly wallMs: number };
  /** What the last look of GC found the PITR interval to begin at; null before one. */
  pitrCutoffLsn: Lsn | null = null;
  readonly leases: LeaseTable;
  readonly log: Logger;
  /** LSNs that branches start from, by child: GC keeps what they see. */
  readonly branchPoints = new Map<TimelineId, Lsn>();
  readonly #deps: TenantDeps;
  readonly #directory: string;
  readonly #pgVersion: PgMajor;
  readonly #ancestor: { readonly timeline: Timeline; readonly lsn: Lsn } | null;
  readonly #reconstructor: Reconstructor;
  readonly #pages: PageReads;
  readonly #waiters: LsnWaiters;
  readonly #flushLoop: FlushLoop;
  readonly #layerEnvironment: LayerEnvironment;
  readonly #stop = new AbortController();
  #prevRecordLsn: Lsn;
  #diskConsistentLsn: Lsn;
  #gcCutoffLsn: Lsn;
  #freezeWanted = false;
  #lastFreezeLsn: Lsn;
  #nextFileNumber = 1;
  #layerListener: (() => void) | null = null;
  /** Wakes ingest that waits for flush or compaction. */
  #room = Promise.withResolvers<void>();
  /** Resolved at the next freeze. */
  #frozen = Promise.withResolvers<void>();
  #broken: unknown = null;
  #stopped = false;
  #timeoutCheck: Timer | null = null;

  constructor(options: TimelineOptions) {
    const { deps, metadata } = options;
    this.#deps = deps;
    this.timelineId = options.timelineId;
    this.#directory = options.directory;
    this.remoteClient = options.remoteClient;
    this.#ancestor = options.ancestor;
    this.#pgVersion = metadata.pgVersion as PgMajor;
    this.initdbLsn = metadata.initdbLsn;
    this.#prevRecordLsn = metadata.prevRecordLsn ?? 0;
    this.#diskConsistentLsn = metadata.diskConsistentLsn;
    this.#lastFreezeLsn = metadata.diskConsistentLsn;
    this.#gcCutoffLsn = metadata.latestGcCutoffLsn;
    this.log = deps.log.child({ timelineId: options.timelineId });
    this.loadedAt = { lsn: metadata.diskConsistentLsn, wallMs: deps.platform.clock.wallMs() };
    this.leases = new LeaseTable(deps.platform.clock);
    this.#reconstructor = new Reconstructor(this.#pgVersion, { counts: deps.metrics.reads, clock: deps.platform.clock });
    this.#pages = new PageReads(deps.pages, this);
    this.#waiters = new LsnWaiters(deps.platform.clock, metadata.diskConsistentLsn);
    this.#layerEnvironment = this.#makeLayerEnvironment();
    const { clock } = deps.platform;
    this.#flushLoop = new FlushLoop({
      clock,
      log: this.log,
      nextFrozen: () => this.stack.frozen[0] ?? null,
      flushLayer: (layer, signal) => deps.flushSlots.run(() => this.#flushLayer(layer), signal),
    });
  }

  #makeLayerEnvironment(): LayerEnvironment {
    const { platform, cache, openFiles, tenantShardId, remote, metrics } = this.#deps;
    const ref = { storage: remote, tenantShardId, timelineId: this.timelineId };
    return {
      files: platform.files,
      clock: platform.clock,
      log: this.log,
      cache,
      openFiles,
      quickReads: new QuickReads(platform.clock),
      watch: layerWatch(metrics, () => this.counts),
      tenantId: tenantShardId.tenantId,
      directory: this.#directory,
      isUploaded: (layer) => this.remoteClient.isUploaded(layer.name, layer.metadata),
      download: async (layer) => {
        const startMs = platform.clock.monotonicMs();
        await this.#deps.failpoints?.hit("before-downloading-layer-stream", this.#stop.signal);
        const { signal } = this.#stop;
        const beforeRename = async () => await this.#deps.failpoints?.hit("remote-storage-download-pre-rename", signal);
        const ended = metrics.remote(this.counts, { fileKind: "layer", kind: "download", sizeBytes: layer.metadata.sizeBytes });
        try {
          await withRetries(() => downloadLayer(ref, layer, { files: platform.files, directory: this.#directory, beforeRename, signal }), { ...platform, maxAttempts: DOWNLOAD_ATTEMPTS, signal });
        } catch (error) {
          ended(signal.aborted ? "cancelled" : "failure", platform.clock.monotonicMs() - startMs);
          throw error;
        }
        const tookMs = platform.clock.monotonicMs() - startMs;
        ended("success", tookMs);
        metrics.downloaded(layer.metadata.sizeBytes);
      },
    };
  }

  get tenantShardId(): TenantShardId {
    return this.#deps.tenantShardId;
  }
  get counts(): TimelineCounts {
    return this.remoteClient.counts;
  }
  get deps(): TenantDeps {
    return this.#deps;
  }
  get config(): TimelineConfig {
    return this.#deps.config();
  }
  get directory(): string {
    return this.#directory;
  }
  get pgVersion(): PgMajor {
    return this.#pgVersion;
  }
  get ancestor(): { readonly timelineId: TimelineId; readonly lsn: Lsn } | null {
    return this.#ancestor === null ? null : { timelineId: this.#ancestor.timeline.timelineId, lsn: this.#ancestor.lsn };
  }
  /** The timeline below, for maintenance. */
  get parent(): { readonly timeline: Timeline; readonly lsn: Lsn } | null {
    return this.#ancestor;
  }
  get pages(): CachedPages {
    return this.#pages;
  }
  get lastRecordLsn(): Lsn {
    return this.#waiters.current;
  }
  get prevRecordLsn(): Lsn {
    return this.#prevRecordLsn;
  }
  get diskConsistentLsn(): Lsn {
    return this.#diskConsistentLsn;
  }
  get remoteConsistentLsn(): Lsn {
    return this.remoteClient.remoteConsistentLsn;
  }
  get gcCutoffLsn(): Lsn {
    return this.#gcCutoffLsn;
  }
  /** Aborts when the timeline stops. */
  get stopping(): AbortSignal {
    return this.#stop.signal;
  }
  /** Who is to be told when somebody begins to wait for WAL. */
  onWaiting(listener: () => void): void {
    this.#waiters.onWait = listener;
  }
  /** Who waits for WAL now, for discovery on demand. */
  waitingForLsn(): { lsn: Lsn; who: string; waitedMs: number }[] {
    return this.#waiters.waiting();
  }
  /** Why the timeline cannot be used, if it cannot. */
  get broken(): unknown {
    return this.#broken;
  }

  // ---- Writing

  async put(values: readonly KeyValue[]): Promise<void> {
    const batch = new ValueBatch();
    for (const { key, lsn, value } of values) {
      batch.add(key, lsn, value);
      if (batch.byteLength < PUT_BATCH_BYTES) continue;
      await this.putBatch(batch);
      batch.clear();
    }
    await this.putBatch(batch);
  }

  putBatch(batch: ValueBatch): Promise<void> | undefined {
    if (batch.count === 0) return undefined;
    if (this.#mustWait()) return this.#putWhenRoom(batch);
    this.#assertUsable();
    if (batch.lsns[0] <= this.lastRecordLsn) throw new InvariantError(`value at ${lsnToString(batch.lsns[0])}, but ${lsnToString(this.lastRecordLsn)} is readable already`);
    this.#openLayer(batch.lsns[0]).putBatch(batch, this.lastRecordLsn);
    return this.#deps.layerMemory.relief();
  }

  async #putWhenRoom(batch: ValueBatch): Promise<void> {
    await this.#deps.metrics.timed("layer flush delay", { counts: this.counts, clock: this.#deps.platform.clock }, async () => {
      while (this.#mustWait()) {
        this.#assertUsable();
        await abortable(this.#room.promise, this.#stop.signal);
      }
    });
    await this.putBatch(batch);
  }

  #openLayer(lsn: Lsn): InMemoryLayer {
    const { open } = this.stack;
    if (open !== null) return open;
    const { platform } = this.#deps;
    const path = `${this.#directory}/${EPHEMERAL_PREFIX}${this.#nextFileNumber++}`;
    const layer = new InMemoryLayer({ startLsn: lsn, file: new EphemeralFile(platform.files, path, this.#deps.layerMemory), openedMs: platform.clock.monotonicMs() });
    this.stack.setOpen(layer);
    if (this.#timeoutCheck === null) this.#armTimeoutCheck();
    return layer;
  }

  /** Back-pressure: ingest waits when the disk or compaction lags, so that it never buries reads. */
  #mustWait(): boolean {
    return this.stack.frozen.length >= FROZEN_MAX || this.#l0Stalled();
  }

  #l0Stalled(): boolean {
    const { l0FlushStallThreshold, compactionPeriodMs } = this.config;
    return l0FlushStallThreshold > 0 && compactionPeriodMs > 0 && this.stack.map.l0.length >= l0FlushStallThreshold;
  }

  /** To be called when something ingest may wait for has changed. */
  signalRoom(): void {
    this.#room.resolve();
    this.#room = Promise.withResolvers<void>();
  }

  advance(lastRecordLsn: Lsn, prevRecordLsn: Lsn): void {
    invariant(lastRecordLsn >= this.lastRecordLsn, "last record LSN never goes back");
    this.#prevRecordLsn = prevRecordLsn;
    this.#waiters.advance(lastRecordLsn);
    this.#maybeFreeze();
  }

  #maybeFreeze(): void {
    const { open } = this.stack;
    if (open === null) {
      this.#freezeWanted = false;
      return;
    }
    const { checkpointDistanceBytes, checkpointTimeoutMs } = this.config;
    const { layerMemory } = this.#deps;
    const mostBytes = Math.min(checkpointDistanceBytes, layerMemory.freezeAtBytes(), IN_MEMORY_LAYER_MAX_BYTES);
    const full = open.indexBytes > layerMemory.freezeAtIndexBytes() || open.sizeBytes >= mostBytes || this.lastRecordLsn - this.#lastFreezeLsn >= checkpointDistanceBytes;
    const old = this.#deps.platform.clock.monotonicMs() - open.openedMs >= checkpointTimeoutMs;
    if (this.#freezeWanted || full || old) this.#freezeOpen();
  }

  /** Only at a point that is wholly readable: a layer never ends in the middle of a record. */
  #freezeOpen(): void {
    const { open } = this.stack;
    if (open === null || open.maxLsn > this.lastRecordLsn) return;
    this.stack.freeze(this.lastRecordLsn + 1);
    this.#lastFreezeLsn = this.lastRecordLsn;
    this.#freezeWanted = false;
    this.#frozen.resolve();
    this.#frozen = Promise.withResolvers<void>();
    this.#flushLoop.wake();
  }

  /** While there is an open layer: timelines at rest, of which there may be thousands, have no timer. */
  #armTimeoutCheck(): void {
    const { clock } = this.#deps.platform;
    const check = () => {
      this.#timeoutCheck = null;
      if (this.#stop.signal.aborted) return;
      this.#maybeFreeze();
      if (this.stack.open !== null) this.#armTimeoutCheck();
    };
    this.#timeoutCheck = clock.after(Math.min(TIMEOUT_CHECK_MS, this.config.checkpointTimeoutMs), check);
  }

  /** Values put beyond the last record are waited for: a layer ends between records. */
  async freezeAndFlush(): Promise<void> {
    this.#assertUsable();
    this.#freezeWanted = true;
    this.#maybeFreeze();
    while (this.#freezeWanted) await abortable(this.#frozen.promise, this.#stop.signal);
    const newest = this.stack.frozen.at(-1);
    if (newest?.endLsn !== null && newest !== undefined) await this.#flushLoop.waitFlushed(newest.endLsn);
    else this.#advanceDiskConsistent(this.lastRecordLsn);
  }

  /** Without anything in memory all that was ingested is on disk, whether or not it left a value. */
  #advanceDiskConsistent(lsn: Lsn): void {
    if (this.stack.open !== null || this.stack.frozen.length > 0 || lsn <= this.#diskConsistentLsn) return;
    this.#diskConsistentLsn = lsn;
    this.#scheduleIndex();
  }

  async #flushLayer(frozen: InMemoryLayer): Promise<void> {
    const { platform, metrics, failpoints } = this.#deps;
    const startMs = platform.clock.monotonicMs();
    const endLsn = frozen.endLsn;
    invariant(endLsn !== null, "only frozen layers are flushed");
    await failpoints?.hit("flush-frozen", this.#stop.signal);
    const written = await frozen.withContent((content) => this.#deps.layerJobs.writeFrozen(content, this.layerTarget()));
    await platform.files.syncDirectory(this.#directory);
    await failpoints?.hit("flush-layer-cancel-after-writing-layer-out", this.#stop.signal);
    await failpoints?.hit("checkpoint-before-saving-metadata", this.#stop.signal);
    const layer = this.adoptWritten(written);
    this.stack.replaceFrozen(frozen, layer);
    this.remoteClient.scheduleLayerUpload(layer);
    this.#diskConsistentLsn = Math.max(this.#diskConsistentLsn, endLsn - 1);
    this.#scheduleIndex();
    this.signalRoom();
    metrics.took("layer flush", this.counts, platform.clock.monotonicMs() - startMs);
    await frozen.discard();
    this.#layerListener?.();
    await failpoints?.hit("flush-frozen-exit", this.#stop.signal);
  }

  #scheduleIndex(): void {
    const prevRecordLsn = this.#diskConsistentLsn === this.lastRecordLsn ? this.#prevRecordLsn : null;
    this.remoteClient.scheduleIndexUpload({ diskConsistentLsn: this.#diskConsistentLsn, prevRecordLsn });
  }

  /** Called after each flush, and when layers came in another way. */
  onLayers(listener: () => void): void {
    this.#layerListener = listener;
  }

  async waitUploaded(signal?: AbortSignal): Promise<void> {
    await this.remoteClient.waitCompletion(signal);
  }

  // ---- Layers, for maintenance

  /** Where a new layer of this timeline is written. */
  layerTarget(): LayerTarget {
    const { platform, tenantShardId, generation } = this.#deps;
    return { files: platform.files, directory: this.#directory, uniqueName: `layer-${this.#nextFileNumber++}`, tenantId: tenantShardId.tenantId, timelineId: this.timelineId, generation, zstdLevel: this.config.imageCompressionLevel };
  }

  adoptWritten(written: WrittenLayer): Layer {
    const { tenantShardId, generation } = this.#deps;
    const metadata: LayerMetadata = { sizeBytes: written.sizeBytes, generation, shard: { number: tenantShardId.number, count: tenantShardId.count }, crc: written.crc };
    return this.makeLayer(written.name, metadata, true);
  }

  makeLayer(name: LayerName, metadata: LayerMetadata, resident: boolean): Layer {
    return new Layer(this.#layerEnvironment, { name, metadata, resident });
  }

  /** Enters the layers of an index at start; those from a future that was lost leave it. */
  adoptIndex(index: IndexPart, resident: ReadonlySet<string>): void {
    const lost: Layer[] = [];
    for (const [text, { name, metadata }] of index.layers) {
      const layer = this.makeLayer(name, metadata, resident.has(text));
      if (isInFuture(name, this.#diskConsistentLsn)) lost.push(layer);
      else this.stack.map.add(layer);
    }
    this.remoteClient.scheduleRemoval(lost);
    if (this.stack.map.size > 0) this.#layerListener?.();
  }

  /** Puts complete, synced layers in the place of others, at once; objects and files of the old ones go later. */
  replaceLayers(removed: readonly Layer[], added: readonly Layer[]): void {
    this.stack.replaceLayers(removed, added);
    for (const layer of added) this.remoteClient.scheduleLayerUpload(layer);
    if (added.length > 0 && removed.length === 0) this.#scheduleIndex();
    this.remoteClient.scheduleRemoval(removed);
    this.signalRoom();
    if (added.length > 0) this.#layerListener?.();
  }

  /** Takes layers that nobody can see out of the map, some at a time; `deleteDropped` has their objects and files deleted. */
  dropLayers(layers: readonly Layer[]): void {
    this.stack.replaceLayers(layers, []);
    this.remoteClient.dropLayers(layers);
  }

  deleteDropped(): void {
    this.remoteClient.scheduleDropped();
    this.signalRoom();
  }

  /** Moves the cutoff up; nothing below it may be asked for from now on. */
  applyGcCutoff(lsn: Lsn): void {
    if (lsn <= this.#gcCutoffLsn) return;
    this.#gcCutoffLsn = lsn;
    this.remoteClient.scheduleIndexUpload({ latestGcCutoffLsn: lsn });
  }

  // ---- Reading

  waitLsn(lsn: Lsn, options: { timeoutMs?: number; signal?: AbortSignal; who: string }): Promise<void> {
    if (lsn <= this.lastRecordLsn) return Promise.resolve();
    return this.#waitLsn(lsn, options);
  }

  async #waitLsn(lsn: Lsn, options: { timeoutMs?: number; signal?: AbortSignal; who: string }): Promise<void> {
    this.#assertUsable();
    const { clock } = this.#deps.platform;
    const startMs = clock.monotonicMs();
    this.counts.waitsStarted++;
    let timedOut = true;
    try {
      await this.#waiters.wait(lsn, { ...options, timeoutMs: options.timeoutMs ?? this.config.waitLsnTimeoutMs });
      timedOut = false;
    } finally {
      this.#deps.metrics.lsnWaited(this.counts, clock.monotonicMs() - startMs, timedOut);
    }
  }

  ancestorSource(signal?: AbortSignal): Promise<{ source: ReadSource; lsn: Lsn }> | null {
    const ancestor = this.#ancestor;
    if (ancestor === null) return null;
    // After a restart the ancestor may not have caught up with the WAL up to the branch point yet.
    return ancestor.timeline.waitLsn(ancestor.lsn, { signal, who: `branch ${this.timelineId}` }).then(() => ({ source: ancestor.timeline, lsn: ancestor.lsn }));
  }

  ancestorSourceNow(): { source: ReadSource; lsn: Lsn } | null {
    const ancestor = this.#ancestor;
    return ancestor === null || ancestor.timeline.lastRecordLsn < ancestor.lsn ? null : { source: ancestor.timeline, lsn: ancestor.lsn };
  }

  readPageNow(key: Key, lsn: Lsn, target: PageTarget): boolean {
    if (this.#broken !== null || this.#stopped || lsn > this.lastRecordLsn) return false;
    return this.#pages.copyInto(key, lsn, target) || this.#makePageNow(key, lsn, target);
  }

  #makePageNow(key: Key, lsn: Lsn, target: PageTarget): boolean {
    const { clock } = this.#deps.platform;
    const startMs = clock.monotonicMs();
    const read = nowRead;
    if (!read.run(this, key, { lsn, cached: this.#pages.base(key, lsn), usesCache: true })) return false;
    let page: Uint8Array;
    try {
      page = this.#reconstructor.reconstructNow(key, read.found, read.base);
    } catch {
      // The vectored read meets it again, and tells.
      return false;
    }
    if (page.length !== CACHED_PAGE_SIZE) return false;
    copyBytes(page, 0, target.bytes, target.at, CACHED_PAGE_SIZE);
    const isKept = read.keeper?.keep(key, { page, fromLsn: read.newestLsn, lsn: read.keeperLsn }) === true;
    if (!isKept) this.#pages.keep(key, { page, fromLsn: read.newestLsn, lsn });
    this.#deps.metrics.reads.pageMade(read.depth, clock.monotonicMs() - startMs, this.#reconstructor.tookMs);
    this.counts.layers.observe(read.depth);
    return true;
  }

  async get(key: Key, lsn: Lsn, context: ReadContext): Promise<Uint8Array> {
    const [result] = await this.getVectored([key], lsn, context);
    if (result instanceof Error) throw result;
    return result;
  }

  async getVectored(keys: readonly Key[], lsn: Lsn, context: ReadContext): Promise<(Uint8Array | Error)[]> {
    this.#assertUsable();
    const { clock } = this.#deps.platform;
    const startMs = clock.monotonicMs();
    const statistics = new ReadStatistics([this.#deps.metrics.reads.layers, this.counts.layers]);
    const cutoffBefore = this.#gcCutoffLsn;
    const results = await readVectored(this, { keys, lsn, context }, { reconstructor: this.#reconstructor, pacer: new Pacer(clock), statistics, pages: context.cachePages === true ? this.#pages : null });
    const { layers, redoMs } = statistics;
    this.#deps.metrics.reads.read(context.task, { keys: keys.length, layers, redoMs, totalMs: clock.monotonicMs() - startMs });
    // GC moved its cutoff over a read under way: layers it needed may have gone, and older ones been found instead.
    const overtaken = lsn >= cutoffBefore && lsn < this.#gcCutoffLsn && !this.leases.has(lsn);
    if (overtaken) return keys.map(() => new StrataError("fix-input", "lsn-garbage-collected", `LSN ${lsnToString(lsn)} was garbage collected while it was read: gc cutoff ${lsnToString(this.#gcCutoffLsn)}`));
    return results;
  }

  async scan(range: KeyRange, lsn: Lsn, context: ReadContext): Promise<{ key: Key; bytes: Uint8Array }[]> {
    this.#assertUsable();
    const { clock } = this.#deps.platform;
    const startMs = clock.monotonicMs();
    const keys = await keysInSparseRange(this, range, { lsn, signal: context.signal });
    const present = presentOf(keys, await this.getVectored(keys, lsn, context));
    this.#deps.metrics.reads.scans.of(context.task).recordMs(clock.monotonicMs() - startMs);
    return present;
  }

  // ---- Life

  #assertUsable(): void {
    if (this.#broken !== null) throw new StrataError("unavailable", "timeline-broken", `timeline ${this.timelineId} is broken`, { cause: this.#broken });
    if (this.#stop.signal.aborted) throw new Cancelled(`timeline ${this.timelineId} is stopping`);
  }

  markBroken(error: unknown): void {
    this.#broken ??= error;
  }

  /** A record that was put in part has no end here: it will come again. */
  async #forgetUnreadable(): Promise<void> {
    const { open } = this.stack;
    if (open === null || open.maxLsn <= this.lastRecordLsn) return;
    if (open.startLsn <= this.lastRecordLsn) open.truncateTo(this.lastRecordLsn);
    else await this.stack.takeOpen()?.discard();
  }

  /**
   * @param flush waits until all that was ingested is in object storage; false drops what is in memory
   * @param signal gives up that wait (the timeline still has to be shut down, without flush then)
   */
  async shutdown(flush: boolean, signal?: AbortSignal): Promise<void> {
    if (flush && this.#broken === null && !this.#stop.signal.aborted) {
      await this.#forgetUnreadable();
      await this.freezeAndFlush();
      await this.waitUploaded(signal);
    }
    await this.stop();
    await this.remoteClient.shutdown();
  }

  /** Ends reads, writes and flushes; what is in memory is dropped. Uploads queued already go on. */
  async stop(): Promise<void> {
    const reason = new Cancelled(`timeline ${this.timelineId} is stopping`);
    this.#timeoutCheck?.cancel();
    this.#stopped = true;
    this.#pages.end();
    this.#stop.abort(reason);
    this.#waiters.failAll(reason);
    await this.#flushLoop.shutdown();
    for (const layer of this.stack.map.layers()) {
      await layer.settled();
      await this.#deps.openFiles.forget(layer);
    }
    for (const layer of [...this.stack.frozen, ...(this.stack.open === null ? [] : [this.stack.open])]) await layer.discard();
  }
}
