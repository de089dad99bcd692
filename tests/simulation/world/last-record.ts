/** Finding the record before a position, as the base backup's checkpoint tells a new server. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { Violation } from "../violation.ts";
import type { KnownLog } from "./known-log.ts";
import { SEGMENT_SIZE } from "./virtual-postgres.ts";

/** Start of the last record that ends at `lsn`. @throws Violation when no record ends there, StrataError when the log is not WAL */
export function lastRecordBefore(log: KnownLog, lsn: Lsn): Lsn {
  const decoder = new WalStreamDecoder(log.startLsn, 17, SEGMENT_SIZE);
  const record = new WalRecord();
  decoder.feed(log.bytes(log.startLsn, lsn));
  let last = 0;
  let end = log.startLsn;
  while (decoder.next(record)) {
    last = record.lsn;
    end = record.endLsn;
  }
  if (end !== lsn) throw new Violation(`the log is settled at ${lsn}, but its last record ends at ${end}`);
  return last;
}
