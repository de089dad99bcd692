/**
 * Transaction records: commit, abort, prepare and their effect on pg_xact, pg_commit_ts, pg_twophase and relation files.
 *
 * Main data of commit and abort: i64 time; u32 xinfo if the info bit says so; then, each if its xinfo bit is set, in this
 * order: database (u32 database, u32 tablespace), subtransactions (i32 n, n × u32), dropped relations (i32 n, n × 3 u32),
 * dropped statistics (i32 n, n × 12 bytes; 16 in 18), cache invalidations (i32 n, n × 16 bytes; commit only), two-phase xid
 * (u32), gid (C string), origin (u64 LSN, i64 time).
 *
 * Main data of prepare is the two-phase state file without its checksum: xl_xact_prepare, then, each padded to 8 bytes, gid,
 * subtransactions, relations dropped on commit, on abort, …
 *
 * Source: PostgreSQL access/xact.h, access/rmgrdesc/xactdesc.c (ParseCommitRecord, ParseAbortRecord, ParsePrepareRecord).
 */
import { type ByteReader, utf8ToString } from "../../kit/bytes.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RelationRef, badEffect, copyOf, mainDataReader, readArray, readCountedU32, readLsn, readRelation, readU32Array, unknownInfo } from "./reading.ts";

const OPMASK = 0x70;
const HAS_INFO = 0x80;
const COMMIT = 0x00;
const PREPARE = 0x10;
const ABORT = 0x20;
const COMMIT_PREPARED = 0x30;
const ABORT_PREPARED = 0x40;
const ASSIGNMENT = 0x50;
const INVALIDATIONS = 0x60;

const XINFO_DBINFO = 1 << 0;
const XINFO_SUBXACTS = 1 << 1;
const XINFO_RELATIONS = 1 << 2;
const XINFO_INVALIDATIONS = 1 << 3;
const XINFO_TWOPHASE = 1 << 4;
const XINFO_ORIGIN = 1 << 5;
const XINFO_GID = 1 << 7;
const XINFO_DROPPED_STATS = 1 << 8;
const XINFO_RELCACHE_INIT_FILE = 1 << 30;

const INVALIDATION_SIZE = 16;
/** i64, microseconds since 2000, little-endian: what commit and abort records begin with. */
export const XACT_TIME_SIZE = 8;

export interface XactOrigin {
  readonly originId: number;
  readonly originLsn: Lsn;
  readonly timestamp: bigint;
}

/** The end of a transaction. */
export interface XactFinish {
  readonly kind: "xact-commit" | "xact-abort";
  /** The transaction that ends: the record's own, or the prepared one. 0 when it never had an id. */
  readonly xid: number;
  /** COMMIT PREPARED or ROLLBACK PREPARED: the state file of `xid` goes away. */
  readonly prepared: boolean;
  /** Microseconds since 2000. */
  readonly time: bigint;
  readonly subxids: readonly number[];
  /** All forks of each are gone. */
  readonly droppedRelations: readonly RelationRef[];
  /** The database's relation cache file must go. */
  readonly dropsRelcacheInitFile: boolean;
  readonly dbOid: number;
  readonly spcOid: number;
  readonly gid: string | null;
  readonly origin: XactOrigin | null;
}

export interface XactPrepare {
  readonly kind: "xact-prepare";
  readonly xid: number;
  readonly dbOid: number;
  readonly gid: string;
  readonly subxids: readonly number[];
  /** Contents of the two-phase state file without its trailing CRC-32C; the caller's own copy. */
  readonly state: Uint8Array;
}

export interface XactAssignment {
  readonly kind: "xact-assignment";
  readonly topXid: number;
  readonly subxids: readonly number[];
}

export type XactEffect = XactFinish | XactPrepare | XactAssignment;

/** Null for invalidations, which have no effect on storage. @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeXactRecord(record: WalRecord): XactEffect | null {
  switch (record.info & OPMASK) {
    case COMMIT:
    case ABORT:
      return decodeFinish(record, false);
    case COMMIT_PREPARED:
    case ABORT_PREPARED:
      return decodeFinish(record, true);
    case PREPARE:
      return decodePrepare(record);
    case ASSIGNMENT:
      return decodeAssignment(record);
    case INVALIDATIONS:
      return null;
    default:
      throw unknownInfo(record);
  }
}

/**
 * Whether the record is the end of a transaction and its time is all it says: what `decodeXactRecord` would give for it then is known
 * without reading on. The common case by far.
 */
