/**
 * What the key space holds, by first byte (all other fields zero where not named):
 *
 * | field1 | field2 | field3 | field4 | field5 | field6 | value |
 * | --- | --- | --- | --- | --- | --- | --- |
 * | 00 | 0 | 0 | 0 | 0 | 0 | directory of databases |
 * | 00 | spc | db | 0 | 0 | 0 | pg_filenode.map of the database |
 * | 00 | spc | db | 0 | 0 | 1 | directory of the database's relations |
 * | 00 | spc | db | rel | fork | block | relation page |
 * | 00 | spc | db | rel | fork | FFFFFFFF | relation size in blocks, u32 little-endian |
 * | 01 | kind | 0 | 0 | 0 | 0 | directory of the SLRU's segments |
 * | 01 | kind | 1 | segment | 0 | block | SLRU page |
 * | 01 | kind | 1 | segment | 0 | FFFFFFFF | SLRU segment size in blocks, u32 little-endian |
 * | 02 | 0 | 0 | 0 | 0 | 0 | directory of prepared transactions |
 * | 02 | 0 | 0 | xid bits 40–63 | xid bits 32–39 | xid bits 0–31 | two-phase state file |
 * | 03 | 0 | 0 | 0 | 0 | 0 / 1 / 2 | pg_control / latest checkpoint struct / aux files v1 |
 * | 62 | see aux-file.ts | | | | | auxiliary file (sparse, not inherited by branches) |
 * | 63 | 0 | 0 | 0 | 0 | origin id | replication origin progress, u64 big-endian (sparse, not inherited) |
 *
 * SLRU kinds: 0 pg_xact, 1 pg_multixact/members, 2 pg_multixact/offsets, and beyond the peer's three 3 pg_commit_ts, which
 * the peer does not keep. Its directory key may be missing: then there are no segments.
 *
 * Source: the peer's pageserver_api key module.
 */
import { StrataError } from "../kit/errors.ts";
import { type Key, type KeyRange, keyToHex } from "./key.ts";
import { FSM_FORK, INIT_FORK, type RelTag, SLRU_KINDS, type SlruKind, VM_FORK } from "./relation.ts";

const SIZE_BLOCK = 0xffffffff;
const SLRU_NUMBERS: Readonly<Record<SlruKind, number>> = { clog: 0, "multixact-members": 1, "multixact-offsets": 2, "commit-ts": 3 };

export const METADATA_KEY_BEGIN = 0x60;
export const METADATA_KEY_END = 0x7f;
export const RELATION_SIZE_PREFIX = 0x61;
export const AUX_KEY_PREFIX = 0x62;
export const REPL_ORIGIN_KEY_PREFIX = 0x63;

/** Positional parameters on purpose: six numbers in the order of the key's bytes. */
function key(field1: number, field2: number, field3: number, field4: number, field5: number, field6: number): Key {
  return { field1, field2, field3, field4, field5, field6 };
}

export const DB_DIRECTORY_KEY: Key = key(0, 0, 0, 0, 0, 0);
export const TWO_PHASE_DIRECTORY_KEY: Key = key(2, 0, 0, 0, 0, 0);
export const CONTROL_FILE_KEY: Key = key(3, 0, 0, 0, 0, 0);
export const CHECKPOINT_KEY: Key = key(3, 0, 0, 0, 0, 1);
export const AUX_FILES_V1_KEY: Key = key(3, 0, 0, 0, 0, 2);

export const AUX_FILE_RANGE: KeyRange = { start: key(AUX_KEY_PREFIX, 0, 0, 0, 0, 0), end: key(AUX_KEY_PREFIX + 1, 0, 0, 0, 0, 0) };
export const REPL_ORIGIN_RANGE: KeyRange = {
  start: key(REPL_ORIGIN_KEY_PREFIX, 0, 0, 0, 0, 0),
  end: key(REPL_ORIGIN_KEY_PREFIX, 0, 0, 0, 0, 0x10000),
};
/** Every sparse key: a missing one is no error. */
export const SPARSE_RANGE: KeyRange = { start: key(METADATA_KEY_BEGIN, 0, 0, 0, 0, 0), end: key(METADATA_KEY_END, 0, 0, 0, 0, 0) };

// --- relations

export function relmapFileKey(spcOid: number, dbOid: number): Key {
  return key(0, spcOid, dbOid, 0, 0, 0);
}

export function relDirectoryKey(spcOid: number, dbOid: number): Key {
  return key(0, spcOid, dbOid, 0, 0, 1);
}

