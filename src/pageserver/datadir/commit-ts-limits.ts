/**
 * Between which transactions commit timestamps can be asked for. Ingest stores where they begin; where they end changes with
 * every commit, so it is looked up in the pages when a base backup needs it.
 *
 * Source: PostgreSQL access/transam/commit_ts.c (TransactionIdGetCommitTsData, TransactionTreeSetCommitTsData).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { PAGE_SIZE, SLRU_SEGMENT_BLOCKS } from "../../keyspace/relation.ts";
import type { CheckPoint } from "../../postgres/control-file/checkpoint.ts";
import { COMMIT_TS_ENTRY_SIZE, COMMIT_TS_XACTS_PER_PAGE } from "../../postgres/slru/commit-ts.ts";
import type { DatadirReader } from "./datadir-reader.ts";

const XACTS_PER_SEGMENT = COMMIT_TS_XACTS_PER_PAGE * SLRU_SEGMENT_BLOCKS;

/** The newest transaction with a commit timestamp: never before what `checkpoint` says. */
export async function newestCommitTsXid(reader: DatadirReader, checkpoint: CheckPoint): Promise<number> {
  const next = Number(checkpoint.nextFullXid & 0xffffffffn);
  /** How long before the next transaction: the modulo-2^32 order, for ids that were given out. */
  const age = (xid: number): number => (next - 1 - xid) >>> 0;
  const known = checkpoint.newestCommitTsXid;
  const segments = await reader.listSlruSegments("commit-ts");
  segments.sort((a, b) => age(a * XACTS_PER_SEGMENT) - age(b * XACTS_PER_SEGMENT));
  for (const segment of segments) {
    const pages = await reader.slruSegment("commit-ts", segment);
    const found = lastEntry(pages, (index) => age(segment * XACTS_PER_SEGMENT + index) < age(known));
    if (found !== null) return segment * XACTS_PER_SEGMENT + found;
    // What lies in older segments is older than what is known.
    if (age(segment * XACTS_PER_SEGMENT) >= age(known)) break;
  }
  return known;
}

/** The place of the last entry with a timestamp among those asked for. */
function lastEntry(pages: Uint8Array, wanted: (index: number) => boolean): number | null {
  const view = dataViewOf(pages);
  for (let block = pages.length / PAGE_SIZE - 1; block >= 0; block--) {
    for (let entry = COMMIT_TS_XACTS_PER_PAGE - 1; entry >= 0; entry--) {
      const index = block * COMMIT_TS_XACTS_PER_PAGE + entry;
      if (wanted(index) && view.getBigInt64(block * PAGE_SIZE + entry * COMMIT_TS_ENTRY_SIZE, true) !== 0n) return index;
    }
  }
  return null;
}
