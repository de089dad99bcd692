/**
 * Bringing the objects below a prefix back to what they were at a moment: which version of each key to copy over the
 * present one, and which keys to delete. The rule only; listing versions and carrying the plan out is the store's.
 *
 * Source: the rule of the peer (neondatabase/neon) libs/remote_storage/src/s3_bucket.rs. A version of the very moment
 * counts as there already.
 */
import { StrataError } from "../kit/errors.ts";

export interface ObjectVersion {
  readonly key: string;
  readonly modifiedMs: number;
  /** Null for a deletion marker: the key was deleted then. */
  readonly versionId: string | null;
}

/** Milliseconds of wall time. */
export interface TravelTimes {
  readonly timestampMs: number;
  /** A key changed later than this has been dealt with by an earlier attempt. Not before `timestampMs`. */
  readonly doneIfAfterMs: number;
}

export interface TravelPlan {
  readonly copies: readonly { readonly key: string; readonly versionId: string }[];
  readonly deletions: readonly string[];
}

/** @param versions of each key the newest first, as stores list them: that order decides among equal times */
export function planTimeTravel(versions: readonly ObjectVersion[], times: TravelTimes): TravelPlan {
  const copies: { key: string; versionId: string }[] = [];
  const deletions: string[] = [];
  for (const [key, ofKey] of Map.groupBy(versions, (version) => version.key)) {
    const newestFirst = ofKey.toSorted((a, b) => b.modifiedMs - a.modifiedMs);
    const [latest] = newestFirst;
    if (latest.modifiedMs > times.doneIfAfterMs) continue;
    const wanted = newestFirst.find((version) => version.modifiedMs <= times.timestampMs);
    if (wanted === latest) continue;
    if (wanted !== undefined && wanted.versionId !== null) copies.push({ key, versionId: wanted.versionId });
    else if (latest.versionId !== null) deletions.push(key);
  }
  return { copies, deletions };
}

/** For a store that keeps no versions, or whose versions are not read here. */
export function timeTravelUnsupported(store: string, cause?: unknown): StrataError {
  return new StrataError("fix-input", "time-travel-unsupported", `time travel is not available with ${store}`, { cause });
}
