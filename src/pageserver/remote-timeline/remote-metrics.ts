/** Told of what timelines do with object storage, for metrics. */
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";

export interface RemoteOperation {
  readonly fileKind: "layer" | "index";
  readonly kind: "upload" | "download";
  readonly sizeBytes: number;
}

/** How one ended; "cancelled": nobody wanted it any more. */
export type RemoteOutcome = "success" | "failure" | "cancelled";

export interface RemoteMetrics {
  /** An operation began; what is returned is to be called once, when it has ended. */
  remote(timeline: { readonly tenantShardId: TenantShardId; readonly timelineId: TimelineId }, operation: RemoteOperation): (outcome: RemoteOutcome, durationMs: number) => void;
}
