/**
 * Decodes one WAL record that lies contiguously in memory.
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 4 | xl_tot_len: length of the whole record |
 * | 4 | 4 | xl_xid |
 * | 8 | 8 | xl_prev: LSN of the record before |
 * | 16 | 1 | xl_info |
 * | 17 | 1 | xl_rmid |
 * | 18 | 2 | zero |
 * | 20 | 4 | xl_crc: CRC-32C of bytes 24 to the end, then 0 to 20 |
 * | 24 | … | fragment headers: block references in ascending id, origin, top-level xid, main data last |
 * | | | the contents in the same order: for each block its image, then its data; then the main data |
 *
 * A block reference: u8 id, u8 fork and flags, u16 data length; with an image u16 length, u16 hole offset, u8 flags and, if
 * compressed with a hole, u16 hole length; unless "same relation" three u32 (tablespace, database, relation); u32 block.
 *
 * All little-endian and unaligned. Source: PostgreSQL access/xlogrecord.h, access/transam/xlogreader.c (DecodeXLogRecord,
 * ValidXLogRecord).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { PgMajor } from "../versions/major.ts";
import {
  BKPBLOCK_FORK_MASK,
  BKPBLOCK_HAS_DATA,
  BKPBLOCK_HAS_IMAGE,
  BKPBLOCK_SAME_REL,
  BKPBLOCK_WILL_INIT,
  BKPIMAGE_14_APPLY,
  BKPIMAGE_14_IS_COMPRESSED,
  BKPIMAGE_15_APPLY,
  BKPIMAGE_15_COMPRESS_LZ4,
  BKPIMAGE_15_COMPRESS_PGLZ,
  BKPIMAGE_15_COMPRESS_ZSTD,
  BKPIMAGE_HAS_HOLE,
  FORK_INIT,
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
  RMGR_MAX_BUILTIN,
  RMGR_MIN_CUSTOM,
  XLR_BLOCK_ID_DATA_LONG,
  XLR_BLOCK_ID_DATA_SHORT,
  XLR_BLOCK_ID_ORIGIN,
  XLR_BLOCK_ID_TOPLEVEL_XID,
  XLR_MAX_BLOCK_ID,
} from "./constants.ts";
import type { BlockRef, ImageCompression, WalRecord } from "./record.ts";

const U32 = 0x1_0000_0000;
/** High halves from here on are LSNs beyond 2^53. */
const LSN_HIGH_LIMIT = 0x20_0000;

export interface DecodeOptions {
  /** Where the record starts in the log; LSN_INVALID when not known. */
  readonly lsn?: Lsn;
  /** The first byte after it, 8-aligned. */
  readonly endLsn?: Lsn;
  /** False for records from a store that has its own checksum. Default true. */
  readonly checkCrc?: boolean;
}

/**
 * Decodes `bytes`, exactly one record, into `into`, which borrows `bytes`.
 *
 * @throws StrataError corrupt `wal-bad-crc`, `wal-bad-record`
 */
export function decodeRecord(bytes: Uint8Array, version: PgMajor, into: WalRecord, options?: DecodeOptions): void {
  if (into.bytes !== bytes) {
    into.bytes = bytes;
    into.view = dataViewOf(bytes);
  }
  into.version = version;
  into.start = 0;
  into.totalLength = bytes.length;
  into.lsn = options?.lsn ?? 0;
  into.endLsn = options?.endLsn ?? 0;
  decodeInPlace(into, options?.checkCrc ?? true);
}

/**
 * Decodes the record whose `bytes`, `view`, `start`, `totalLength`, `version`, `lsn` and `endLsn` the caller has set, with
 * `start + totalLength` inside `bytes`. Allocates nothing.
 *
 * @throws StrataError corrupt `wal-bad-crc`, `wal-bad-record`
 */
export function decodeInPlace(record: WalRecord, checkCrc: boolean): void {
  decodeRecordHeader(record);
  if (checkCrc) checkRecordCrc(record);
  decodeFragments(record);
}

/** Reads and checks the 24-byte header. @throws StrataError corrupt `wal-bad-record` */
export function decodeRecordHeader(record: WalRecord): void {
  const { view, start, totalLength } = record;
  if (totalLength < RECORD_HEADER_SIZE) throw badRecord(record, `length ${totalLength} is less than a header`);
  const statedLength = view.getInt32(start, true);
  if (statedLength !== totalLength) throw badRecord(record, `states length ${statedLength}, but has ${totalLength} bytes`);
  const prevHigh = view.getUint32(start + 12, true);
  if (prevHigh >= LSN_HIGH_LIMIT) throw badRecord(record, `previous-record link beyond the supported range`);
  record.xid = view.getUint32(start + 4, true);
  record.prevLsn = prevHigh * U32 + view.getUint32(start + 8, true);
  const infoAndRmid = view.getUint16(start + 16, true);
  const rmid = infoAndRmid >> 8;
  record.info = infoAndRmid & 0xff;
  record.rmid = rmid;
  if (rmid > RMGR_MAX_BUILTIN && (rmid < RMGR_MIN_CUSTOM || record.version < 15)) {
    throw badRecord(record, `unknown resource manager ${rmid}`);
  }
}

