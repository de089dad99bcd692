/**
 * A tenant shard's manifest: which of its timelines are offloaded, that is, live in object storage alone and are not loaded.
 *
 * | field | content |
 * | --- | --- |
 * | version | 2; any is read, unknown fields are ignored |
 * | stripe_size? | blocks; told for recovery only |
 * | offloaded_timelines | array of { timeline_id, ancestor_timeline_id?, ancestor_retain_lsn?, archived_at } |
 *
 * One object a generation (remote-paths.ts), with our checksum (checked-json.ts). A timeline in it may be gone: whether it is there is
 * for its index_part to say. Source: the peer's remote_timeline_client/manifest module.
 */
import { StrataError } from "../../kit/errors.ts";
import { parseTimelineId, type TenantShardId, type TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import { downloadBytes, listAll, type RemoteStorage } from "../../remote-storage/remote-storage.ts";
import type { Generation } from "../layers/layer-name.ts";
import { decodeCheckedJson, encodeCheckedJson } from "./checked-json.ts";
import { parseTenantManifestKey, tenantManifestKey, tenantManifestPrefix } from "./remote-paths.ts";

export interface OffloadedTimeline {
  readonly timelineId: TimelineId;
  /** Where it branched off; the ancestor keeps what that LSN shows. Null at a root. */
  readonly ancestor: { readonly timelineId: TimelineId; readonly lsn: Lsn } | null;
  /** As in index_part.json. */
  readonly archivedAt: string;
}

export interface TenantManifest {
  readonly stripeBlocks: number | null;
  readonly offloaded: readonly OffloadedTimeline[];
}

const VERSION = 2;
const MAX_BYTES = 64 * 1024 * 1024;
const GENERATIONS_MAX = 1_000_000;

export function encodeTenantManifest({ stripeBlocks, offloaded }: TenantManifest): Uint8Array {
  const timelines = offloaded.map(({ timelineId, ancestor, archivedAt }) => ({
    timeline_id: timelineId,
    ancestor_timeline_id: ancestor?.timelineId ?? null,
    ancestor_retain_lsn: ancestor === null ? null : lsnToString(ancestor.lsn),
    archived_at: archivedAt,
  }));
  return encodeCheckedJson({ version: VERSION, ...(stripeBlocks === null ? {} : { stripe_size: stripeBlocks }), offloaded_timelines: timelines });
}

/** @throws StrataError corrupt `bad-tenant-manifest` */
export function decodeTenantManifest(bytes: Uint8Array): TenantManifest {
  const json = decodeCheckedJson(bytes, { what: "tenant manifest", code: "bad-tenant-manifest", required: false });
  const { version, stripe_size: stripeSize = null, offloaded_timelines: timelines = [] } = json;
  if (typeof version !== "number" || !Array.isArray(timelines)) throw bad("no version, or no list of timelines");
  if (stripeSize !== null && typeof stripeSize !== "number") throw bad("stripe_size is not a number");
  return { stripeBlocks: stripeSize, offloaded: timelines.map(readTimeline) };
}

function readTimeline(value: unknown): OffloadedTimeline {
  if (typeof value !== "object" || value === null) throw bad("an entry is not an object");
  const { timeline_id: id, ancestor_timeline_id: ancestorId = null, ancestor_retain_lsn: lsn = null, archived_at: archivedAt } = value as Record<string, unknown>;
  if (typeof id !== "string" || typeof archivedAt !== "string") throw bad("an entry without timeline_id or archived_at");
  try {
    const ancestor = typeof ancestorId === "string" && typeof lsn === "string" ? { timelineId: parseTimelineId(ancestorId), lsn: parseLsn(lsn) } : null;
    return { timelineId: parseTimelineId(id), ancestor, archivedAt };
  } catch (error) {
    throw bad("an entry is malformed", error);
  }
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-tenant-manifest", `tenant manifest: ${what}`, { cause });
}

/**
 * The manifest of the highest generation not above `generation`; null when there is none.
 * @throws StrataError corrupt `bad-tenant-manifest`; unavailable
 */
export async function loadTenantManifest(storage: RemoteStorage, tenant: TenantShardId, at: { readonly generation: number; readonly signal?: AbortSignal }): Promise<{ readonly manifest: TenantManifest; readonly generation: Generation } | null> {
  const { generation, signal } = at;
  const { objects } = await listAll(storage, { prefix: tenantManifestPrefix(tenant), maxTotal: GENERATIONS_MAX, signal });
  const generations = objects.flatMap(({ key }) => parseTenantManifestKey(key) ?? []).filter((found) => found <= generation);
  if (generations.length === 0) return null;
  const newest = generations.reduce((a, b) => Math.max(a, b));
  return { manifest: decodeTenantManifest(await downloadBytes(storage, tenantManifestKey(tenant, newest), { maxBytes: MAX_BYTES, signal })), generation: newest };
}
