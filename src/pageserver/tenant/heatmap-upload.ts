/** Uploads a tenant shard's heatmap, unless the last one still says the same. */
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { encodeHeatmap, type HeatmapTimeline } from "../remote-timeline/heatmap.ts";
import { heatmapKey } from "../remote-timeline/remote-paths.ts";
import type { Tenant } from "./tenant.ts";

export class HeatmapUpload {
  readonly #tenant: Tenant;
  readonly #storage: RemoteStorage;
  /** Names of the layers in the last one: access times alone are no reason for another. */
  #lastLayers: string | null = null;
  #lastUploadMs: number | null = null;

  constructor(tenant: Tenant, storage: RemoteStorage) {
    this.#tenant = tenant;
    this.#storage = storage;
  }

  /** Monotonic; null before the first. */
  get lastUploadMs(): number | null {
    return this.#lastUploadMs;
  }

  /** Whether there was something to upload. */
  async upload(options: { readonly uploadPeriodMs: number; readonly nowMs: number; readonly force?: boolean; readonly signal?: AbortSignal }): Promise<boolean> {
    const { uploadPeriodMs, nowMs, signal } = options;
    const timelines = this.#residentLayers();
    const layers = timelines.map(({ timelineId, layers: those }) => `${timelineId}:${those.map((layer) => layer.name + String(layer.layer.metadata.generation)).join()}`).join("\n");
    this.#lastUploadMs = nowMs;
    if (layers === this.#lastLayers && options.force !== true) return false;
    const heatmap: HeatmapTimeline[] = timelines.map(({ timelineId, layers: those }) => ({
      timelineId,
      layers: those.map(({ layer }) => ({ name: layer.name, metadata: layer.metadata, lastAccessMs: layer.lastAccessMs })),
    }));
    const { tenantShardId, generation } = this.#tenant;
    await this.#storage.upload(heatmapKey(tenantShardId), { bytes: encodeHeatmap({ generation, uploadPeriodMs, timelines: heatmap }) }, { signal });
    this.#lastLayers = layers;
    return true;
  }

  /** Of timelines in use: archived ones are not worth a secondary's disk. Only what object storage has can be fetched from there. */
  #residentLayers() {
    const timelines = this.#tenant.listTimelines().filter(({ timeline }) => timeline.remoteClient.archivedAt === null);
    return timelines.map(({ timeline }) => {
      const layers = [...timeline.stack.map.layers()].filter((layer) => layer.isResident && timeline.remoteClient.isUploaded(layer.name, layer.metadata));
      return { timelineId: timeline.timelineId, layers: layers.map((layer) => ({ name: layer.toString(), layer })).sort((a, b) => (a.name < b.name ? -1 : 1)) };
    });
  }
}
