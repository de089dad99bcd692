/**
 * One layer of a timeline: what it covers, and its file, which may be on the local disk or only in object storage.
 * Reading brings an absent file back, once for all who ask; a local file that fails a check is replaced by the copy in
 * object storage, if there is one.
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { ShardIndex, TenantId } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { BlockCache } from "./block-cache.ts";
import { LayerFile } from "./layer-file.ts";
import { type Generation, type LayerName, layerNameToString, localLayerFileName } from "./layer-name.ts";
import type { OpenLayerFiles } from "./open-layer-files.ts";
import type { QuickReads } from "./quick-reads.ts";

/** What index_part says of a layer. */
export interface LayerMetadata {
  readonly sizeBytes: number;
  readonly generation: Generation;
  /** The shard that wrote it: part of its object key. */
  readonly shard: ShardIndex;
  /** Checksum of its first block, which covers all others; null for layers of the peer's. */
  readonly crc: number | null;
}

/** Told what happens to layers, for metrics. */
export interface LayerWatch {
  /** @param task who needed it first @param sinceEvictionMs null: it was never evicted here */
  fetched(task: string, sizeBytes: number, sinceEvictionMs: number | null): void;
  waited(task: string, durationMs: number): void;
  /** "started", then one of the others. @param residentMs how long its file was here */
  evicting(what: "started" | "completed" | "failed", residentMs: number): void;
  deleting(what: "started" | "completed"): void;
}

/** What layers need from their timeline. */
export interface LayerEnvironment {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly log: Logger;
  readonly cache: BlockCache;
  readonly openFiles: OpenLayerFiles;
  readonly quickReads: QuickReads;
  readonly tenantId: TenantId;
  /** The timeline's local directory. */
  readonly directory: string;
  /** Puts a checked copy of the layer's object at its local path. @throws StrataError not-found, unavailable, corrupt */
  download(layer: Layer, signal?: AbortSignal): Promise<void>;
  /** Told what happens, for metrics. */
  readonly watch?: LayerWatch;
  /** Whether object storage has the layer, by an index_part that has been uploaded. */
  isUploaded(layer: Layer): boolean;
}

/** The first, one after a repair, and some for evictions in between. */
const READ_ATTEMPTS = 4;
/** Who reads, where nobody says. */
const OTHER_TASK = "unknown";
const REPAIRABLE_CODES = new Set(["layer-checksum-mismatch", "layer-truncated", "bad-layer-summary", "bad-layer-index", "bad-blob", "bad-zstd", "file-not-found"]);

export class Layer {
  readonly name: LayerName;
  readonly metadata: LayerMetadata;
  /** Wall-clock time of the last read. */
  lastAccessMs: number;
  /** Since when its file is here, by the wall clock; as far back as this process knows. */
  residentSinceMs: number;
  readonly #environment: LayerEnvironment;
  #resident: boolean;
  /** A download under way, shared by all who wait for it. */
  #arriving: Promise<void> | null = null;
  /** The removal of the file by an eviction under way: no download may begin before it ends. */
  #leaving: Promise<void> | null = null;
  /** Counts the files this layer has had here: a read that failed on an earlier one says nothing of the present one. */
  #residence = 0;
  #evictedMs: number | null = null;
  /** Who needs the file to stay where it is. */
  #holds = 0;
  #released: PromiseWithResolvers<void> | null = null;
  #deleted = false;

  constructor(environment: LayerEnvironment, options: { readonly name: LayerName; readonly metadata: LayerMetadata; readonly resident: boolean }) {
    this.#environment = environment;
    this.name = options.name;
    this.metadata = options.metadata;
    this.#resident = options.resident;
    this.lastAccessMs = environment.clock.wallMs();
    this.residentSinceMs = this.lastAccessMs;
  }

  get isResident(): boolean {
    return this.#resident;
  }

  /** Its file is here, and object storage has it too. */
  get isEvictable(): boolean {
    return this.#resident && !this.#deleted && this.#holds === 0 && this.#environment.isUploaded(this);
  }

  get path(): string {
    return `${this.#environment.directory}/${localLayerFileName(this.name, this.metadata.generation)}`;
  }

  toString(): string {
    return layerNameToString(this.name);
  }

