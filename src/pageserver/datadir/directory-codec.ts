/**
 * The directory values of the key space: which databases, relations, SLRU segments and prepared transactions exist.
 * Bincode, big-endian, fixed width; the peer writes its sets in any order, we write them sorted.
 *
 * | value | bytes |
 * | --- | --- |
 * | databases | u64 n · n × (u32 tablespace · u32 database · u8 has pg_filenode.map and PG_VERSION) |
 * | relations of a database | u64 n · n × (u32 relation number · u8 fork) |
 * | SLRU segments | u64 n · n × u32 segment |
 * | prepared transactions, to 16 | u64 n · n × u32 xid |
 * | prepared transactions, from 17 | u64 n · n × u64 full xid |
 *
 * A tablespace itself is an entry of the database 0, which has no relations; the peer passes over such entries.
 *
 * Source: the peer's pageserver pgdatadir_mapping module.
 */
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";

export interface DatabaseEntry {
  readonly spcOid: number;
  readonly dbOid: number;
  /** Whether the database has a relation map and a version file; false for a mere tablespace directory. */
  readonly hasRelmap: boolean;
}

/** Databases by `databaseId`. */
export type DbDirectory = Map<string, DatabaseEntry>;

/** Relation number → bits of the forks that exist (1 << fork). */
export type RelDirectory = Map<number, number>;

export function databaseId(spcOid: number, dbOid: number): string {
  return `${spcOid}/${dbOid}`;
}

function readCount(reader: ByteReader, itemSize: number): number {
  const count = reader.u64be();
  if (count * BigInt(itemSize) !== BigInt(reader.remaining)) {
    throw new StrataError("corrupt", "bad-directory", `directory of ${count} entries of ${itemSize} bytes has ${reader.remaining} bytes`);
  }
  return Number(count);
}

export function encodeDbDirectory(directory: DbDirectory): Uint8Array {
  const entries = [...directory.values()].sort((a, b) => a.spcOid - b.spcOid || a.dbOid - b.dbOid);
  const writer = new ByteWriter(8 + entries.length * 9).u64be(BigInt(entries.length));
  for (const entry of entries) writer.u32be(entry.spcOid).u32be(entry.dbOid).u8(entry.hasRelmap ? 1 : 0);
  return writer.finish();
}

/** @throws StrataError corrupt `bad-directory` or `truncated` */
export function decodeDbDirectory(bytes: Uint8Array): DbDirectory {
  const reader = new ByteReader(bytes, "directory of databases");
  const directory: DbDirectory = new Map();
  for (let left = readCount(reader, 9); left > 0; left--) {
    const entry = { spcOid: reader.u32be(), dbOid: reader.u32be(), hasRelmap: reader.u8() !== 0 };
    directory.set(databaseId(entry.spcOid, entry.dbOid), entry);
  }
  return directory;
}

export function encodeRelDirectory(directory: RelDirectory): Uint8Array {
  const relNumbers = [...directory.keys()].sort((a, b) => a - b);
  const writer = new ByteWriter(8 + relNumbers.length * 15).u64be(0n);
  let count = 0;
  for (const relNumber of relNumbers) {
    const forks = directory.get(relNumber) ?? 0;
    for (let fork = 0; fork < 8; fork++) {
      if ((forks & (1 << fork)) === 0) continue;
      writer.u32be(relNumber).u8(fork);
      count++;
    }
  }
  writer.patchU32be(4, count);
  return writer.finish();
}

/** @throws StrataError corrupt `bad-directory` or `truncated` */
export function decodeRelDirectory(bytes: Uint8Array): RelDirectory {
  const reader = new ByteReader(bytes, "directory of relations");
  const directory: RelDirectory = new Map();
  for (let left = readCount(reader, 5); left > 0; left--) {
    const relNumber = reader.u32be();
    const fork = reader.u8();
    if (fork > 7) throw new StrataError("corrupt", "bad-directory", `relation ${relNumber} has a fork number ${fork}`);
    directory.set(relNumber, (directory.get(relNumber) ?? 0) | (1 << fork));
  }
  return directory;
}

export function encodeSegmentDirectory(segments: ReadonlySet<number>): Uint8Array {
  const sorted = [...segments].sort((a, b) => a - b);
  const writer = new ByteWriter(8 + sorted.length * 4).u64be(BigInt(sorted.length));
  for (const segment of sorted) writer.u32be(segment);
  return writer.finish();
}

/** @throws StrataError corrupt `bad-directory` or `truncated` */
export function decodeSegmentDirectory(bytes: Uint8Array): Set<number> {
  const reader = new ByteReader(bytes, "directory of SLRU segments");
  return new Set(Array.from({ length: readCount(reader, 4) }, () => reader.u32be()));
}

export function encodeTwoPhaseDirectory(xids: ReadonlySet<bigint>, version: PgMajor): Uint8Array {
  const sorted = [...xids].sort((a, b) => (a < b ? -1 : 1));
  const writer = new ByteWriter(8 + sorted.length * 8).u64be(BigInt(sorted.length));
  for (const xid of sorted) {
    if (version >= 17) writer.u64be(xid);
    else writer.u32be(Number(xid & 0xffffffffn));
  }
  return writer.finish();
}

/** @throws StrataError corrupt `bad-directory` or `truncated` */
export function decodeTwoPhaseDirectory(bytes: Uint8Array, version: PgMajor): Set<bigint> {
  const reader = new ByteReader(bytes, "directory of prepared transactions");
  if (version >= 17) return new Set(Array.from({ length: readCount(reader, 8) }, () => reader.u64be()));
  return new Set(Array.from({ length: readCount(reader, 4) }, () => BigInt(reader.u32be())));
}

export function encodeBlockCount(blocks: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, blocks, true);
  return bytes;
}

/** @throws StrataError corrupt `truncated` */
export function decodeBlockCount(bytes: Uint8Array): number {
  return new ByteReader(bytes, "size in blocks").u32le();
}
