/** What timelines are given. One `StorageResources` serves a whole pageserver; `TenantDeps` adds what is a tenant's. */
import type { Failpoints } from "../../kit/failpoints.ts";
import type { TenantShardId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { TimelineKeySpace } from "../../keyspace/keyspace.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import type { BlockCache } from "../layers/block-cache.ts";
import type { LayerJobs } from "../layer-jobs/layer-jobs.ts";
import type { LayerMemory } from "../layers/layer-memory.ts";
import type { OpenLayerFiles } from "../layers/open-layer-files.ts";
import type { PageCache } from "../layers/page-cache.ts";
import type { DeletionQueue } from "../remote-timeline/deletion-queue.ts";
import type { TimelineConfig } from "./timeline-config.ts";
import type { ReadContext, TimelineStore } from "./timeline-store.ts";
import type { WorkSlots } from "./work-slots.ts";

export interface StorageResources {
  readonly platform: Platform;
  readonly remote: RemoteStorage;
  readonly deletionQueue: DeletionQueue;
  readonly cache: BlockCache;
  readonly pages: PageCache;
  readonly openFiles: OpenLayerFiles;
  /** Below it: `tenants/<shard>/timelines/<timeline>/`. */
  readonly workDirectory: string;
  /** Flushes that may run at once: each holds one in-memory layer's bytes. */
  readonly flushSlots: WorkSlots;
  /** Shared by the in-memory layers of all timelines. */
  readonly layerMemory: LayerMemory;
  /** Where layers are made: on worker threads, or here. */
  readonly layerJobs: LayerJobs;
  /** Compactions and collections that may run at once. */
  readonly maintenanceSlots: WorkSlots;
  /** What is counted for metrics. */
  readonly metrics: StorageCounts;
  /** Only in testing mode. */
  readonly failpoints?: Failpoints;
}

export interface TenantDeps extends StorageResources {
  readonly log: Logger;
  readonly tenantShardId: TenantShardId;
  readonly generation: number;
  /** Read whenever it matters: a change takes effect at once. */
  readonly config: () => TimelineConfig;
  /** The keys in use at an LSN, for image layers. */
  readonly keyspaceAt: (timeline: TimelineStore, lsn: Lsn, context: ReadContext) => Promise<TimelineKeySpace>;
  /** The newest LSN known to lie at or before a moment; null when that cannot be told (nothing is collected then). */
  readonly lsnForTimestamp: (timeline: TimelineStore, wallMs: number, context: ReadContext) => Promise<Lsn | null>;
}
