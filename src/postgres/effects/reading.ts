/** What the effect decoders share: a bounds-checked reader over a record's main data. */
import { ByteReader } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { WalRecord } from "../wal/record.ts";

/** A relation's files; which fork is said elsewhere. */
export interface RelationRef {
  readonly spcOid: number;
  readonly dbOid: number;
  readonly relNumber: number;
}

export function mainDataReader(record: WalRecord, what: string): ByteReader {
  return new ByteReader(record.bytes.subarray(record.mainDataOffset, record.mainDataOffset + record.mainDataLength), what);
}

export function readRelation(reader: ByteReader): RelationRef {
  return { spcOid: reader.u32le(), dbOid: reader.u32le(), relNumber: reader.u32le() };
}

/** A signed count, then that many u32. @throws StrataError corrupt `truncated` before anything is allocated */
export function readCountedU32(reader: ByteReader): number[] {
  return readU32Array(reader, reader.i32le());
}

export function readU32Array(reader: ByteReader, count: number): number[] {
  return readArray(reader, { count, itemSize: 4, read: (items) => items.u32le() });
}

/** Reads `count` items of `itemSize` bytes; the whole length is checked first. */
export function readArray<T>(reader: ByteReader, items: { count: number; itemSize: number; read: (reader: ByteReader) => T }): T[] {
  const part = new ByteReader(reader.bytes(items.count * items.itemSize), "array");
  const result: T[] = [];
  for (let index = 0; index < items.count; index++) {
    part.offset = index * items.itemSize;
    result.push(items.read(part));
  }
  return result;
}

/** An SLRU page number: 32 bits before PostgreSQL 17, 64 after. @throws StrataError corrupt `wal-bad-effect` */
export function readSlruPage(reader: ByteReader, record: WalRecord): number {
  const page = record.version >= 17 ? Number(reader.i64le()) : reader.i32le();
  if (page < 0 || page > 0xffff_ffff) throw badEffect(record, `SLRU page ${page}`);
  return page;
}

/** An LSN field; u64::MAX and what is beyond 2^53 are damage here. */
export function readLsn(reader: ByteReader, record: WalRecord): Lsn {
  const value = reader.u64le();
  if (value >= 1n << 53n) throw badEffect(record, `LSN ${value.toString(16)}`);
  return Number(value);
}

export function badEffect(record: WalRecord, what: string): StrataError {
  const lsn = lsnToString(record.lsn);
  const info = record.info.toString(16);
  return new StrataError("corrupt", "wal-bad-effect", `WAL record at ${lsn}, manager ${record.rmid}, info ${info}: ${what}`, {
    details: { lsn, rmid: record.rmid, info: record.info },
  });
}

/** The error for a record kind this version of the manager does not have. */
export function unknownInfo(record: WalRecord): StrataError {
  const lsn = lsnToString(record.lsn);
  const message = `WAL record at ${lsn}: manager ${record.rmid} of PostgreSQL ${record.version} has no record kind ${record.info.toString(16)}`;
  return new StrataError("corrupt", "wal-unknown-record", message, { details: { lsn, rmid: record.rmid, info: record.info } });
}

/** A copy that shares nothing with the record (unlike `slice` of a Buffer, which does). */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}
