/** What a batch of values adds to storage, by kind; for metrics. */
import { KEY_FIELDS, type ValueBatch } from "../../interpret/value-batch.ts";
import type { StorageCounts } from "./storage-counts.ts";

/** In the place of a block number: the size of a fork or of a segment. */
const SIZE_MARK = 0xffff_ffff;
/** Values of one record lie less apart than that: no record is as short. */
const RECORD_MIN_BYTES = 8;

/** A value is an image if the big-endian tag it begins with is 0, and a record otherwise (interpret/value-codec.ts). */
export function countValues({ count, fields, lsns, offsets, bytes }: ValueBatch, counts: StorageCounts["ingest"]): void {
  let lastLsn = -RECORD_MIN_BYTES;
  for (let at = 0; at < count; at++) {
    const f = at * KEY_FIELDS;
    const isSize = fields[f + 5] === SIZE_MARK;
    const isPage = !isSize && ((fields[f] === 0 && fields[f + 3] !== 0) || (fields[f] === 1 && fields[f + 2] === 1));
    const isImage = bytes[offsets[at] + 3] === 0;
    if (isPage && isImage) counts.dataImages++;
    else if (isPage) counts.dataDeltas++;
    else if (isImage) counts.metadataImages++;
    else counts.metadataDeltas++;
    if (lsns[at] - lastLsn >= RECORD_MIN_BYTES) counts.recordsCommitted++;
    lastLsn = lsns[at];
  }
}
