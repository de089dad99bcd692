/** Metrics of tenants and timelines, read when they are scraped; under the peer's names (pageserver/src/metrics.rs). */
import type { GaugeReading, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import type { StorageCounts } from "./counts/storage-counts.ts";
import type { Layer } from "./layers/layer.ts";
import { isL0 } from "./layers/layer-name.ts";
import { THROTTLE_COUNTERS } from "./metrics.ts";
import { shardSlug } from "./shard-slug.ts";
import { registerTimelineMetrics, type ScrapedTimeline, TIMELINE_LABELS } from "./timeline-metrics.ts";
import type { TenantTimeline } from "./tenant/tenant-timeline.ts";
import type { Tenants, TenantView } from "./tenant/tenants.ts";

export function registerTenantMetrics(metrics: Metrics, { tenants, counts, clock }: { readonly tenants: Tenants; readonly counts: StorageCounts; readonly clock: Clock }): void {
  const scraped = { timelines: [] as ScrapedTimeline[], isFresh: false };
  // What is listed for one metric is good for the next, as long as nobody else has had a turn.
  const timelines = (): readonly ScrapedTimeline[] => {
    if (scraped.isFresh) return scraped.timelines;
    scraped.timelines = listed(tenants);
    scraped.isFresh = true;
    queueMicrotask(() => {
      scraped.isFresh = false;
      scraped.timelines = [];
    });
    return scraped.timelines;
  };
  registerTenants(metrics, tenants);
  registerTimelineMetrics({ metrics, counts, clock, timelines });
  registerTimelines(metrics, timelines);
}

function registerTenants(metrics: Metrics, tenants: Tenants): void {
  metrics.gaugesFrom({ name: "pageserver_tenant_manager_slots", help: "Number of slots currently existing, including all attached, secondary and in-progress operations", labels: ["mode"] }, () =>
    counted(["attached", "secondary", "inprogress"], tenants.list(), slotMode),
  );
  metrics.gaugesFrom({ name: "pageserver_tenant_states_count", help: "Count of tenants per state", labels: ["state"] }, () =>
    counted(["Attaching", "Active", "Stopping", "Broken"], tenants.list(), ({ tenant }) => (tenant === null ? null : tenant.state[0].toUpperCase() + tenant.state.slice(1))),
  );
  metrics.gaugesFrom({ name: "pageserver_tenant_synthetic_cached_size_bytes", help: "Synthetic size of each tenant in bytes", labels: ["tenant_id"] }, () =>
    tenants.list().flatMap(({ id, tenant }) => {
      const bytes = tenant?.size.lastBytes ?? null;
      return bytes === null ? [] : [{ labels: [id.tenantId], value: bytes }];
    }),
  );
  metrics.gaugesFrom({ name: "pageserver_broken_tenants_count", help: "Set of broken tenants", labels: ["tenant_id", "shard_id"] }, () =>
    tenants.list().flatMap(({ id, tenant }) => (tenant?.state === "broken" ? [{ labels: [id.tenantId, shardSlug(id)], value: 1 }] : [])),
  );
  metrics.gaugeFrom({ name: "pageserver_startup_is_loading", help: "1 while tenants are being loaded, 0 at other times" }, () => (tenants.list().some(({ tenant }) => tenant?.state === "attaching") ? 1 : 0));
  metrics.gaugesFrom({ name: "pageserver_tenant_offloaded_timelines", help: "Timelines that are in object storage alone, by tenant", labels: ["tenant_id", "shard_id"] }, () =>
    tenants.list().flatMap(({ id, tenant }) => {
      const offloaded = tenant?.manager.offloaded.length ?? 0;
      return offloaded === 0 ? [] : [{ labels: [id.tenantId, shardSlug(id)], value: offloaded }];
    }),
  );
  metrics.gaugesFrom({ name: "pageserver_timeline_states_count", help: "Count of timelines per state", labels: ["state"] }, () => timelineStates(tenants));
  for (const [name, help, read] of THROTTLE_COUNTERS) {
    metrics.countersFrom({ name: `pageserver_tenant_throttling_${name}`, help: `${help}, by kind of throttle and tenant`, labels: ["kind", "tenant_id", "shard_id"] }, () =>
      tenants.list().flatMap(({ id, tenant }) => (tenant === null || tenant.throttle.counts.started === 0 ? [] : [{ labels: ["pagestream", id.tenantId, shardSlug(id)], value: read(tenant.throttle.counts) }])));
  }
}

/** In the peer's words. */
function timelineStates(tenants: Tenants): GaugeReading[] {
  const states = { Loading: 0, Active: 0, Broken: 0, Stopping: 0 };
  for (const { tenant } of tenants.list()) {
    if (tenant === null) continue;
    const name = tenant.state === "active" ? "Active" : tenant.state === "attaching" ? "Loading" : tenant.state === "broken" ? "Broken" : "Stopping";
    states[name] += tenant.manager.timelineIds.length;
    states.Broken += tenant.manager.brokenTimelines.size;
  }
  return Object.entries(states).map(([state, value]) => ({ labels: [state], value }));
}

function registerTimelines(metrics: Metrics, timelines: () => readonly ScrapedTimeline[]): void {
  const timelineGauge = (name: string, help: string, read: (view: TenantTimeline) => number): void =>
    metrics.gaugesFrom({ name, help, labels: TIMELINE_LABELS }, () => timelines().map(({ labels, view }) => ({ labels, value: read(view) })));
  timelineGauge("pageserver_current_logical_size", "Current logical size grouped by timeline", ({ datadir }) => datadir.knownLogicalSize.sizeBytes);
  timelineGauge("pageserver_last_record_lsn", "Last record LSN grouped by timeline", ({ timeline }) => timeline.lastRecordLsn);
  timelineGauge("pageserver_disk_consistent_lsn", "Disk consistent LSN grouped by timeline", ({ timeline }) => timeline.diskConsistentLsn);
  timelineGauge("pageserver_pitr_history_size", "Data written since PITR cutoff on this timeline", ({ timeline }) => Math.max(0, timeline.lastRecordLsn - (timeline.pitrCutoffLsn ?? timeline.gcCutoffLsn)));
  timelineGauge("pageserver_resident_physical_size", "The size of the layer files present in the pageserver's filesystem", (view) => residentBytes(view));
  timelineGauge("pageserver_valid_lsn_lease_count", "The number of valid leases", ({ timeline }) => timeline.leases.valid().length);
  timelineGauge("pageserver_projected_remote_consistent_lsn", "What would be consistent in object storage if nothing else came: all that is in files here", ({ timeline }) => timeline.diskConsistentLsn);
  registerLayerMetrics(metrics, timelines);
  metrics.gaugeFrom({ name: "pageserver_relsize_cache_entries", help: "Number of entries in the relation size caches" }, () => timelines().reduce((sum, { view }) => sum + view.datadir.sizes.relationCount, 0));
  timelineGauge("pageserver_remote_physical_size", "The size of the layer files present in the remote storage that are listed in the remote index_part.json", uploadedBytes);
}

/** Counted over all layers at each scrape. */
function registerLayerMetrics(metrics: Metrics, timelines: () => readonly ScrapedTimeline[]): void {
  const byKind = (measure: (layer: Layer) => number): GaugeReading[] =>
    timelines().flatMap(({ labels, view }) => {
      const sums = { l0: 0, delta: 0, image: 0 };
      for (const layer of view.timeline.stack.map.layers()) sums[isL0(layer.name) ? "l0" : layer.name.kind] += measure(layer);
      return [{ labels: [...labels, "l0", "delta"], value: sums.l0 }, { labels: [...labels, "l1", "delta"], value: sums.delta }, { labels: [...labels, "l1", "image"], value: sums.image }];
    });
  const labels = [...TIMELINE_LABELS, "level", "kind"];
  metrics.gaugesFrom({ name: "pageserver_layer_count", help: "Number of layers that exist", labels }, () => byKind(() => 1));
  metrics.gaugesFrom({ name: "pageserver_layer_bytes", help: "Sum of layer physical sizes in bytes", labels }, () => byKind((layer) => layer.metadata.sizeBytes));
  const total = (read: (view: TenantTimeline) => number) => (): number => timelines().reduce((sum, { view }) => sum + read(view), 0);
  metrics.gaugeFrom({ name: "pageserver_timeline_ephemeral_bytes", help: "Total number of bytes in ephemeral layers, summed for all timelines" }, total(({ timeline }) => timeline.stack.memoryBytes));
  metrics.gaugeFrom({ name: "pageserver_resident_physical_size_global", help: "Like pageserver_resident_physical_size, for all timelines together" }, total(residentBytes));
  metrics.gaugeFrom({ name: "pageserver_remote_physical_size_global", help: "Like pageserver_remote_physical_size, for all timelines together" }, total(uploadedBytes));
}

function slotMode({ tenant }: TenantView): string {
  if (tenant === null) return "secondary";
  return tenant.state === "attaching" || tenant.state === "stopping" ? "inprogress" : "attached";
}

function counted(names: readonly string[], views: readonly TenantView[], nameOf: (view: TenantView) => string | null): GaugeReading[] {
  const counts = new Map(names.map((name) => [name, 0]));
  for (const view of views) {
    const name = nameOf(view);
    if (name !== null) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, value]) => ({ labels: [name], value }));
}

function listed(tenants: Tenants): ScrapedTimeline[] {
  return tenants.list().flatMap(({ id, tenant }) => (tenant?.state === "active" ? tenant.listTimelines().map((view) => ({ labels: [id.tenantId, shardSlug(id), view.timeline.timelineId], view })) : []));
}

export function residentBytes({ timeline }: TenantTimeline): number {
  return sumOf([...timeline.stack.map.layers()].filter((layer) => layer.isResident));
}

/** Of layers that the index in object storage lists. */
export function uploadedBytes({ timeline }: TenantTimeline): number {
  return sumOf(timeline.remoteClient.cleanIndex?.layers.values() ?? []);
}

function sumOf(layers: Iterable<{ readonly metadata: { readonly sizeBytes: number } }>): number {
  let sum = 0;
  for (const { metadata } of layers) sum += metadata.sizeBytes;
  return sum;
}