  /**
   * Runs `work` with the layer's file, downloaded first if it is absent.
   * @throws StrataError corrupt `layer-checksum-mismatch` and its kin when there is no good copy; unavailable
   */
  async withFile<T>(work: (file: LayerFile) => Promise<T>, signal?: AbortSignal, task = OTHER_TASK): Promise<T> {
    const { openFiles, clock, log } = this.#environment;
    this.lastAccessMs = clock.wallMs();
    let repaired = false;
    for (let attempt = 1; ; attempt++) {
      if (!this.#resident) await this.makeResident(signal, task);
      const residence = this.#residence;
      try {
        return await openFiles.use(this, () => this.#open(), work);
      } catch (error) {
        if (attempt === READ_ATTEMPTS || !this.#isRepairable(error)) throw error;
        // Evicted or fetched again meanwhile: the file that is here now, if any, is another one.
        if (residence !== this.#residence) continue;
        if (repaired) throw error;
        repaired = true;
        log.warn("local copy of a layer is damaged, fetching it again", { layer: this.toString(), error });
        this.#noFileHere();
      }
    }
  }

  /** The layer's file if it is here and open: good until the caller waits for anything. */
  fileNow(): LayerFile | null {
    if (!this.#resident) return null;
    this.lastAccessMs = this.#environment.clock.wallMs();
    return this.#environment.openFiles.peek(this);
  }

  #open(): Promise<LayerFile> {
    const { files, cache, tenantId, quickReads } = this.#environment;
    return LayerFile.open({ files, path: this.path, cache, tenantId, name: this.name, expectedCrc: this.metadata.crc, quickReads });
  }

  #isRepairable(error: unknown): boolean {
    return isStrataError(error) && REPAIRABLE_CODES.has(error.code) && !this.#deleted && this.#environment.isUploaded(this);
  }

  #noFileHere(): void {
    this.#resident = false;
    this.#residence++;
  }

  /**
   * Downloads the file if it is absent, and keeps it at its path, neither evicted nor deleted, until the function returned is called: for
   * jobs that open it by path. Errors as `makeResident`.
   */
  async hold(signal?: AbortSignal): Promise<() => void> {
    this.#holds++;
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      this.#holds--;
      if (this.#holds === 0) this.#released?.resolve();
    };
    try {
      if (this.#deleted) throw this.#deletedError();
      await this.makeResident(signal);
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }

  #deletedError(): StrataError {
    return new StrataError("not-found", "layer-deleted", `layer ${this.toString()} was deleted`);
  }

  /** Downloads the file if it is absent. One download serves all callers; each may give up by its own signal. */
  async makeResident(signal?: AbortSignal, task = OTHER_TASK): Promise<void> {
    if (this.#resident) return;
    const { clock, watch } = this.#environment;
    const startMs = clock.monotonicMs();
    if (this.#deleted) throw this.#deletedError();
    signal?.throwIfAborted();
    this.#arriving ??= this.#fetch(task).finally(() => {
      this.#arriving = null;
    });
    // Those who wait may all have given up when it fails.
    this.#arriving.catch(() => {});
    await abortable(this.#arriving, signal).finally(() => watch?.waited(task, clock.monotonicMs() - startMs));
  }

  /** A download under way has ended, whichever way: nothing is written below the timeline's directory any more. */
  async settled(): Promise<void> {
    await this.#arriving?.catch(() => {});
    await this.#leaving?.catch(() => {});
  }

  async #fetch(task: string): Promise<void> {
    // Its file would be taken for the one that is to go.
    await this.#leaving?.catch(() => {});
    await this.#environment.openFiles.forget(this);
    await this.#environment.download(this);
    this.#resident = true;
    this.#residence++;
    const { clock, watch } = this.#environment;
    this.residentSinceMs = clock.wallMs();
    watch?.fetched(task, this.metadata.sizeBytes, this.#evictedMs === null ? null : clock.monotonicMs() - this.#evictedMs);
  }

  /** Drops the local file of a layer that object storage has. Returns whether it did. */
  async evict(): Promise<boolean> {
    if (!this.isEvictable) return false;
    const { watch, clock } = this.#environment;
    const residentMs = clock.wallMs() - this.residentSinceMs;
    watch?.evicting("started", residentMs);
    this.#noFileHere();
    this.#evictedMs = clock.monotonicMs();
    this.#leaving = this.#removeFile().finally(() => {
      this.#leaving = null;
    });
    await this.#leaving.catch((error: unknown) => {
      watch?.evicting("failed", residentMs);
      throw error;
    });
    watch?.evicting("completed", residentMs);
    return true;
  }

  /** Removes the local file of a layer that has left the layer map, once nobody holds it; reads under way keep their handle. */
  async deleteLocal(): Promise<void> {
    this.#deleted = true;
    const { watch } = this.#environment;
    watch?.deleting("started");
    await this.settled();
    while (this.#holds > 0) {
      this.#released ??= Promise.withResolvers();
      await this.#released.promise;
      this.#released = null;
    }
    await this.#removeFile();
    watch?.deleting("completed");
  }

  async #removeFile(): Promise<void> {
    await this.#environment.openFiles.forget(this);
    try {
      await this.#environment.files.remove(this.path);
    } catch (error) {
      if (!isStrataError(error, "file-not-found")) throw error;
    }
  }
}

/** Stops waiting when the signal aborts; the work itself goes on. @throws the signal's reason */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work;
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
