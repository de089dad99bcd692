/** Uploads a tenant shard's heatmap, unless the last one still says the same. */
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { Clock } from "../../platform/clock.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import { encodeHeatmapInSteps, type HeatmapTimeline } from "../remote-timeline/heatmap.ts";
import { heatmapKey } from "../remote-timeline/remote-paths.ts";
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";
import { stepwiseSort } from "../../kit/stepwise-sort.ts";
import { Pacer } from "../../platform/pacer.ts";
import type { Layer } from "../layers/layer.ts";
import type { Timeline } from "../timeline/timeline.ts";

/** After a failure it is tried again so soon, or after the period if that is shorter. */
const RETRY_MS = 10_000;

const LAYERS_PER_STEP = 64;

interface NamedLayer {
  readonly name: string;
  readonly layer: Layer;
}

/** What this needs of a tenant shard. */
export interface HeatmapSource {
  readonly tenantShardId: TenantShardId;
  readonly generation: number;
  listTimelines(): readonly { readonly timeline: Timeline }[];
}

/** For metrics. */
export interface HeatmapWatch {
  readonly clock: Clock;
  readonly counts: StorageCounts["heatmaps"];
}

export class HeatmapUpload {
  readonly #tenant: HeatmapSource;
  readonly #storage: RemoteStorage;
  readonly #watch: HeatmapWatch;
  /** Names of the layers in the last one: access times alone are no reason for another. */
  #lastLayers: string | null = null;
  /** When the next one is due is counted from here: the last look that ended well. */
  #lastDoneMs: number | null = null;
  #lastFailedMs: number | null = null;

  constructor(tenant: HeatmapSource, storage: RemoteStorage, watch: HeatmapWatch) {
    this.#tenant = tenant;
    this.#storage = storage;
    this.#watch = watch;
  }

  /** @param nowMs monotonic */
  isDue(uploadPeriodMs: number, nowMs: number): boolean {
    if (this.#lastFailedMs !== null) return nowMs - this.#lastFailedMs >= Math.min(RETRY_MS, uploadPeriodMs);
    return this.#lastDoneMs === null || nowMs - this.#lastDoneMs >= uploadPeriodMs;
  }

  /** Whether there was something to upload. */
  async upload(options: { readonly uploadPeriodMs: number; readonly nowMs: number; readonly force?: boolean; readonly signal?: AbortSignal }): Promise<boolean> {
    this.#lastFailedMs = options.nowMs;
    const uploaded = await this.#upload(options);
    this.#lastFailedMs = null;
    this.#lastDoneMs = options.nowMs;
    return uploaded;
  }

  async #upload({ uploadPeriodMs, force, signal }: { readonly uploadPeriodMs: number; readonly force?: boolean; readonly signal?: AbortSignal }): Promise<boolean> {
    const { clock, counts } = this.#watch;
    const pacer = new Pacer(clock);
    const timelines = await pacer.run(this.#residentLayers(), signal);
    const layers = timelines.map(({ timelineId, layers: those }) => `${timelineId}:${those.map((layer) => layer.name + String(layer.layer.metadata.generation)).join()}`).join("\n");
    if (layers === this.#lastLayers && force !== true) return false;
    const heatmap: HeatmapTimeline[] = timelines.map(({ timelineId, layers: those }) => ({
      timelineId,
      layers: those.map(({ layer }) => ({ name: layer.name, metadata: layer.metadata, lastAccessMs: layer.lastAccessMs })),
    }));
    const { tenantShardId, generation } = this.#tenant;
    const startMs = clock.monotonicMs();
    try {
      const bytes = await pacer.run(encodeHeatmapInSteps({ generation, uploadPeriodMs, timelines: heatmap }), signal);
      await this.#storage.upload(heatmapKey(tenantShardId), { bytes }, { signal });
    } catch (error) {
      counts.errors++;
      throw error;
    }
    counts.uploaded++;
    counts.seconds.recordMs(clock.monotonicMs() - startMs);
    this.#lastLayers = layers;
    return true;
  }

  /** Of timelines in use: archived ones are not worth a secondary's disk. Only what object storage has can be fetched from there. */
  *#residentLayers(): Generator<void, { readonly timelineId: TimelineId; readonly layers: NamedLayer[] }[]> {
    const found: { readonly timelineId: TimelineId; readonly layers: NamedLayer[] }[] = [];
    for (const { timeline } of this.#tenant.listTimelines()) {
      if (timeline.remoteClient.archivedAt !== null) continue;
      const layers: NamedLayer[] = [];
      let seen = 0;
      for (const layer of timeline.stack.map.layers()) {
        if (layer.isResident && timeline.remoteClient.isUploaded(layer.name, layer.metadata)) layers.push({ name: layer.toString(), layer });
        if (++seen % LAYERS_PER_STEP === 0) yield;
      }
      found.push({ timelineId: timeline.timelineId, layers: yield* stepwiseSort(layers, (a, b) => (a.name < b.name ? -1 : 1)) });
      yield;
    }
    return found;
  }
}
