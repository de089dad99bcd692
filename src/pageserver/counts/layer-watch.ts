/** What happens to the layers of a timeline, counted. */
import type { LayerWatch } from "../layers/layer.ts";
import { taskKindOf } from "./read-counts.ts";
import { increment, type StorageCounts } from "./storage-counts.ts";
import type { TimelineCounts } from "./timeline-counts.ts";

/** Evicted sooner after it came than this, a layer was probably downloaded in vain. */
export const LOW_RESIDENCE_MS = 24 * 3600 * 1000;

export function layerWatch(metrics: StorageCounts, counts: () => TimelineCounts): LayerWatch {
  const { layers, downloads } = metrics;
  return {
    fetched: (task, sizeBytes, sinceEvictionMs) => {
      const ofTask = downloads.layersByTask.of(taskKindOf(task));
      ofTask.layers++;
      ofTask.bytes += sizeBytes;
      if (sinceEvictionMs !== null) layers.redownloadedAfter.recordMs(sinceEvictionMs);
    },
    waited: (task, durationMs) => metrics.downloadWaited(counts(), task, durationMs),
    evicting: (what, residentMs) => {
      if (what === "started") layers.evictionsStarted++;
      else if (what === "completed") {
        layers.evictionsCompleted++;
        counts().evictions++;
        if (residentMs < LOW_RESIDENCE_MS) counts().lowResidenceEvictions++;
      } else increment(layers.evictionsCancelled, "remove_failed");
    },
    deleting: (what) => {
      if (what === "started") layers.deletesStarted++;
      else layers.deletesCompleted++;
    },
  };
}
