/** Drops local files of layers that object storage has: when the disk runs full, by hand, and those nobody has read for long. */
import { StrataError } from "../../kit/errors.ts";
import { tenantShardIdToString } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { DiskSpace } from "../../platform/real/disk-space.ts";
import type { BackgroundTask } from "../background-tasks.ts";
import type { Layer } from "../layers/layer.ts";
import { Pacer } from "../layers/pacer.ts";
import type { Tenant } from "../tenant/tenant.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { EvictionMetrics } from "./eviction-metrics.ts";
import { type EvictionCandidate, type EvictionOrder, planEviction } from "./eviction-planner.ts";

/** `disk_usage_based_eviction` of pageserver.toml. */
export interface DiskUsageEvictionConfig {
  readonly enabled: boolean;
  readonly maxUsagePercent: number;
  readonly minAvailableBytes: number;
  readonly periodMs: number;
  readonly order: EvictionOrder;
}

/** A layer that may go, and whose it is. */
interface Resident {
  readonly layer: Layer;
  readonly timeline: Timeline;
}

type Candidate = EvictionCandidate<Resident>;

export interface EvictionOptions {
  readonly tenants: Pick<Tenants, "list">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly diskSpace: () => DiskSpace;
  readonly config: DiskUsageEvictionConfig;
  readonly metrics: EvictionMetrics;
}

export interface EvictionOutcome {
  readonly plannedBytes: number;
  /** Of what is planned beyond what tenants want to keep; null when that was not needed. */
  readonly beyondResidentBytes: number | null;
  readonly evictedBytes: number;
  readonly failedBytes: number;
  readonly failedLayers: number;
}

export class Eviction {
  readonly #options: EvictionOptions;
  #running = false;
  /** By tenant shard: when its policy was carried out last, in monotonic milliseconds. */
  readonly #lastByAccessMs = new Map<string, number>();

  constructor(options: EvictionOptions) {
    this.#options = options;
  }

  tasks(): BackgroundTask[] {
    const { config } = this.#options;
    return [
      { name: "disk usage eviction", periodMs: () => (config.enabled ? config.periodMs : 0), run: (signal) => this.#relieveDisk(signal) },
      { name: "eviction by access", periodMs: () => ACCESS_CHECK_MS, run: (signal) => this.#evictUnread(signal) },
    ];
  }

  /** Bytes that must go for the disk to be as empty as configured; 0 without pressure. */
  #pressureBytes(): number {
    const { config, diskSpace } = this.#options;
    const { totalBytes, freeBytes, availableBytes } = diskSpace();
    const overUsage = totalBytes - freeBytes - totalBytes * (config.maxUsagePercent / 100);
    return Math.max(0, Math.ceil(Math.max(overUsage, config.minAvailableBytes - availableBytes)));
  }

  async #relieveDisk(signal: AbortSignal): Promise<void> {
    const { log, config } = this.#options;
    const wantedBytes = this.#pressureBytes();
    if (wantedBytes === 0) return;
    const outcome = await this.evictBytes(wantedBytes, { order: config.order, signal });
    const fields = { wantedBytes, ...outcome };
    if (outcome.evictedBytes < wantedBytes) log.warn("the disk is fuller than wanted, and evicting layers was not enough", fields);
    else log.info("layers evicted: the disk was fuller than wanted", fields);
  }

