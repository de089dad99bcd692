/** Where the WAL on disk ends: the end of the last whole, valid record after a position known to be good. */
import { isStrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { FileSystem } from "../../platform/files.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import { RecordEnds } from "./record-ends.ts";
import { openSegment, segmentOf } from "./segments.ts";

const CHUNK_BYTES = 256 * 1024;

export interface EndOfWal {
  /** At or above the start position. */
  readonly lsn: Lsn;
  /** Segments that hold the bytes between the two, as far as they are here. */
  readonly segments: readonly number[];
}

/**
 * Reads from `startLsn`, a record boundary, to the first byte that is missing or is not valid WAL. What a crash tore is
 * told by the records' checksums.
 */
export async function findEndOfWal(files: FileSystem, directory: string, options: { geometry: WalGeometry; startLsn: Lsn }): Promise<EndOfWal> {
  const { geometry, startLsn } = options;
  const decoder = new WalStreamDecoder(startLsn, geometry.version, geometry.segmentSize);
  const record = new WalRecord();
  const segments: number[] = [];
  const chunk = new Uint8Array(CHUNK_BYTES);
  let position = startLsn;
  const ends = new RecordEnds(startLsn, geometry.segmentSize);
  for (let more = true; more; ) {
    const segment = segmentOf(position, geometry.segmentSize);
    const open = await openSegment(files, directory, { segment, segmentSizeBytes: geometry.segmentSize, mode: "read" });
    if (open === null) break;
    segments.push(segment);
    try {
      const segmentEnd = (segment + 1) * geometry.segmentSize;
      while (more && position < segmentEnd) {
        const length = await open.file.read(chunk.subarray(0, Math.min(CHUNK_BYTES, segmentEnd - position)), position % geometry.segmentSize);
        position += length;
        decoder.feed(chunk.subarray(0, length));
        const valid = takeRecords(decoder, record, ends);
        // A record's end may lie beyond the bytes that are here (padding, a log switch): then it does not count yet.
        ends.reached(position);
        more = length > 0 && valid;
      }
    } finally {
      await open.file.close();
    }
  }
  return { lsn: ends.last, segments };
}

/** False when the bytes are not WAL. */
function takeRecords(decoder: WalStreamDecoder, record: WalRecord, ends: RecordEnds): boolean {
  try {
    while (decoder.next(record)) ends.add(record.endLsn);
    return true;
  } catch (error) {
    if (isStrataError(error) && error.kind === "corrupt") return false;
    throw error;
  }
}
