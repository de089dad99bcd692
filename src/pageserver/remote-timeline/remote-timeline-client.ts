/**
 * A timeline's side of object storage. Keeps two pictures of its index: `dirty`, what the timeline is now, and `clean`,
 * what an uploaded index_part says. Changes are made to the dirty one and queued; uploads run in the background in the
 * order upload-queue.ts prescribes and are tried until they succeed or the client is shut down: also after a refusal, since
 * credentials are rotated and clocks set right while nothing restarts.
 */
import type { Failpoints } from "../../kit/failpoints.ts";
import { Cancelled, invariant, isStrataError, StrataError } from "../../kit/errors.ts";
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import { Pacer } from "../../platform/pacer.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { logRetries, withRetries } from "../../remote-storage/retry.ts";
import { type Layer, type LayerMetadata, abortable } from "../layers/layer.ts";
import { generationSuffix, type LayerName, layerNameToString } from "../layers/layer-name.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import { TimelineCounts } from "../counts/timeline-counts.ts";
import type { DeletionQueue } from "./deletion-queue.ts";
import { encodeIndexPartInSteps, type IndexLayer, type IndexPart, indexTime, type TimelineMetadata } from "./index-part.ts";
import { indexPartKey, initdbArchiveKey, layerKey, preservedInitdbKey, timelinePrefix } from "./remote-paths.ts";
import { type QueuedOperation, UploadQueue } from "./upload-queue.ts";

export interface RemoteTimelineOptions {
  readonly platform: Platform;
  readonly log: Logger;
  readonly storage: RemoteStorage;
  readonly deletionQueue: DeletionQueue;
  readonly tenantShardId: TenantShardId;
  readonly timelineId: TimelineId;
  readonly generation: number;
  /** What is in object storage; null for a timeline that is not there yet. */
  readonly clean: IndexPart | null;
  readonly metadata: TimelineMetadata;
  readonly maxRunningUploads?: number;
  readonly metrics?: StorageCounts;
  readonly failpoints?: Failpoints;
}

const FAILPOINT_BEFORE = { layer: "before-upload-layer", index: "before-upload-index", delete: "before-delete-layer" } as const;
const SHUTDOWN = "remote timeline client is shut down";

export class RemoteTimelineClient {
  /** What is counted of the timeline, here and elsewhere. */
  readonly counts = new TimelineCounts();
  readonly #options: RemoteTimelineOptions;
  readonly #queue: UploadQueue<IndexPart>;
  readonly #stop = new AbortController();
  /** By object key: local files of layer uploads that wait. */
  readonly #sources = new Map<string, Layer>();
  /** By object key: layers whose deletion waits. */
  readonly #removed = new Map<string, Layer>();
  /** Object keys of layers that are in no index from now on, and not queued for deletion yet. */
  #dropped: string[] = [];
  readonly #barriers = new Map<number, PromiseWithResolvers<void>>();
  readonly #running = new Set<Promise<void>>();
  readonly #layers: Map<string, IndexLayer>;
  #metadata: TimelineMetadata;
  #deletedAt: string | null;
  #archivedAt: string | null;
  #other: Readonly<Record<string, unknown>>;
  #clean: IndexPart | null;
  #visibleLsn: Lsn;
  /** Why nothing is uploaded any more, if so. */
  #failure: unknown = null;

  constructor(options: RemoteTimelineOptions) {
    this.#options = options;
    this.#queue = new UploadQueue({ maxRunning: options.maxRunningUploads ?? 8 });
    this.#clean = options.clean;
    this.#layers = new Map(options.clean?.layers);
    this.#metadata = options.metadata;
    this.#deletedAt = options.clean?.deletedAt ?? null;
    this.#archivedAt = options.clean?.archivedAt ?? null;
    this.#other = options.clean?.other ?? {};
    this.#visibleLsn = options.clean?.metadata.diskConsistentLsn ?? 0;
  }

  get metadata(): TimelineMetadata {
    return this.#metadata;
  }

  /** What object storage says, null while it has no index of the timeline. */
  get cleanIndex(): IndexPart | null {
    return this.#clean;
  }

  get archivedAt(): string | null {
    return this.#archivedAt;
  }

  get deletedAt(): string | null {
    return this.#deletedAt;
  }