/** @throws StrataError corrupt `wal-bad-crc` */
function checkRecordCrc(record: WalRecord): void {
  const { bytes, start } = record;
  const computed = recordCrc(bytes, start, record.totalLength);
  const stored = record.view.getUint32(start + 20, true);
  if (computed === stored) return;
  throw new StrataError("corrupt", "wal-bad-crc", `WAL record at ${lsnToString(record.lsn)}: checksum ${hex(stored)} stored, ${hex(computed)} computed`, {
    details: { lsn: lsnToString(record.lsn), rmid: record.rmid, info: record.info, length: record.totalLength },
  });
}

/** CRC-32C as a record carries it: over its body, then over its header up to the CRC field. */
export function recordCrc(bytes: Uint8Array, start: number, totalLength: number): number {
  return crc32c(bytes, start, start + 20, crc32c(bytes, start + RECORD_HEADER_SIZE, start + totalLength));
}

/**
 * Reads what follows the header: block references, origin, top-level xid, main data, whose lengths add up to the record's end
 * exactly, and gives each its offset. This runs for every record there is, so all that is common is in this one function: a
 * helper it calls is a call each time (the engine takes in only the smallest), and costs more than what it does.
 */
export function decodeFragments(record: WalRecord): void {
  const { view, blocks } = record;
  const end = record.start + record.totalLength;
  let at = record.start + RECORD_HEADER_SIZE;
  let contentLength = 0;
  let blockCount = 0;
  record.origin = 0;
  record.toplevelXid = 0;
  record.mainDataLength = 0;
  while (end - at > contentLength) {
    const id = view.getUint8(at);
    if (id === XLR_BLOCK_ID_DATA_SHORT) {
      need(record, at, 2, end);
      const length = view.getUint8(at + 1);
      record.mainDataLength = length;
      contentLength += length;
      at += 2;
      break;
    }
    if (id > XLR_MAX_BLOCK_ID) {
      at = decodeRareFragment(record, at, end);
      contentLength += record.mainDataLength;
      if (id === XLR_BLOCK_ID_DATA_LONG) break;
      continue;
    }
    if (id !== blockCount) leaveOutBlocks(record, blockCount, id);
    need(record, at, 8, end);
    const word = view.getInt32(at, true);
    const flags = word >> 8;
    const fork = flags & BKPBLOCK_FORK_MASK;
    const dataLength = word >>> 16;
    const hasData = (flags & BKPBLOCK_HAS_DATA) !== 0;
    if (fork > FORK_INIT || hasData !== dataLength > 0) throw badBlock(record, word);
    const block = blocks[id];
    block.inUse = true;
    block.fork = fork;
    block.willInit = (flags & BKPBLOCK_WILL_INIT) !== 0;
    block.hasData = hasData;
    block.dataLength = dataLength;
    at += 4;
    if ((flags & BKPBLOCK_HAS_IMAGE) !== 0) at = decodeImageHeader(record, block, at);
    else if (block.hasImage) clearImage(block);
    if ((flags & BKPBLOCK_SAME_REL) === 0) {
      need(record, at, 16, end);
      block.spcOid = view.getUint32(at, true);
      block.dbOid = view.getUint32(at + 4, true);
      block.relNumber = view.getUint32(at + 8, true);
      at += 12;
    } else {
      need(record, at, 4, end);
      repeatRelation(record, block, blockCount);
    }
    block.blockNumber = view.getUint32(at, true);
    at += 4;
    contentLength += block.imageLength + dataLength;
    blockCount = id + 1;
  }
  if (end - at !== contentLength) throw badRecord(record, `${end - at} bytes of contents, but the headers promise ${contentLength}`);
  record.blockCount = blockCount;
  placeContents(record, at);
}

/** Long main data, origin or top-level xid; returns where its header ends. */
function decodeRareFragment(record: WalRecord, at: number, end: number): number {
  const { view } = record;
  const id = view.getUint8(at);
  if (id === XLR_BLOCK_ID_DATA_LONG) {
    need(record, at, 5, end);
    record.mainDataLength = view.getInt32(at + 1, true);
    if (record.mainDataLength < 0) throw badRecord(record, "main data of more than 2 GiB");
    return at + 5;
  }
  if (id === XLR_BLOCK_ID_ORIGIN) {
    need(record, at, 3, end);
    record.origin = view.getUint16(at + 1, true);
    return at + 3;
  }
  if (id !== XLR_BLOCK_ID_TOPLEVEL_XID) throw badRecord(record, `unknown fragment id ${id}`);
  need(record, at, 5, end);
  record.toplevelXid = view.getUint32(at + 1, true);
  return at + 5;
}

