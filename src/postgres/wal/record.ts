/**
 * A WAL record, decoded in place. One `WalRecord` is meant to be reused for millions of records: decoding fills its
 * fields and allocates nothing. All offsets are absolute positions in `bytes`, which holds the whole record contiguously
 * (header included) from `start` to `start + totalLength`. A record decoded from a stored value has `start` 0 and `bytes`
 * is exactly the record; one from `WalStreamDecoder` lies in place in a larger buffer that is only borrowed: whoever keeps
 * the record takes `copyRecord(record)`.
 *
 * Source: PostgreSQL access/xlogrecord.h, access/xlogreader.c (DecodeXLogRecord).
 */
import { copyBytes } from "../../kit/copy.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { PgMajor } from "../versions/major.ts";

/** XLR_MAX_BLOCK_ID + 1. */
export const MAX_BLOCK_REFS = 33;

export type ImageCompression = "none" | "pglz" | "lz4" | "zstd";

export class BlockRef {
  inUse = false;
  spcOid = 0;
  dbOid = 0;
  relNumber = 0;
  /** 0 main, 1 fsm, 2 vm, 3 init */
  fork = 0;
  blockNumber = 0;
  /** REGBUF_WILL_INIT: redo starts from an empty page. */
  willInit = false;
  hasImage = false;
  /** BKPIMAGE_APPLY: the image is to be restored; false for images that only serve wal_consistency_checking. */
  applyImage = false;
  imageOffset = 0;
  imageLength = 0;
  holeOffset = 0;
  holeLength = 0;
  compression: ImageCompression = "none";
  hasData = false;
  dataOffset = 0;
  dataLength = 0;
}

export class WalRecord {
  version: PgMajor = 17;
  bytes: Uint8Array = new Uint8Array(0);
  /** Where the record's header begins in `bytes`. */
  start = 0;
  view: DataView = new DataView(new ArrayBuffer(0));
  /** Where the record starts in the log (LSN_INVALID when decoded from a stored value). */
  lsn: Lsn = 0;
  /** First byte after the record, 8-aligned: what redo stamps on the page (PageSetLSN). */
  endLsn: Lsn = 0;
  prevLsn: Lsn = 0;
  totalLength = 0;
  xid = 0;
  /** xl_info whole: the manager's bits are `info & 0xf0`. */
  info = 0;
  rmid = 0;
  /** Replication origin, 0 when absent. */
  origin = 0;
  /** Top-level xid logged with a subtransaction's first record, 0 when absent. */
  toplevelXid = 0;
  /** Heap records carry command ids: WAL of the peer's patched PostgreSQL 14 and 15, which its bytes do not tell. */
  heapCommandIds = false;
  mainDataOffset = 0;
  mainDataLength = 0;
  /** Highest block id in use + 1; ids below may be unused. */
  blockCount = 0;
  readonly blocks: BlockRef[] = Array.from({ length: MAX_BLOCK_REFS }, () => new BlockRef());
}

/** The record's own bytes, copied out of whatever buffer it lies in. */
export function copyRecord(record: WalRecord): Uint8Array {
  const copy = new Uint8Array(record.totalLength);
  copyBytes(record.bytes, record.start, copy, 0, record.totalLength);
  return copy;
}