  /** Of the last index uploaded. */
  get uploadedLsn(): Lsn {
    return this.#clean?.metadata.diskConsistentLsn ?? 0;
  }

  /** The same, once our generation has been validated after the upload: WAL below may be dropped elsewhere. */
  get remoteConsistentLsn(): Lsn {
    return this.#visibleLsn;
  }

  get pendingCount(): number {
    return this.#queue.length;
  }

  /** Whether an uploaded index names exactly this layer. */
  isUploaded(name: LayerName, metadata: LayerMetadata): boolean {
    const known = this.#clean?.layers.get(layerNameToString(name));
    return known !== undefined && known.metadata.generation === metadata.generation && known.metadata.sizeBytes === metadata.sizeBytes;
  }

  /** Queues a complete local layer; the next index upload names it. */
  scheduleLayerUpload(layer: Layer): void {
    this.#assertOpen();
    this.#layers.set(layer.toString(), { name: layer.name, metadata: layer.metadata });
    const key = this.#keyOf(layer);
    invariant(!this.#removed.has(key), "a layer that is being deleted is not made again");
    this.#sources.set(key, layer);
    this.#queue.push({ kind: "layer", key });
    this.#pump();
  }

  /** Queues an upload of the index as it is now, with `changes` to its metadata. */
  scheduleIndexUpload(changes: Partial<TimelineMetadata> = {}): void {
    this.#assertOpen();
    this.#metadata = { ...this.#metadata, ...changes };
    this.#queue.push({ kind: "index", index: this.#snapshot() });
    this.#pump();
  }

  /**
   * Takes layers out of the index, uploads it, and then has their objects and local files deleted: not earlier, since
   * a queued index may still name them and their upload may still wait.
   */
  scheduleRemoval(layers: readonly Layer[]): void {
    this.dropLayers(layers);
    this.scheduleDropped();
  }

  /** The first half of `scheduleRemoval`, for so many layers that they are dropped some at a time: indexes to come do not name them. */
  dropLayers(layers: readonly Layer[]): void {
    this.#assertOpen();
    for (const layer of layers) {
      this.#layers.delete(layer.toString());
      const key = this.#keyOf(layer);
      this.#dropped.push(key);
      this.#removed.set(key, layer);
    }
  }

  /** The other half: an index without them, and then the end of what was dropped. */
  scheduleDropped(): void {
    this.#assertOpen();
    if (this.#dropped.length === 0) return;
    this.#queue.push({ kind: "index", index: this.#snapshot() });
    this.#queue.push({ kind: "delete", keys: this.#dropped });
    this.#dropped = [];
    this.#pump();
  }

  setArchived(wallMs: number | null): void {
    this.#archivedAt = wallMs === null ? null : indexTime(wallMs);
    this.scheduleIndexUpload();
  }

  /** Marks the timeline deleted in an uploaded index: from then on a start finishes the deletion. */
  async persistDeletedMark(signal?: AbortSignal): Promise<void> {
    await this.#options.failpoints?.hit("persist_deleted_index_part", signal);
    this.#deletedAt ??= indexTime(this.#options.platform.clock.wallMs());
    this.scheduleIndexUpload();
    await this.waitCompletion(signal);
  }

  #snapshot(): IndexPart {
    return { metadata: this.#metadata, layers: new Map(this.#layers), deletedAt: this.#deletedAt, archivedAt: this.#archivedAt, other: this.#other };
  }

  #keyOf(layer: Layer): string {
    return layerKey(this.#options.tenantShardId.tenantId, this.#options.timelineId, { name: layer.name, ...layer.metadata });
  }

  /** Resolves when all that is queued now has been done. @throws Cancelled; what made the uploads stand still */
  async waitCompletion(signal?: AbortSignal): Promise<void> {
    this.#assertOpen();
    if (this.#failure !== null) throw this.#failure;
    const reached = Promise.withResolvers<void>();
    reached.promise.catch(() => {});
    this.#barriers.set(this.#queue.push({ kind: "barrier" }), reached);
    this.#pump();
    await abortable(reached.promise, signal);
  }

  #pump(): void {
    if (this.#stop.signal.aborted) return;
    for (const entry of this.#queue.takeReady()) {
      if (entry.operation.kind === "barrier") {
        this.#barriers.get(entry.id)?.resolve();
        this.#barriers.delete(entry.id);
        this.#queue.finish(entry.id);
        // What waited behind the barrier may run now.
        queueMicrotask(() => this.#pump());
        continue;
      }
      const run: Promise<void> = this.#run(entry).finally(() => this.#running.delete(run));
      this.#running.add(run);
    }
  }

  async #run(entry: QueuedOperation<IndexPart>): Promise<void> {
    const { clock, random } = this.#options.platform;
    const { log } = this.#options;
    try {
      await withRetries(() => this.#perform(entry), {
        clock,
        random,
        maxAttempts: Number.POSITIVE_INFINITY,
        signal: this.#stop.signal,
        isRetryable: (error) => isStrataError(error) && !isStrataError(error, "file-not-found"),
        onRetry: logRetries(log, "upload failed, will try again", { operation: entry.operation.kind }),
      });
    } catch (error) {
      if (this.#stop.signal.aborted || error instanceof Cancelled) return;
      // The queue stays blocked behind it: nothing later may become visible without it.
      this.#failure ??= error;
      log.error("upload cannot succeed; the timeline's uploads stand still", { operation: entry.operation.kind, error });
      for (const barrier of this.#barriers.values()) barrier.reject(error);
      this.#barriers.clear();
      return;
    }
    this.#queue.finish(entry.id);
    this.#pump();
  }

  async #perform(entry: QueuedOperation<IndexPart>): Promise<void> {
    const { operation } = entry;
    const { storage, tenantShardId, timelineId, generation, deletionQueue, failpoints } = this.#options;
    const { signal } = this.#stop;
    if (operation.kind !== "barrier") await failpoints?.hit(FAILPOINT_BEFORE[operation.kind], signal);
    if (operation.kind === "layer") {
      const layer = this.#sources.get(operation.key);
      invariant(layer !== undefined, `the layer of ${operation.key} is known`);
      await this.#counted("layer", layer.metadata.sizeBytes, () => storage.upload(operation.key, { filePath: layer.path, sizeBytes: layer.metadata.sizeBytes }, { signal }));
      this.#sources.delete(operation.key);
    } else if (operation.kind === "index") {
      const bytes = await new Pacer(this.#options.platform.clock).run(encodeIndexPartInSteps(operation.index), signal);
      await this.#counted("index", bytes.length, () => storage.upload(indexPartKey(tenantShardId, timelineId, generation), { bytes }, { signal }));
      this.#clean = operation.index;
      deletionQueue.pushLsnUpdate({ tenantShardId, generation, timelineId }, operation.index.metadata.diskConsistentLsn, (lsn) => {
        this.#visibleLsn = Math.max(this.#visibleLsn, lsn);
      });
    } else if (operation.kind === "delete") {
      await this.#performDelete(operation.keys);
    }
  }

  async #counted(fileKind: "layer" | "index", sizeBytes: number, work: () => Promise<void>): Promise<void> {
    const { clock } = this.#options.platform;
    const startMs = clock.monotonicMs();
    const ended = this.#options.metrics?.remote(this.counts, { fileKind, kind: "upload", sizeBytes });
    try {
      await work();
      ended?.("success", clock.monotonicMs() - startMs);
    } catch (error) {
      ended?.(this.#stop.signal.aborted ? "cancelled" : "failure", clock.monotonicMs() - startMs);
      throw error;
    }
  }

  async #performDelete(keys: readonly string[]): Promise<void> {
    const { tenantShardId, timelineId, generation, deletionQueue, metrics, platform: { clock } } = this.#options;
    const startMs = clock.monotonicMs();
    const ended = keys.map(() => metrics?.remote(this.counts, { fileKind: "layer", kind: "delete", sizeBytes: 0 }));
    const own = `${timelinePrefix(tenantShardId, timelineId)}`;
    // Objects of other shards (from before a split) may be in use by our siblings: they are never ours to delete.
    deletionQueue.push({ tenantShardId, generation, timelineId }, keys.filter((key) => key.startsWith(own)).map((key) => key.slice(own.length)));
    for (const key of keys) {
      await this.#removed.get(key)?.deleteLocal();
      this.#removed.delete(key);
      ended.pop()?.("success", clock.monotonicMs() - startMs);
    }
  }

  #assertOpen(): void {
    if (this.#stop.signal.aborted) throw new Cancelled(SHUTDOWN);
  }

  /** Stops at once: what is queued is not uploaded. Call `waitCompletion` before for an orderly end. */
  async shutdown(): Promise<void> {
    this.#stop.abort(new Cancelled(SHUTDOWN));
    for (const barrier of this.#barriers.values()) barrier.reject(new Cancelled(SHUTDOWN));
    this.#barriers.clear();
    await Promise.allSettled(this.#running);
  }

  /**
   * Removes everything of the timeline from object storage; the index with its deleted mark goes last, so that an
   * interrupted deletion is found and finished. The client must be shut down.
   */
  async deleteAll(signal?: AbortSignal): Promise<void> {
    invariant(this.#stop.signal.aborted && this.#deletedAt !== null, "only a marked timeline is deleted, and nothing may be uploading");
    await deleteRemoteTimeline(this.#options, signal);
  }
}

/** See `deleteAll`; also for timelines found marked at start. A preserved initdb archive stays. @throws StrataError unavailable; to be tried again */
export async function deleteRemoteTimeline(options: Pick<RemoteTimelineOptions, "storage" | "tenantShardId" | "timelineId" | "generation" | "platform" | "failpoints">, signal?: AbortSignal): Promise<void> {
  const { storage, tenantShardId, timelineId, generation, platform, failpoints } = options;
  const prefix = timelinePrefix(tenantShardId, timelineId);
  const { tenantId } = tenantShardId;
  const last = indexPartKey(tenantShardId, timelineId, generation);
  const retries = { clock: platform.clock, random: platform.random, maxAttempts: 10, signal };
  const kept = new Set([last, preservedInitdbKey(tenantId, timelineId)]);
  await deleteBelow({ ...options, prefix, isMeant: (key) => !kept.has(key) }, signal);
  // Of a shard it lies elsewhere; with an unsharded timeline it went with the rest.
  if (tenantShardId.count > 0) await withRetries(() => storage.delete([initdbArchiveKey(tenantId, timelineId)], { signal }), retries);
  await failpoints?.hit("timeline-delete-before-index-delete", signal);
  await withRetries(() => storage.delete([last], { signal }), retries);
  await failpoints?.hit("timeline-delete-after-index-delete", signal);
}

/**
 * The rest of a timeline that was never finished, whose index is gone: what our generation made of it, for under a later one it may
 * have been finished. The archive of its initdb stays: a creation that is tried again uses it, and of a timeline that was to be
 * restored there may be nothing else.
 */
export async function discardUnfinishedTimeline(options: Pick<RemoteTimelineOptions, "storage" | "tenantShardId" | "timelineId" | "generation" | "platform">, signal?: AbortSignal): Promise<void> {
  const own = generationSuffix(options.generation);
  await deleteBelow({ ...options, prefix: timelinePrefix(options.tenantShardId, options.timelineId), isMeant: (key) => key.endsWith(own) }, signal);
}

async function deleteBelow(options: Pick<RemoteTimelineOptions, "storage" | "platform"> & { readonly prefix: string; readonly isMeant: (key: string) => boolean }, signal?: AbortSignal): Promise<void> {
  const { storage, platform, prefix, isMeant } = options;
  const retries = { clock: platform.clock, random: platform.random, maxAttempts: 10, signal };
  let continuation: string | undefined;
  for (let pass = 0; ; pass++) {
    const page = await withRetries(() => storage.list({ prefix, signal, ...(continuation === undefined ? {} : { continuation }) }), retries);
    const keys = page.objects.map((object) => object.key).filter(isMeant);
    // A page of others only is passed over; after a deletion the list begins anew.
    continuation = keys.length === 0 ? (page.continuation ?? undefined) : undefined;
    if (keys.length === 0 && continuation === undefined) break;
    if (pass > 10_000) throw new StrataError("unavailable", "deletion-stuck", `objects below ${prefix} do not go away`);
    if (keys.length > 0) await withRetries(() => storage.delete(keys, { signal }), retries);
  }
}

/** File name of an index of `generation`, for logs and tests. */
export function indexFileName(generation: number): string {
  return `index_part.json${generationSuffix(generation)}`;
}
