/**
 * The timelines of a tenant shard that are in object storage alone, and the manifest that says so. In memory they are this one entry:
 * what matters of them while nobody uses them is that their ancestors keep what they branched off from.
 */
import type { TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import { tenantManifestKey } from "../remote-timeline/remote-paths.ts";
import { encodeTenantManifest, loadTenantManifest, type OffloadedTimeline } from "../remote-timeline/tenant-manifest.ts";
import type { TenantDeps } from "../timeline/timeline-deps.ts";

const UPLOAD_ATTEMPTS = 10;

export class OffloadedTimelines {
  readonly #deps: TenantDeps;
  readonly #timelines = new Map<TimelineId, OffloadedTimeline>();
  #stripeBlocks: number | null = null;
  /** Uploads one after the other, each of what is true when its turn comes. */
  #uploading: Promise<void> = Promise.resolve();

  readonly #stopping: AbortSignal;

  /** @param stopping ends attempts to upload */
  constructor(deps: TenantDeps, stopping: AbortSignal) {
    this.#deps = deps;
    this.#stopping = stopping;
  }

  get all(): readonly OffloadedTimeline[] {
    return [...this.#timelines.values()];
  }

  get(timelineId: TimelineId): OffloadedTimeline | undefined {
    return this.#timelines.get(timelineId);
  }

  /** Branches off `timelineId` that are offloaded, and where. */
  childrenOf(timelineId: TimelineId): { readonly timelineId: TimelineId; readonly lsn: Lsn }[] {
    const children: { readonly timelineId: TimelineId; readonly lsn: Lsn }[] = [];
    for (const { timelineId: childId, ancestor } of this.#timelines.values()) if (ancestor?.timelineId === timelineId) children.push({ timelineId: childId, lsn: ancestor.lsn });
    return children;
  }

  /** What the newest manifest up to our generation says. @throws StrataError corrupt `bad-tenant-manifest`; unavailable */
  async load(signal?: AbortSignal): Promise<void> {
    const { remote, tenantShardId, generation } = this.#deps;
    const found = await loadTenantManifest(remote, tenantShardId, { generation, signal });
    for (const timeline of found?.manifest.offloaded ?? []) this.#timelines.set(timeline.timelineId, timeline);
    this.#stripeBlocks = found?.manifest.stripeBlocks ?? null;
  }

  /** Not one of them after all: not persistent until the next change is. */
  forget(timelineId: TimelineId): void {
    this.#timelines.delete(timelineId);
  }

  /** In object storage when it returns; on failure nothing has changed. */
  async add(timeline: OffloadedTimeline): Promise<void> {
    this.#timelines.set(timeline.timelineId, timeline);
    try {
      await this.#upload();
    } catch (error) {
      this.#timelines.delete(timeline.timelineId);
      throw error;
    }
  }

  async remove(timelineId: TimelineId): Promise<void> {
    const known = this.#timelines.get(timelineId);
    if (known === undefined) return;
    this.#timelines.delete(timelineId);
    try {
      await this.#upload();
    } catch (error) {
      this.#timelines.set(timelineId, known);
      throw error;
    }
  }

  #upload(): Promise<void> {
    const next = this.#uploading.then(async () => {
      const { remote, tenantShardId, generation, platform, failpoints } = this.#deps;
      const signal = this.#stopping;
      await failpoints?.hit("before-upload-manifest", signal);
      const bytes = encodeTenantManifest({ stripeBlocks: this.#stripeBlocks, offloaded: this.all });
      await withRetries(() => remote.upload(tenantManifestKey(tenantShardId, generation), { bytes }, { signal }), { clock: platform.clock, random: platform.random, maxAttempts: UPLOAD_ATTEMPTS, signal });
    });
    this.#uploading = next.catch(() => {});
    return next;
  }
}