  /** @throws StrataError conflict `eviction-running` */
  async evictBytes(wantedBytes: number, options: { readonly order: EvictionOrder; readonly signal?: AbortSignal }): Promise<EvictionOutcome> {
    if (this.#running) throw new StrataError("conflict", "eviction-running", "an eviction is under way already");
    this.#running = true;
    try {
      const { candidates, minResidentBytes } = await this.#allCandidates(options.signal);
      const plan = await new Pacer(this.#options.clock).run(planEviction(candidates, { order: options.order, wantedBytes, minResidentBytes: (tenant) => minResidentBytes.get(tenant) ?? null }), options.signal);
      const outcome = { evictedBytes: 0, failedBytes: 0, failedLayers: 0 };
      const { metrics } = this.#options;
      metrics.selected(plan.layers.length);
      for (const { layer: resident, sizeBytes } of plan.layers) {
        options.signal?.throwIfAborted();
        if (await this.#evict(resident)) {
          outcome.evictedBytes += sizeBytes;
          metrics.evictedForDisk(sizeBytes);
        } else {
          outcome.failedBytes += sizeBytes;
          outcome.failedLayers++;
        }
      }
      const beyond = plan.layers.slice(plan.respectful);
      return { plannedBytes: bytesOf(plan.layers), beyondResidentBytes: beyond.length === 0 ? null : bytesOf(beyond), ...outcome };
    } finally {
      this.#running = false;
    }
  }

  async #evict({ layer }: Resident): Promise<boolean> {
    try {
      return await layer.evict();
    } catch (error) {
      // One bad file does not keep the others on a full disk.
      this.#options.log.warn("a layer could not be evicted", { error });
      return false;
    }
  }

  async #allCandidates(signal: AbortSignal | undefined): Promise<{ candidates: Candidate[]; minResidentBytes: Map<string, number | null> }> {
    const { clock, metrics, tenants } = this.#options;
    const pacer = new Pacer(clock);
    const candidates: Candidate[] = [];
    const minResidentBytes = new Map<string, number | null>();
    for (const { id, tenant } of tenants.list()) {
      if (tenant?.state !== "active") continue;
      const [startMs, before] = [clock.monotonicMs(), candidates.length];
      const name = tenantShardIdToString(id);
      minResidentBytes.set(name, tenant.settings.minResidentSizeBytes);
      await addCandidates(candidates, { tenant, name, pacer });
      signal?.throwIfAborted();
      metrics.collected(candidates.length - before, clock.monotonicMs() - startMs);
    }
    return { candidates, minResidentBytes };
  }

  /** `eviction_policy` of the tenants that have one and whose turn it is. */
  async #evictUnread(signal: AbortSignal): Promise<void> {
    const { tenants, clock, metrics } = this.#options;
    const pacer = new Pacer(clock);
    const present = new Set<string>();
    for (const { id, tenant } of tenants.list()) {
      const policy = tenant?.settings.accessEviction ?? null;
      if (policy === null || tenant?.state !== "active") continue;
      const name = tenantShardIdToString(id);
      present.add(name);
      const startMs = clock.monotonicMs();
      const lastMs = this.#lastByAccessMs.get(name);
      if (lastMs !== undefined && startMs - lastMs < policy.periodMs) continue;
      this.#lastByAccessMs.set(name, startMs);
      const candidates: Candidate[] = [];
      await addCandidates(candidates, { tenant, name, pacer });
      for (const { layer: resident } of candidates) {
        signal.throwIfAborted();
        if (clock.wallMs() - resident.layer.lastAccessMs >= policy.thresholdMs) await this.#evict(resident);
        const pause = pacer.pause();
        if (pause !== undefined) await pause;
      }
      metrics.iteration(policy, clock.monotonicMs() - startMs);
    }
    for (const name of this.#lastByAccessMs.keys()) if (!present.has(name)) this.#lastByAccessMs.delete(name);
  }
}

/** Adds the layers of a tenant that are on the local disk and in object storage. */
async function addCandidates(candidates: Candidate[], from: { readonly tenant: Tenant; readonly name: string; readonly pacer: Pacer }): Promise<void> {
  const { tenant, name, pacer } = from;
  let looked = 0;
  for (const { timeline } of tenant.listTimelines()) {
    for (const layer of timeline.stack.map.layers()) {
      if (layer.isEvictable) candidates.push({ layer: { layer, timeline }, tenant: name, sizeBytes: layer.metadata.sizeBytes, lastAccessMs: layer.lastAccessMs });
      // Of those looked at, not of those found: most may be none.
      const pause = ++looked % LAYERS_PER_LOOK === 0 ? pacer.pause() : undefined;
      if (pause !== undefined) await pause;
    }
    const pause = pacer.pause();
    if (pause !== undefined) await pause;
  }
}

/** How often is looked whose turn it is. */
const ACCESS_CHECK_MS = 1000;
/** Between two looks at the clock. */
const LAYERS_PER_LOOK = 16;

function bytesOf(layers: readonly { readonly sizeBytes: number }[]): number {
  return layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}
