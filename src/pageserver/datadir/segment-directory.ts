/** Which segments of an SLRU exist. */
import { isStrataError } from "../../kit/errors.ts";
import type { Key } from "../../keyspace/key.ts";
import { slruDirectoryKey } from "../../keyspace/mapping.ts";
import type { SlruKind } from "../../keyspace/relation.ts";
import { decodeSegmentDirectory } from "./directory-codec.ts";

/**
 * Null when there is no directory, which is so only for pg_commit_ts, on a timeline that the peer made.
 * @throws StrataError corrupt `bad-directory`; not-found `missing-key` for the other SLRUs
 */
export async function loadSegmentDirectory(get: (key: Key) => Promise<Uint8Array>, kind: SlruKind): Promise<Set<number> | null> {
  try {
    return decodeSegmentDirectory(await get(slruDirectoryKey(kind)));
  } catch (error) {
    if (kind === "commit-ts" && isStrataError(error, "missing-key")) return null;
    throw error;
  }
}
