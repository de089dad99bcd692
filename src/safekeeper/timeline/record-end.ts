/** Whether a record of a timeline's log ends at an LSN: what is to be called committed, or is to be the end of a log, must. */
import { isStrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { findFirstRecord } from "../../postgres/wal/find-records.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import type { Timeline } from "./timeline.ts";

/**
 * Only the page on which the LSN lies is read, for its header says where the first record on it begins. So what cannot be told
 * by it is "no": the end of a page that one record fills, and of the padding behind a log switch, unless they are known ends.
 * @param lsn at most the end of the log
 * @throws StrataError not-found when the WAL there is neither on this disk nor in the backup
 */
export async function isRecordEnd(timeline: Timeline, lsn: Lsn): Promise<boolean> {
  const { acceptor, state, geometry } = timeline;
  const known = [state.timelineStartLsn, state.commitLsn, acceptor.volatile.commitLsn, acceptor.log.flushRecordLsn, ...acceptor.logHistory.map((entry) => entry.lsn)];
  if (known.includes(lsn)) return true;
  const pageLsn = lsn - (lsn % WAL_PAGE_SIZE === 0 ? WAL_PAGE_SIZE : lsn % WAL_PAGE_SIZE);
  const bytes = await readAll(timeline, pageLsn, lsn);
  try {
    // A byte more, for a record that would begin right at the LSN.
    const first = findFirstRecord({ ...geometry, lsn: pageLsn, bytes: new Uint8Array([...bytes, 0]) }, pageLsn);
    if (first === null || first >= lsn) return first === lsn;
    const decoder = new WalStreamDecoder(first, geometry.version, geometry.segmentSize);
    const record = new WalRecord();
    decoder.feed(bytes.subarray(first - pageLsn));
    while (decoder.next(record)) continue;
    return decoder.recordEnd === lsn;
  } catch (error) {
    if (isStrataError(error) && (error.kind === "corrupt" || error.code === "bad-start-lsn")) return false;
    throw error;
  }
}

async function readAll(timeline: Timeline, fromLsn: Lsn, toLsn: Lsn): Promise<Uint8Array> {
  const bytes = new Uint8Array(toLsn - fromLsn);
  const reader = timeline.reader(fromLsn);
  try {
    for (let at = 0; at < bytes.length; ) at += await reader.read(fromLsn + at, bytes.subarray(at));
  } finally {
    await reader.close();
  }
  return bytes;
}
