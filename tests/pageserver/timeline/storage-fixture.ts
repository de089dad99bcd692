/** A pageserver's storage in a temporary directory, with a bucket beside it, for tests. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { compareKeys, type Key, nextKey } from "../../../src/keyspace/key.ts";
import { keySpaceFromRanges, type TimelineKeySpace } from "../../../src/keyspace/keyspace.ts";
import { AUX_FILE_RANGE } from "../../../src/keyspace/mapping.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { FileSystem } from "../../../src/platform/files.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import type { VirtualMachine } from "../../../src/platform/virtual/virtual-world.ts";
import { type JobRunner, JobsHere, LayerJobs } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import { BlockCache } from "../../../src/pageserver/layers/block-cache.ts";
import { OpenLayerFiles } from "../../../src/pageserver/layers/open-layer-files.ts";
import { PageCache } from "../../../src/pageserver/layers/page-cache.ts";
import { DeletionQueue } from "../../../src/pageserver/remote-timeline/deletion-queue.ts";
import { DEFAULT_TIMELINE_CONFIG, type TimelineConfig } from "../../../src/pageserver/timeline/timeline-config.ts";
import type { TenantDeps } from "../../../src/pageserver/timeline/timeline-deps.ts";
import { StorageCounts } from "../../../src/pageserver/counts/storage-counts.ts";
import { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { WorkSlots } from "../../../src/pageserver/timeline/work-slots.ts";
import { LocalDirectoryStorage } from "../../../src/remote-storage/local-directory.ts";
import type { RemoteStorage } from "../../../src/remote-storage/remote-storage.ts";

export const TENANT = { tenantId: "0123456789abcdef0123456789abcdef", number: 0, count: 0 };

/** Nothing happens by itself: tests ask for flushes, compactions and collections. */
export const QUIET_CONFIG: TimelineConfig = { ...DEFAULT_TIMELINE_CONFIG, compactionPeriodMs: 0, gcPeriodMs: 0, pitrIntervalMs: 0, lsnLeaseLengthMs: 0 };

export interface StorageFixture {
  /** Of the current boot, on a virtual machine. */
  readonly platform: Platform;
  readonly log: RecordingLogger;
  readonly directory: string;
  /** Reopened by `reboot`. */
  bucket: RemoteStorage;
  config: TimelineConfig;
  /** Dense keys that image creation is to cover. */
  liveKeys: (lsn: Lsn) => Key[];
  generationIsValid: boolean;
  lsnForTimestamp: TenantDeps["lsnForTimestamp"];
  /** Small by default, so that values are spilled. */
  layerMemory: LayerMemory;
  /** Where layers are made; null: on this thread. */
  jobRunner: JobRunner | null;
  readonly deletionQueue: DeletionQueue;
  /**
   * A manager of the next generation over the same local directory; call after shutting the one before down. With `beside` that one
   * goes on, not knowing that it is not the newest any more; its deletion queue is the caller's to end.
   */
  attach(generation: number, options?: { readonly directory?: string; readonly bucket?: RemoteStorage; readonly beside?: boolean }): Promise<TimelineManager>;
  /** After a crash of the virtual machine: what ran on it is gone, the bucket's files are what was synced. */
  reboot(): Promise<void>;
  close(): Promise<void>;
}

/** In a temporary directory, or on a virtual machine's disk. @param options.files puts something between the storage and its real files */
export async function storageFixture(options: { readonly machine?: VirtualMachine; readonly cacheBytes?: number; readonly files?: (real: FileSystem) => FileSystem } = {}): Promise<StorageFixture> {
  const { machine, cacheBytes = 4 * 1024 * 1024 } = options;
  const realOnes = realPlatform();
  const real: Platform = options.files === undefined ? realOnes : { ...realOnes, files: options.files(realOnes.files) };
  const platformNow = () => machine?.platform ?? real;
  const root = machine === undefined ? await mkdtemp(`${tmpdir()}/strata-storage-`) : "/storage";
  await platformNow().files.makeDirectory(`${root}/bucket`);
  await platformNow().files.makeDirectory(`${root}/local`);
  await platformNow().files.syncDirectory(root);
  if (machine !== undefined) await platformNow().files.syncDirectory("/");
  const log = new RecordingLogger();
  let deletionQueue: DeletionQueue | null = null;
  let newestGeneration = 0;
  const fixture: StorageFixture = {
    get platform(): Platform {
      return platformNow();
    },
    log,
    directory: `${root}/local`,
    bucket: await LocalDirectoryStorage.open(`${root}/bucket`, platformNow()),
    config: QUIET_CONFIG,
    liveKeys: () => [],
    generationIsValid: true,
    lsnForTimestamp: async () => null,
    layerMemory: new LayerMemory(512 * 1024),
    jobRunner: null,
    get deletionQueue(): DeletionQueue {
      return deletionQueue as DeletionQueue;
    },
    async attach(generation, { directory = `${root}/local`, bucket: storage = fixture.bucket, beside = false } = {}) {
      if (!beside) await deletionQueue?.shutdown();
      newestGeneration = generation;
      deletionQueue = await DeletionQueue.open(
        { platform: platformNow(), log, storage, directory: `${directory}/deletion`, validate: async (requests) => requests.map((request) => fixture.generationIsValid && request.generation === newestGeneration) },
        new Map([[TENANT.tenantId, generation]]),
      );
      return new TimelineManager(tenantDeps(fixture, { generation, directory, storage, cacheBytes }));
    },
    async reboot() {
      deletionQueue = null;
      // What the process that died had in memory is gone with it.
      fixture.layerMemory = new LayerMemory(fixture.layerMemory.limitBytes);
      fixture.bucket = await LocalDirectoryStorage.open(`${root}/bucket`, platformNow());
    },
    async close() {
      await deletionQueue?.shutdown();
      if (machine === undefined) await rm(root, { recursive: true, force: true });
    },
  };
  return fixture;
}

function tenantDeps(fixture: StorageFixture, options: { generation: number; directory: string; storage: RemoteStorage; cacheBytes: number }): TenantDeps {
  return {
    platform: fixture.platform,
    log: fixture.log,
    remote: options.storage,
    deletionQueue: fixture.deletionQueue,
    cache: new BlockCache({ capacityBytes: options.cacheBytes }),
    pages: new PageCache({ capacityBytes: options.cacheBytes }),
    openFiles: new OpenLayerFiles({ maxOpen: 32 }),
    workDirectory: options.directory,
    flushSlots: new WorkSlots(2),
    maintenanceSlots: new WorkSlots(2),
    layerMemory: fixture.layerMemory,
    layerJobs: new LayerJobs(fixture.jobRunner ?? new JobsHere(fixture.platform)),
    metrics: new StorageCounts(),
    tenantShardId: TENANT,
    generation: options.generation,
    config: () => fixture.config,
    keyspaceAt: async (_timeline, lsn) => keySpaceOf(fixture.liveKeys(lsn)),
    lsnForTimestamp: (timeline, wallMs, context) => fixture.lsnForTimestamp(timeline, wallMs, context),
  };
}

function keySpaceOf(keys: readonly Key[]): TimelineKeySpace {
  const ranges = [...keys].sort(compareKeys).map((start) => ({ start, end: nextKey(start) }));
  return { dense: keySpaceFromRanges(ranges), sparse: keySpaceFromRanges([AUX_FILE_RANGE]) };
}
