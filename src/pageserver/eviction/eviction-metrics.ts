/** What evictions count, under the peer's names (pageserver/src/metrics.rs). */
import type { Metrics } from "../../observability/metrics.ts";

const COLLECTION_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];
const ITERATION_SECONDS = [0.001, 0.01, 0.1, 1, 10, 100];
const LAYER_COUNTS = [5, 50, 500, 5000, 50_000];

export class EvictionMetrics {
  readonly #iterations;
  readonly #collectionSeconds;
  readonly #collectedPerTenant;
  readonly #collected;
  readonly #selected;
  readonly #evictedLayers;
  readonly #evictedBytes;

  constructor(metrics: Metrics) {
    const disk = "pageserver_disk_usage_based_eviction";
    this.#iterations = metrics.duration({ name: "pageserver_eviction_iteration_duration_seconds_global", help: "Time spent on a single eviction iteration", labels: ["period_secs", "threshold_secs"], buckets: ITERATION_SECONDS });
    this.#collectionSeconds = metrics.duration({ name: `${disk}_tenant_collection_seconds`, help: "Time spent collecting layers from a tenant", buckets: COLLECTION_SECONDS }).with();
    this.#collectedPerTenant = metrics.histogram({ name: `${disk}_tenant_collected_layers`, help: "Amount of layers gathered from a tenant", buckets: LAYER_COUNTS }).with();
    this.#collected = metrics.counter({ name: `${disk}_collected_layers_total`, help: "Amount of layers collected" }).with();
    this.#selected = metrics.counter({ name: `${disk}_select_layers_total`, help: "Amount of layers selected" }).with();
    this.#evictedLayers = metrics.counter({ name: `${disk}_evicted_layers_total`, help: "Amount of layers successfully evicted" }).with();
    this.#evictedBytes = metrics.counter({ name: `${disk}_evicted_bytes_total`, help: "Amount of bytes successfully evicted" }).with();
  }

  iteration(policy: { readonly periodMs: number; readonly thresholdMs: number }, durationMs: number): void {
    this.#iterations.with(String(policy.periodMs / 1000), String(policy.thresholdMs / 1000)).recordMs(durationMs);
  }

  collected(layers: number, durationMs: number): void {
    this.#collectionSeconds.recordMs(durationMs);
    this.#collectedPerTenant.observe(layers);
    this.#collected.inc(layers);
  }

  selected(layers: number): void {
    this.#selected.inc(layers);
  }

  evictedForDisk(sizeBytes: number): void {
    this.#evictedLayers.inc();
    this.#evictedBytes.inc(sizeBytes);
  }
}