export function plainXactEnd(record: WalRecord): "xact-commit" | "xact-abort" | null {
  if ((record.info & HAS_INFO) !== 0 || record.mainDataLength < XACT_TIME_SIZE) return null;
  const op = record.info & OPMASK;
  if (op === COMMIT) return "xact-commit";
  return op === ABORT ? "xact-abort" : null;
}

function decodeFinish(record: WalRecord, prepared: boolean): XactFinish {
  const op = record.info & OPMASK;
  const commit = op === COMMIT || op === COMMIT_PREPARED;
  const reader = mainDataReader(record, commit ? "commit record" : "abort record");
  const time = reader.i64le();
  const xinfo = (record.info & HAS_INFO) !== 0 ? reader.u32le() : 0;
  const dbOid = (xinfo & XINFO_DBINFO) !== 0 ? reader.u32le() : 0;
  const spcOid = (xinfo & XINFO_DBINFO) !== 0 ? reader.u32le() : 0;
  const subxids = (xinfo & XINFO_SUBXACTS) !== 0 ? readCountedU32(reader) : [];
  const droppedRelations = (xinfo & XINFO_RELATIONS) !== 0 ? readRelations(reader, reader.i32le()) : [];
  if (record.version >= 15 && (xinfo & XINFO_DROPPED_STATS) !== 0) reader.skip(reader.i32le() * statsItemSize(record));
  if (commit && (xinfo & XINFO_INVALIDATIONS) !== 0) reader.skip(reader.i32le() * INVALIDATION_SIZE);
  const hasTwophase = (xinfo & XINFO_TWOPHASE) !== 0;
  if (prepared && !hasTwophase) throw badEffect(record, "end of a prepared transaction without its id");
  const twophaseXid = hasTwophase ? reader.u32le() : 0;
  const gid = hasTwophase && (xinfo & XINFO_GID) !== 0 ? reader.cstring() : null;
  const origin = (xinfo & XINFO_ORIGIN) !== 0 ? { originId: record.origin, originLsn: readLsn(reader, record), timestamp: reader.i64le() } : null;
  return {
    kind: commit ? "xact-commit" : "xact-abort",
    xid: prepared ? twophaseXid : record.xid,
    prepared,
    time,
    subxids,
    droppedRelations,
    dropsRelcacheInitFile: (xinfo & XINFO_RELCACHE_INIT_FILE) !== 0,
    dbOid,
    spcOid,
    gid,
    origin,
  };
}

function decodePrepare(record: WalRecord): XactPrepare {
  const reader = mainDataReader(record, "prepare record");
  reader.skip(8);
  const xid = reader.u32le();
  const dbOid = reader.u32le();
  reader.skip(12);
  const subxactCount = reader.i32le();
  // Counts of relations (2), statistics (2, from 15 on) and invalidations, then a flag.
  reader.skip(record.version >= 15 ? 20 + 2 : 12 + 2);
  const gidLength = reader.u16le();
  reader.skip(16);
  const gidBytes = reader.bytes(gidLength);
  if (gidLength === 0 || gidBytes[gidLength - 1] !== 0) throw badEffect(record, "gid without an end");
  const padding = (8 - (gidLength % 8)) % 8;
  reader.skip(Math.min(padding, reader.remaining));
  const subxids = readU32Array(reader, subxactCount);
  return { kind: "xact-prepare", xid, dbOid, gid: utf8ToString(gidBytes.subarray(0, gidLength - 1)), subxids, state: copyOf(reader.data) };
}

function decodeAssignment(record: WalRecord): XactAssignment {
  const reader = mainDataReader(record, "assignment record");
  return { kind: "xact-assignment", topXid: reader.u32le(), subxids: readCountedU32(reader) };
}

function readRelations(reader: ByteReader, count: number): RelationRef[] {
  return readArray(reader, { count, itemSize: 12, read: readRelation });
}

/** xl_xact_stats_item; 18 widened the object id to 64 bits. */
function statsItemSize(record: WalRecord): number {
  return record.version >= 18 ? 16 : 12;
}
