/**
 * A tenant shard's objects as they were at a moment: all that its timelines and its manifest are made of. The shard must
 * not be attached anywhere. Repeated with the same times it goes on where it stopped.
 *
 * Source: the peer's remote_timeline_client/upload.rs, `time_travel_recover_tenant`; the manifest comes along here, so that
 * timelines offloaded since are not taken for offloaded.
 */
import type { TenantShardId } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { OperationOptions, RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import type { TravelTimes } from "../../remote-storage/time-travel.ts";
import { tenantManifestPrefix, timelinesPrefix } from "./remote-paths.ts";

/** The peer's: a tenant of about 2 TiB. */
const VERSIONS_MAX = 100_000;
const ATTEMPTS = 10;

export interface TenantTravel extends TravelTimes, OperationOptions {
  readonly platform: Pick<Platform, "clock" | "random">;
  readonly log: Logger;
}

/** @throws StrataError as `RemoteStorage.timeTravelRecover`, after retries */
export async function timeTravelTenant(remote: RemoteStorage, id: TenantShardId, travel: TenantTravel): Promise<void> {
  const { platform, log, timestampMs, doneIfAfterMs, signal } = travel;
  for (const prefix of prefixesOf(id)) {
    const operation = () => remote.timeTravelRecover({ prefix, timestampMs, doneIfAfterMs, maxVersions: VERSIONS_MAX, signal });
    await withRetries(operation, { clock: platform.clock, random: platform.random, maxAttempts: ATTEMPTS, signal, onRetry: ({ attempt, error }) => log.warn("time travel will be tried again", { prefix, attempt: attempt + 1, error }) });
    log.info("objects are as they were", { prefix, timestampMs });
  }
}

/** With shard zero comes what was written before the tenant was split: layers of that time are still in use. */
function prefixesOf(id: TenantShardId): string[] {
  const prefixes = (shard: TenantShardId) => [timelinesPrefix(shard), tenantManifestPrefix(shard)];
  const unsharded = { ...id, number: 0, count: 0 };
  if (id.count === 0) return prefixes(unsharded);
  return id.number === 0 ? [...prefixes(unsharded), ...prefixes(id)] : prefixes(id);
}
