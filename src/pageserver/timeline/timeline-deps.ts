/** What timelines are given. One `StorageResources` serves a whole pageserver; `TenantDeps` adds what is a tenant's. */
import type { Failpoints } from "../../kit/failpoints.ts";
import type { TenantShardId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { TimelineKeySpace } from "../../keyspace/keyspace.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { BlockCache } from "../layers/block-cache.ts";
import type { LayerJobs } from "../layer-jobs/layer-jobs.ts";
import type { LayerMemory } from "../layers/layer-memory.ts";
import type { OpenLayerFiles } from "../layers/open-layer-files.ts";
import type { PageCache } from "../layers/page-cache.ts";
import type { DeletionQueue } from "../remote-timeline/deletion-queue.ts";
import type { RemoteMetrics } from "../remote-timeline/remote-metrics.ts";
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
  readonly metrics: TimelineMetrics;
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

/** Told what happens, for metrics; all calls are cheap. */
export interface TimelineMetrics extends RemoteMetrics {
  /** A vectored read: keys, distinct layer visits, and the deepest key's. */
  read(task: string, measured: { readonly keys: number; readonly layers: number; readonly depth: number; readonly durationMs: number }): void;
  waitLsn(durationMs: number, timedOut: boolean): void;
  flushed(sizeBytes: number, durationMs: number): void;
  downloaded(sizeBytes: number, durationMs: number): void;
  compacted(kind: "l0" | "image", written: { readonly layers: number; readonly sizeBytes: number; readonly durationMs: number }): void;
  collected(layers: number, durationMs: number): void;
}

export const NO_METRICS: TimelineMetrics = { read() {}, waitLsn() {}, flushed() {}, downloaded() {}, remote: () => () => {}, compacted() {}, collected() {} };
