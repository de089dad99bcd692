/**
 * The archive of a root timeline's initdb in object storage: one for all shards of a tenant, under the tenant's own prefix. It goes with
 * the timeline; the preserved copy, made when an operator asks for it, stays.
 *
 * Source: the peer's remote_timeline_client (download_initdb_tar_zst, preserve_initdb_archive).
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Platform } from "../../platform/platform.ts";
import { downloadBytes, type RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { withRetries } from "../../remote-storage/retry.ts";
import { initdbArchiveKey, preservedInitdbKey } from "./remote-paths.ts";

const ATTEMPTS = 10;

export interface InitdbObjectsOptions {
  readonly storage: RemoteStorage;
  readonly tenantId: TenantId;
  readonly platform: Pick<Platform, "clock" | "random">;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

export class InitdbObjects {
  readonly #options: InitdbObjectsOptions;

  constructor(options: InitdbObjectsOptions) {
    this.#options = options;
  }

  /** Null when there is none. @throws StrataError corrupt `object-too-large` */
  async find(timelineId: TimelineId): Promise<Uint8Array | null> {
    return await this.#download(initdbArchiveKey(this.#options.tenantId, timelineId));
  }

  /** The preserved one where the other is gone. @throws StrataError not-found `initdb-archive-not-found`; corrupt `object-too-large` */
  async get(timelineId: TimelineId): Promise<Uint8Array> {
    const { tenantId } = this.#options;
    const archive = (await this.find(timelineId)) ?? (await this.#download(preservedInitdbKey(tenantId, timelineId)));
    if (archive === null) throw notFound(tenantId, timelineId);
    return archive;
  }

  async put(timelineId: TimelineId, archive: Uint8Array): Promise<void> {
    const { storage, tenantId, signal } = this.#options;
    await this.#retried(() => storage.upload(initdbArchiveKey(tenantId, timelineId), { bytes: archive }, { signal }));
  }

  /** A copy that stays when the timeline is deleted. @throws StrataError not-found `initdb-archive-not-found` */
  async preserve(timelineId: TimelineId): Promise<void> {
    const { storage, tenantId, signal } = this.#options;
    try {
      await this.#retried(() => storage.copy(initdbArchiveKey(tenantId, timelineId), preservedInitdbKey(tenantId, timelineId), { signal }));
    } catch (error) {
      throw isStrataError(error, "object-not-found") ? notFound(tenantId, timelineId, error) : error;
    }
  }

  async #download(key: string): Promise<Uint8Array | null> {
    const { storage, maxBytes, signal } = this.#options;
    try {
      return await this.#retried(() => downloadBytes(storage, key, { maxBytes, signal }));
    } catch (error) {
      if (isStrataError(error, "object-not-found")) return null;
      throw error;
    }
  }

  #retried<T>(operation: () => Promise<T>): Promise<T> {
    const { platform: { clock, random }, signal } = this.#options;
    return withRetries(operation, { clock, random, maxAttempts: ATTEMPTS, signal });
  }
}

function notFound(tenantId: TenantId, timelineId: TimelineId, cause?: unknown): StrataError {
  return new StrataError("not-found", "initdb-archive-not-found", `tenant ${tenantId} has no initdb archive of timeline ${timelineId} in object storage`, { cause });
}