/** The ids from `next` to before `id` are not in use. */
function leaveOutBlocks(record: WalRecord, next: number, id: number): void {
  if (id < next) throw badRecord(record, `block id ${id} out of order`);
  for (let unused = next; unused < id; unused++) clearBlock(record.blocks[unused]);
}

/** `blockCount`: of the blocks before this one; the last of them is always in use. */
function repeatRelation(record: WalRecord, block: BlockRef, blockCount: number): void {
  if (blockCount === 0) throw badRecord(record, `the first block has the "same relation" as the one before`);
  const previous = record.blocks[blockCount - 1];
  block.spcOid = previous.spcOid;
  block.dbOid = previous.dbOid;
  block.relNumber = previous.relNumber;
}

/** Decodes an image header at `at`; returns where it ends. After it the hole lies inside the page and fits the length. */
function decodeImageHeader(record: WalRecord, block: BlockRef, at: number): number {
  const { view } = record;
  const end = record.start + record.totalLength;
  need(record, at, 5, end);
  const length = view.getUint16(at, true);
  const holeOffset = view.getUint16(at + 2, true);
  const flags = view.getUint8(at + 4);
  at += 5;
  const old = record.version === 14;
  const compression = old ? compressionOf14(flags) : compressionOf15(flags);
  const hasHole = (flags & BKPIMAGE_HAS_HOLE) !== 0;
  let holeLength = 0;
  if (compression === "none") {
    holeLength = PAGE_SIZE - length;
  } else if (hasHole) {
    need(record, at, 2, end);
    holeLength = view.getUint16(at, true);
    at += 2;
  }
  const holeFits = hasHole
    ? holeOffset > 0 && holeLength > 0 && holeOffset + holeLength <= PAGE_SIZE
    : holeOffset === 0 && holeLength === 0;
  if (!holeFits || length === 0 || length > PAGE_SIZE || (compression !== "none" && length === PAGE_SIZE)) {
    throw badRecord(record, `image of ${length} bytes (${compression}) with a hole of ${holeLength} at ${holeOffset}`);
  }
  block.hasImage = true;
  block.applyImage = (flags & (old ? BKPIMAGE_14_APPLY : BKPIMAGE_15_APPLY)) !== 0;
  block.imageLength = length;
  block.holeOffset = holeOffset;
  block.holeLength = holeLength;
  block.compression = compression;
  return at;
}

function compressionOf14(flags: number): ImageCompression {
  return (flags & BKPIMAGE_14_IS_COMPRESSED) !== 0 ? "pglz" : "none";
}

function compressionOf15(flags: number): ImageCompression {
  if ((flags & BKPIMAGE_15_COMPRESS_PGLZ) !== 0) return "pglz";
  if ((flags & BKPIMAGE_15_COMPRESS_LZ4) !== 0) return "lz4";
  if ((flags & BKPIMAGE_15_COMPRESS_ZSTD) !== 0) return "zstd";
  return "none";
}

/** Gives each fragment its offset; the sum of the lengths has been checked against the record's end. */
function placeContents(record: WalRecord, contents: number): void {
  let at = contents;
  for (let id = 0; id < record.blockCount; id++) {
    const block = record.blocks[id];
    if (!block.inUse) continue;
    block.imageOffset = at;
    at += block.imageLength;
    block.dataOffset = at;
    at += block.dataLength;
  }
  record.mainDataOffset = at;
}

function clearBlock(block: BlockRef): void {
  block.inUse = false;
  block.willInit = false;
  block.hasData = false;
  block.dataLength = 0;
  if (block.hasImage) clearImage(block);
}

function clearImage(block: BlockRef): void {
  block.hasImage = false;
  block.applyImage = false;
  block.imageLength = 0;
  block.holeOffset = 0;
  block.holeLength = 0;
  block.compression = "none";
}

function need(record: WalRecord, at: number, length: number, end: number): void {
  if (end - at < length) throw badRecord(record, `a fragment header ends beyond the record`);
}

function badBlock(record: WalRecord, word: number): StrataError {
  const fork = (word >> 8) & BKPBLOCK_FORK_MASK;
  const what = fork > FORK_INIT ? `unknown fork ${fork}` : `data flag disagrees with data length ${word >>> 16}`;
  return badRecord(record, `block ${word & 0xff}: ${what}`);
}

function badRecord(record: WalRecord, what: string): StrataError {
  const lsn = lsnToString(record.lsn);
  return new StrataError("corrupt", "wal-bad-record", `WAL record at ${lsn}: ${what}`, { details: { lsn, length: record.totalLength } });
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
