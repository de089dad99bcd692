/**
 * The LSN that shows all commits up to a moment and none after it, and the moment of an LSN, from the timestamps that
 * clog pages carry. Not exact: commits need not be logged in the order of their timestamps.
 *
 * Source: the peer's pageserver pgdatadir_mapping module (find_lsn_for_timestamp).
 */
import { isStrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { dataViewOf } from "../../kit/bytes.ts";
import { CLOG_PAGE_WITH_TIMESTAMP_SIZE } from "../../interpret/apply-neon-record.ts";
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import type { ReadContext } from "../timeline/timeline-store.ts";
import type { TimelineDatadir } from "./timeline-datadir.ts";

export type LsnForTimestamp =
  /** Commits lie before and after. */
  | { readonly kind: "present"; readonly lsn: Lsn }
  /** All commits lie before: this is the last one. */
  | { readonly kind: "future"; readonly lsn: Lsn }
  /** All commits that are kept lie after: the oldest LSN there is. */
  | { readonly kind: "past"; readonly lsn: Lsn }
  /** No commit at all is known. */
  | { readonly kind: "nodata"; readonly lsn: Lsn };

interface Found {
  smaller: boolean;
  larger: boolean;
}

/** @param timestamp microseconds since 2000-01-01 */
export async function lsnForTimestamp(datadir: TimelineDatadir, timestamp: bigint, context: ReadContext): Promise<LsnForTimestamp> {
  const { store } = datadir;
  const minLsn = Math.max(store.gcCutoffLsn, store.ancestor?.lsn ?? 0);
  // In units of 8 bytes, which LSNs are multiples of.
  let low = Math.floor(minLsn / 8);
  let high = Math.floor(store.lastRecordLsn / 8) + 1;
  const found: Found = { smaller: false, larger: false };
  while (low < high) {
    context.signal?.throwIfAborted();
    const middle = Math.floor((low + high) / 2);
    try {
      if (await hasCommitAtOrAfter(datadir, { lsn: middle * 8, timestamp, found }, context)) high = middle;
      else low = middle + 1;
    } catch (error) {
      if (isStrataError(error, "missing-key")) return { kind: "past", lsn: minLsn };
      throw error;
    }
  }
  const commitLsn = (low - 1) * 8;
  if (!found.smaller) return { kind: found.larger ? "past" : "nodata", lsn: minLsn };
  if (commitLsn < minLsn) return { kind: "past", lsn: minLsn };
  return { kind: found.larger ? "present" : "future", lsn: commitLsn };
}

async function hasCommitAtOrAfter(datadir: TimelineDatadir, probe: { lsn: Lsn; timestamp: bigint; found: Found }, context: ReadContext): Promise<boolean> {
  for await (const timestamp of clogTimestamps(datadir, probe.lsn, context)) {
    if (timestamp >= probe.timestamp) {
      probe.found.larger = true;
      return true;
    }
    probe.found.smaller = true;
  }
  return false;
}

/** The newest commit's timestamp as of `lsn`, microseconds since 2000-01-01; null when there is none. */
export async function timestampOfLsn(datadir: TimelineDatadir, lsn: Lsn, context: ReadContext): Promise<bigint | null> {
  let newest: bigint | null = null;
  for await (const timestamp of clogTimestamps(datadir, lsn, context)) if (newest === null || timestamp > newest) newest = timestamp;
  return newest;
}

async function* clogTimestamps(datadir: TimelineDatadir, lsn: Lsn, context: ReadContext): AsyncGenerator<bigint> {
  const reader = datadir.at(lsn, context);
  for (const segment of (await reader.listSlruSegments("clog")).reverse()) {
    const blocks = await reader.slruSegmentBlocks("clog", segment);
    for (let block = blocks - 1; block >= 0; block--) {
      const page = await reader.slruPage("clog", segment, block);
      if (page.length === CLOG_PAGE_WITH_TIMESTAMP_SIZE) yield dataViewOf(page).getBigInt64(PAGE_SIZE);
    }
  }
}
