/** What the page service needs of the rest of the pageserver. */
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { ShardIndex } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Key } from "../../keyspace/key.ts";
import type { TimelineCounts } from "../counts/timeline-counts.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";

export interface ServedTimeline {
  readonly datadir: TimelineDatadir;
  /** Keeps the LSN readable; returns when the lease ends, wall-clock milliseconds.
   *  @throws StrataError fix-input `lsn-out-of-range` for an LSN that is gone already */
  grantLease(lsn: Lsn): number;
  hasLease(lsn: Lsn): boolean;
  readonly counts: TimelineCounts;
  readonly lazySlruDownload: boolean;
  /** Where requests wait for their tenant's turn; null when they need not. */
  readonly throttle: { take(requests: number, signal?: AbortSignal): Promise<number> } | null;
}

/** Which shard of the tenant, of those on this pageserver. */
export type ShardSelector = { readonly kind: "zero" } | { readonly kind: "holds"; readonly key: Key } | { readonly kind: "known"; readonly shard: ShardIndex };

export interface TimelineFinder {
  /** @throws StrataError not-found `tenant-not-found`, `timeline-not-found`; unavailable `tenant-not-ready`, `timeline-broken` */
  find(target: { readonly tenantId: TenantId; readonly timelineId: TimelineId }, selector: ShardSelector): Promise<ServedTimeline>;
  /** The same if it is there and ready; null for whatever other reason: `find` tells. */
  findNow(target: { readonly tenantId: TenantId; readonly timelineId: TimelineId }, selector: ShardSelector): ServedTimeline | null;
}
