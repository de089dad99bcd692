/** A tenant's storage under test: local directory and bucket in a temporary one, attached again and again. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { describeError } from "../../../src/kit/errors.ts";
import type { TimelineId } from "../../../src/kit/ids.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { keySpaceAt } from "../../../src/pageserver/datadir/keyspace-at.ts";
import { lsnForTimestamp } from "../../../src/pageserver/datadir/lsn-for-timestamp.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { JobsHere, LayerJobs } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import { BlockCache } from "../../../src/pageserver/layers/block-cache.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import { OpenLayerFiles } from "../../../src/pageserver/layers/open-layer-files.ts";
import { PageCache } from "../../../src/pageserver/layers/page-cache.ts";
import { DeletionQueue } from "../../../src/pageserver/remote-timeline/deletion-queue.ts";
import { DEFAULT_TIMELINE_CONFIG, type TimelineConfig } from "../../../src/pageserver/timeline/timeline-config.ts";
import { StorageCounts } from "../../../src/pageserver/counts/storage-counts.ts";
import { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import type { TimelineStore } from "../../../src/pageserver/timeline/timeline-store.ts";
import { WorkSlots } from "../../../src/pageserver/timeline/work-slots.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import type { Random } from "../../../src/platform/random.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { LocalDirectoryStorage } from "../../../src/remote-storage/local-directory.ts";
import type { RemoteStorage } from "../../../src/remote-storage/remote-storage.ts";
import { postgresTimestamp } from "../../../src/wire/replication-messages.ts";

const TENANT = { tenantId: "0123456789abcdef0123456789abcdef", number: 0, count: 0 };
const MIB = 1024 * 1024;

/** Everything happens often: small layers, short periods. */
export const BUSY_CONFIG: TimelineConfig = {
  ...DEFAULT_TIMELINE_CONFIG, checkpointDistanceBytes: 3 * MIB, compactionTargetSizeBytes: 2 * MIB, compactionThreshold: 4, compactionPeriodMs: 1500, imageLayerCreationCheckThreshold: 1,
  lsnLeaseLengthMs: 0, gcPeriodMs: 0, gcHorizonBytes: 24 * MIB, pitrIntervalMs: 20_000,
};

/** Other sizes, thresholds and horizons: at times history goes as soon as a collection finds it. */
function randomConfig(random: Random): TimelineConfig {
  const pick = (values: readonly number[]): number => values[random.below(values.length)];
  return {
    ...BUSY_CONFIG,
    checkpointDistanceBytes: pick([1, 3, 8]) * MIB,
    compactionTargetSizeBytes: pick([1, 2, 8]) * MIB,
    compactionThreshold: pick([2, 4, 8]),
    imageCreationThreshold: pick([1, 2, 3]),
    gcHorizonBytes: pick([0, 1, 4, 16]) * MIB,
    pitrIntervalMs: pick([0, 500, 2000, 2000, 8000, 20_000]),
  };
}

export class HistoryStore {
  readonly log = new RecordingLogger();
  #config: TimelineConfig = BUSY_CONFIG;
  readonly #root: string;
  readonly #version: PgMajor;
  readonly #platform = realPlatform();
  readonly #bucket: RemoteStorage;
  #attached: { readonly manager: TimelineManager; readonly deletionQueue: DeletionQueue } | null = null;
  #generation = 0;
  /** The local directory is `local-N`; a new N is a new machine. */
  #machine = 1;

  private constructor(root: string, options: { version: PgMajor; bucket: RemoteStorage }) {
    this.#root = root;
    this.#version = options.version;
    this.#bucket = options.bucket;
  }

  static async create(version: PgMajor): Promise<HistoryStore> {
    const root = await mkdtemp(`${tmpdir()}/strata-history-`);
    const platform = realPlatform();
    await platform.files.makeDirectory(`${root}/bucket`);
    const store = new HistoryStore(root, { version, bucket: await LocalDirectoryStorage.open(`${root}/bucket`, platform) });
    store.log.expectWarn(/./);
    await store.#attach();
    return store;
  }

  reconfigure(random: Random): void {
    this.#config = randomConfig(random);
  }

  get manager(): TimelineManager {
    if (this.#attached === null) throw new Error("not attached");
    return this.#attached.manager;
  }

  get deletionQueue(): DeletionQueue {
    if (this.#attached === null) throw new Error("not attached");
    return this.#attached.deletionQueue;
  }

  async #attach(): Promise<void> {
    const log = this.log;
    const directory = `${this.#root}/local-${this.#machine}`;
    const generation = ++this.#generation;
    const platform = this.#platform;
    await platform.files.makeDirectory(directory);
    const deletionQueue = await DeletionQueue.open(
      { platform, log, storage: this.#bucket, directory: `${directory}/deletion`, validate: async (requests) => requests.map(() => true) },
      new Map([[TENANT.tenantId, generation]]),
    );
    const datadirOf = (store: TimelineStore) => new TimelineDatadir(store, { version: this.#version, shard: UNSHARDED_IDENTITY });
    const manager = new TimelineManager({
      platform, log, deletionQueue, generation, remote: this.#bucket, workDirectory: directory, tenantShardId: TENANT, metrics: new StorageCounts(),
      cache: new BlockCache({ capacityBytes: 4 * MIB }), pages: new PageCache({ capacityBytes: 4 * MIB }), openFiles: new OpenLayerFiles({ maxOpen: 24 }), flushSlots: new WorkSlots(2), maintenanceSlots: new WorkSlots(2),
      layerMemory: new LayerMemory(8 * MIB), layerJobs: new LayerJobs(new JobsHere(platform)),
      config: () => this.#config,
      keyspaceAt: (store, lsn, context) => keySpaceAt(datadirOf(store).at(lsn, context), true),
      lsnForTimestamp: async (store, wallMs, context) => {
        const found = await lsnForTimestamp(datadirOf(store), postgresTimestamp(wallMs), context);
        return found.kind === "present" || found.kind === "future" ? found.lsn : null;
      },
    });
    this.#attached = { manager, deletionQueue };
    await manager.loadTimelines();
  }

  async #detach(flush: boolean): Promise<void> {
    await this.manager.shutdown({ flush });
    await this.deletionQueue.shutdown();
    this.#attached = null;
  }

  /**
   * Stops and starts; with `newMachine` from the bucket alone.
   * @throws Error when a timeline is broken, or has lost what it said object storage has
   */
  async restart(options: { readonly flush: boolean; readonly newMachine: boolean }): Promise<void> {
    const promised = new Map<TimelineId, Lsn>(this.manager.timelineIds.map((id) => [id, this.manager.get(id).remoteConsistentLsn]));
    await this.#detach(options.flush);
    if (options.newMachine) {
      await rm(`${this.#root}/local-${this.#machine}`, { recursive: true });
      this.#machine++;
    }
    await this.#attach();
    for (const [id, error] of this.manager.brokenTimelines) throw new Error(`timeline ${id} is broken: ${describeError(error)}`);
    for (const [id, lsn] of promised) {
      const found = this.manager.get(id).lastRecordLsn;
      if (found < lsn) throw new Error(`timeline ${id} came back at ${found}, but ${lsn} was in object storage`);
    }
  }

  async remove(): Promise<void> {
    if (this.#attached !== null) await this.#detach(false);
    await rm(this.#root, { recursive: true, force: true });
  }
}