/** All keys of one database in one tablespace. */
export function databaseRange(spcOid: number, dbOid: number): KeyRange {
  return { start: key(0, spcOid, dbOid, 0, 0, 0), end: key(0, spcOid, dbOid, 0xffffffff, 0xff, 0xffffffff) };
}

export function relBlockKey(rel: RelTag, block: number): Key {
  return key(0, rel.spcOid, rel.dbOid, rel.relNumber, rel.fork, block);
}

export function relSizeKey(rel: RelTag): Key {
  return key(0, rel.spcOid, rel.dbOid, rel.relNumber, rel.fork, SIZE_BLOCK);
}

export function relRange(rel: RelTag): KeyRange {
  return { start: key(0, rel.spcOid, rel.dbOid, rel.relNumber, rel.fork, 0), end: key(0, rel.spcOid, rel.dbOid, rel.relNumber, rel.fork + 1, 0) };
}

export function isRelBlockKey(k: Key): boolean {
  return k.field1 === 0 && k.field4 !== 0 && k.field6 !== SIZE_BLOCK;
}

export function isRelSizeKey(k: Key): boolean {
  return k.field1 === 0 && k.field4 !== 0 && k.field6 === SIZE_BLOCK;
}

export function isVmBlockKey(k: Key): boolean {
  return isRelBlockKey(k) && k.field5 === VM_FORK;
}

export function isFsmBlockKey(k: Key): boolean {
  return isRelBlockKey(k) && k.field5 === FSM_FORK;
}

export function isInitForkKey(k: Key): boolean {
  return isRelBlockKey(k) && k.field5 === INIT_FORK;
}

/** @throws StrataError corrupt `unexpected-key` when it is no relation page's key */
export function keyToRelBlock(k: Key): { rel: RelTag; block: number } {
  if (!isRelBlockKey(k)) throw unexpected(k, "a relation page");
  return { rel: { spcOid: k.field2, dbOid: k.field3, relNumber: k.field4, fork: k.field5 }, block: k.field6 };
}

// --- SLRUs

export function slruDirectoryKey(kind: SlruKind): Key {
  return key(1, SLRU_NUMBERS[kind], 0, 0, 0, 0);
}

export function slruBlockKey(kind: SlruKind, segment: number, block: number): Key {
  return key(1, SLRU_NUMBERS[kind], 1, segment, 0, block);
}

export function slruSegmentSizeKey(kind: SlruKind, segment: number): Key {
  return key(1, SLRU_NUMBERS[kind], 1, segment, 0, SIZE_BLOCK);
}

export function slruSegmentRange(kind: SlruKind, segment: number): KeyRange {
  return { start: key(1, SLRU_NUMBERS[kind], 1, segment, 0, 0), end: key(1, SLRU_NUMBERS[kind], 1, segment, 1, 0) };
}

export function isSlruBlockKey(k: Key): boolean {
  return k.field1 === 1 && k.field3 === 1 && k.field6 !== SIZE_BLOCK;
}

export function isSlruKey(k: Key): boolean {
  return k.field1 === 1;
}

/** @throws StrataError corrupt `unexpected-key` when it is no SLRU page's key */
export function keyToSlruBlock(k: Key): { kind: SlruKind; segment: number; block: number } {
  const kind = SLRU_KINDS[k.field2];
  if (!isSlruBlockKey(k) || kind === undefined) throw unexpected(k, "an SLRU page");
  return { kind, segment: k.field4, block: k.field6 };
}

// --- the rest

/** @param xid 64-bit on PostgreSQL 17 and later, 32-bit before */
export function twoPhaseFileKey(xid: bigint): Key {
  return key(2, 0, 0, Number(xid >> 40n), Number((xid >> 32n) & 0xffn), Number(xid & 0xffffffffn));
}

export function replOriginKey(originId: number): Key {
  return key(REPL_ORIGIN_KEY_PREFIX, 0, 0, 0, 0, originId);
}

/** Keys that may be missing, and are only found by scanning. */
export function isSparseKey(k: Key): boolean {
  return k.field1 >= METADATA_KEY_BEGIN && k.field1 < METADATA_KEY_END;
}

/** False for what a branch does not take from its ancestor: aux files (v1 and v2) and replication origins. */
export function isInheritedKey(k: Key): boolean {
  if (isSparseKey(k)) return k.field1 === RELATION_SIZE_PREFIX;
  return !(k.field1 === 3 && k.field2 === 0 && k.field3 === 0 && k.field4 === 0 && k.field5 === 0 && k.field6 === 2);
}

function unexpected(k: Key, wanted: string): StrataError {
  return new StrataError("corrupt", "unexpected-key", `key ${keyToHex(k)} is not that of ${wanted}`);
}
