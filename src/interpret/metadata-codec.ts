/**
 * The effect of a WAL record in an interpreted record: the peer's MetadataRecord, bincode: big-endian, integers of fixed
 * width, u32 for an enum's variant, u64 for lengths, u8 for options.
 *
 * | variant | content |
 * | --- | --- |
 * | 0 heap · 0 clear VM bits | option u32 new block · option u32 old block · relation tag of the map · u8 flags |
 * | 2 smgr · 0 create | relation tag |
 * | 2 smgr · 1 truncate | u32 blocks · relation · u32 flags |
 * | 3 dbase · 0 create | u32 db · u32 tablespace · u32 source db · u32 source tablespace |
 * | 3 dbase · 1 drop | u32 db · u64 n · n × u32 tablespace |
 * | 4 clog · 0 zero page | u32 segment · u32 page in it |
 * | 4 clog · 1 truncate | u32 page · u32 oldest xid · u32 its database |
 * | 5 xact · 0 commit, 1 abort, 2, 3 the same of prepared ones | u32 xid · u8 info · i64 time · u32 xinfo · u32 db · u32 tablespace · u64 n · n × u32 subxid · u64 n · n × relation · u64 origin LSN · u16 origin · u32 record's xid · u64 LSN |
 * | 5 xact · 4 prepare | u32 xid · u64 n · state |
 * | 6 multixact · 0 zero page | u32 kind (1 members, 2 offsets) · u32 segment · u32 page in it |
 * | 6 multixact · 1 create | u32 id · u32 offset · u32 n · u64 n · n × (u32 xid · u32 status) |
 * | 6 multixact · 2 truncate | u32 db · u32 from id · u32 to id · u32 from member · u32 to member |
 * | 7 relmap · 0 update | u32 db · u32 tablespace · i32 n · u64 n · map |
 * | 8 xlog · 0 raw | u8 info · u64 LSN · u64 n · main data |
 * | 9 logical message · 0 put | u64 n · path · u64 n · content |
 * | 10 standby · 0 running xacts | u32 oldest running xid |
 * | 11 origin · 0 set, 1 drop | u64 remote LSN · u16 id / u16 id |
 * | 1024 record (ours) | u64 n · the WAL record whole, where the peer has no words for its effect |
 *
 * A relation tag is u8 fork · u32 tablespace · u32 db · u32 relation; a relation is one without its fork.
 * Source: the peer libs/wal_decoder/src/models.rs, libs/postgres_ffi/src/walrecord.rs, libs/pageserver_api/src/reltag.rs.
 */
import { ByteReader, ByteWriter, utf8, utf8ToString } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Lsn } from "../kit/lsn.ts";
import { SLRU_SEGMENT_BLOCKS, VM_FORK } from "../keyspace/relation.ts";
import { decodeEffect, type WalEffect } from "../postgres/effects/effect.ts";
import type { RelationRef } from "../postgres/effects/reading.ts";
import type { XactFinish } from "../postgres/effects/xact.ts";
import type { PgMajor } from "../postgres/versions/major.ts";
import { RMGR } from "../postgres/wal/constants.ts";
import { decodeRecord } from "../postgres/wal/decode-record.ts";
import { encodeRecord } from "../postgres/wal/encode-record.ts";
import { WalRecord } from "../postgres/wal/record.ts";

const HEAP = 0;
const SMGR = 2;
const DBASE = 3;
const CLOG = 4;
const XACT = 5;
const MULTIXACT = 6;
const RELMAP = 7;
const XLOG = 8;
const LOGICAL_MESSAGE = 9;
const STANDBY = 10;
const ORIGIN = 11;
const WHOLE_RECORD = 1024;
const SLRU_MEMBERS = 1;
const SLRU_OFFSETS = 2;
const TRUNCATE_HEAP = 1;
const TRUNCATE_VISIBILITY_MAP = 2;
const TRUNCATE_FSM = 4;

/** What storage has no use for, or finds in the record's blocks. */
const WITHOUT_EFFECT: ReadonlySet<WalEffect["kind"]> = new Set(["full-page-images", "logical-message", "standby-locks", "xact-assignment", "switch"]);

/**
 * Null when there is nothing to say.
 * @param effect of `record`, as far as it concerns the receiving shard
 * @param options.extended the receiver is one of ours: what the peer has no words for is sent all the same
 */
export function encodeMetadata(record: WalRecord, effect: WalEffect | null, options: { readonly extended: boolean }): Uint8Array | null {
  if (effect === null || WITHOUT_EFFECT.has(effect.kind)) return null;
  const writer = new ByteWriter(64);
  if (writeEffect(writer, record, effect)) return writer.finish();
  if (!options.extended) return null;
  return new ByteWriter(record.totalLength + 12).u32be(WHOLE_RECORD).u64be(BigInt(record.totalLength)).bytes(wholeRecord(record)).finish();
}

export function wholeRecord(record: WalRecord): Uint8Array {
  return record.bytes.subarray(record.start, record.start + record.totalLength);
}

/** False, with nothing written, when the peer's form cannot say it. */
function writeEffect(w: ByteWriter, record: WalRecord, effect: WalEffect): boolean {
  if (record.rmid === RMGR.XLOG) {
    const data = record.bytes.subarray(record.mainDataOffset, record.mainDataOffset + record.mainDataLength);
    writeBlob(w.u32be(XLOG).u32be(0).u8(record.info & 0xf0).lsnBe(record.endLsn), data);
    return true;
  }
  switch (effect.kind) {
    case "xact-commit":
    case "xact-abort":
      return writeFinish(w, record, effect);
    case "xact-prepare":
      writeBlob(w.u32be(XACT).u32be(4).u32be(effect.xid), effect.state);
      return true;
    case "clog-zero-page":
    case "clog-truncate":
    case "multixact-zero-offsets-page":
    case "multixact-zero-members-page":
    case "multixact-create":
    case "multixact-truncate":
      writeSlruEffect(w, effect);
      return true;
    default:
      return writeOther(w, effect);
  }
}

function writeOther(w: ByteWriter, effect: WalEffect): boolean {
  switch (effect.kind) {
    case "clear-visibility-map":
      w.u32be(HEAP).u32be(0);
      writeOptionU32(w, effect.newHeapBlock);
      writeOptionU32(w, effect.oldHeapBlock);
      writeRelation(w.u8(VM_FORK), effect.relation);
      w.u8(effect.flags);
      return true;
    case "smgr-create":
      writeRelation(w.u32be(SMGR).u32be(0).u8(effect.fork), effect.relation);
      return true;
    case "smgr-truncate":
      writeRelation(w.u32be(SMGR).u32be(1).u32be(effect.blocks), effect.relation);
      w.u32be((effect.main ? TRUNCATE_HEAP : 0) | (effect.visibilityMap ? TRUNCATE_VISIBILITY_MAP : 0) | (effect.fsm ? TRUNCATE_FSM : 0));
      return true;
    case "dbase-create-copy":
      w.u32be(DBASE).u32be(0).u32be(effect.dbOid).u32be(effect.spcOid).u32be(effect.sourceDbOid).u32be(effect.sourceSpcOid);
      return true;
    case "dbase-drop":
      writeU32s(w.u32be(DBASE).u32be(1).u32be(effect.dbOid), effect.spcOids);
      return true;
    case "relmap-update":
      writeBlob(w.u32be(RELMAP).u32be(0).u32be(effect.dbOid).u32be(effect.spcOid).i32be(effect.map.length), effect.map);
      return true;
    case "aux-file":
      writeBlob(w.u32be(LOGICAL_MESSAGE).u32be(0), utf8(effect.path));
      writeBlob(w, effect.content);
      return true;
    case "running-xacts":
      w.u32be(STANDBY).u32be(0).u32be(effect.oldestRunningXid);
      return true;
    case "replorigin-drop":
      w.u32be(ORIGIN).u32be(1).u16be(effect.originId);
      return true;
    case "replorigin-set":
      if (!effect.force) return false;
      w.u32be(ORIGIN).u32be(0).lsnBe(effect.remoteLsn).u16be(effect.originId);
      return true;
    default:
      return false;
  }
}

type SlruEffect = Extract<WalEffect, { kind: `clog-${string}` | `multixact-${string}` }>;

function writeSlruEffect(w: ByteWriter, effect: SlruEffect): void {
  const place = (page: number): void => void w.u32be(Math.floor(page / SLRU_SEGMENT_BLOCKS)).u32be(page % SLRU_SEGMENT_BLOCKS);
  switch (effect.kind) {
    case "clog-zero-page":
      w.u32be(CLOG).u32be(0);
      return place(effect.page);
    case "clog-truncate":
      w.u32be(CLOG).u32be(1).u32be(effect.page).u32be(effect.oldestXid).u32be(effect.oldestXidDb);
      return;
    case "multixact-zero-offsets-page":
    case "multixact-zero-members-page":
      w.u32be(MULTIXACT).u32be(0).u32be(effect.kind === "multixact-zero-members-page" ? SLRU_MEMBERS : SLRU_OFFSETS);
      return place(effect.page);
    case "multixact-create":
      w.u32be(MULTIXACT).u32be(1).u32be(effect.multiXid).u32be(effect.memberOffset).u32be(effect.members.length).u64be(BigInt(effect.members.length));
      for (const member of effect.members) w.u32be(member.xid).u32be(member.status);
      return;
    case "multixact-truncate":
      w.u32be(MULTIXACT).u32be(2).u32be(effect.oldestMultiDb).u32be(effect.startMulti).u32be(effect.endMulti).u32be(effect.startMember).u32be(effect.endMember);
  }
}

function writeFinish(w: ByteWriter, record: WalRecord, effect: XactFinish): boolean {
  // The time at the origin has no field.
  if (effect.origin !== null) return false;
  w.u32be(XACT).u32be((effect.kind === "xact-commit" ? 0 : 1) + (effect.prepared ? 2 : 0));
  w.u32be(effect.xid).u8(record.info & 0x70).i64be(effect.time).u32be(0).u32be(effect.dbOid).u32be(effect.spcOid);
  writeU32s(w, effect.subxids);
  w.u64be(BigInt(effect.droppedRelations.length));
  for (const relation of effect.droppedRelations) writeRelation(w, relation);
  w.u64be(0n).u16be(0).u32be(record.xid).lsnBe(record.endLsn);
  return true;
}

function writeRelation(w: ByteWriter, relation: RelationRef): void {
  w.u32be(relation.spcOid).u32be(relation.dbOid).u32be(relation.relNumber);
}

function writeOptionU32(w: ByteWriter, value: number | null): void {
  w.u8(value === null ? 0 : 1);
  if (value !== null) w.u32be(value);
}

function writeU32s(w: ByteWriter, values: readonly number[]): void {
  w.u64be(BigInt(values.length));
  for (const value of values) w.u32be(value);
}

function writeBlob(w: ByteWriter, bytes: Uint8Array): void {
  w.u64be(BigInt(bytes.length)).bytes(bytes);
}

/** Nothing in the result borrows `bytes`. @throws StrataError corrupt `bad-metadata-record`, `truncated`, and from the decoders of records */
export function decodeMetadata(bytes: Uint8Array, version: PgMajor): WalEffect | null {
  const r = new ByteReader(bytes, "metadata record");
  const variant = r.u32be();
  if (variant === WHOLE_RECORD) return effectOfRecord(r.bytes(readLength(r, 1)).slice(), version);
  const effect = readEffect(r, variant * 16 + checkedSub(r.u32be()), version);
  if (r.remaining !== 0) throw bad(`${r.remaining} bytes after its end`);
  return effect;
}

function checkedSub(sub: number): number {
  if (sub > 15) throw bad(`unknown variant ${sub}`);
  return sub;
}

function effectOfRecord(bytes: Uint8Array, version: PgMajor): WalEffect | null {
  const record = new WalRecord();
  // Ours has no checksum, and what came over the network is guarded by that of the stream.
  decodeRecord(bytes, version, record, { checkCrc: false });
  return decodeEffect(record);
}

function readEffect(r: ByteReader, variant: number, version: PgMajor): WalEffect | null {
  switch (variant) {
    case HEAP * 16: {
      const [newHeapBlock, oldHeapBlock] = [readOptionU32(r), readOptionU32(r)];
      r.u8();
      return { kind: "clear-visibility-map", newHeapBlock, oldHeapBlock, relation: readRelation(r), flags: r.u8() };
    }
    case SMGR * 16: {
      const fork = r.u8();
      return { kind: "smgr-create", fork, relation: readRelation(r) };
    }
    case SMGR * 16 + 1: {
      const blocks = r.u32be();
      const relation = readRelation(r);
      const flags = r.u32be();
      return { kind: "smgr-truncate", blocks, relation, main: (flags & TRUNCATE_HEAP) !== 0, visibilityMap: (flags & TRUNCATE_VISIBILITY_MAP) !== 0, fsm: (flags & TRUNCATE_FSM) !== 0 };
    }
    case DBASE * 16:
      return { kind: "dbase-create-copy", dbOid: r.u32be(), spcOid: r.u32be(), sourceDbOid: r.u32be(), sourceSpcOid: r.u32be() };
    case DBASE * 16 + 1:
      return { kind: "dbase-drop", dbOid: r.u32be(), spcOids: readU32s(r) };
    case XLOG * 16:
      return readXlog(r, version);
    case LOGICAL_MESSAGE * 16: {
      const path = utf8ToString(r.bytes(readLength(r, 1)));
      return { kind: "aux-file", path, content: r.bytes(readLength(r, 1)).slice() };
    }
    case STANDBY * 16:
      return { kind: "running-xacts", subxidOverflow: false, nextXid: 0, oldestRunningXid: r.u32be(), latestCompletedXid: 0, xids: [], subxids: [] };
    case ORIGIN * 16:
      return { kind: "replorigin-set", remoteLsn: r.lsnBe(), originId: r.u16be(), force: true };
    case ORIGIN * 16 + 1:
      return { kind: "replorigin-drop", originId: r.u16be() };
    default:
      return readTransactionEffect(r, variant);
  }
}

function readTransactionEffect(r: ByteReader, variant: number): WalEffect {
  switch (variant) {
    case XACT * 16:
    case XACT * 16 + 1:
    case XACT * 16 + 2:
    case XACT * 16 + 3:
      return readFinish(r, variant % 16);
    case XACT * 16 + 4:
      return { kind: "xact-prepare", xid: r.u32be(), dbOid: 0, gid: "", subxids: [], state: r.bytes(readLength(r, 1)).slice() };
    case CLOG * 16:
      return { kind: "clog-zero-page", page: readSlruPage(r) };
    case CLOG * 16 + 1:
      return { kind: "clog-truncate", page: r.u32be(), oldestXid: r.u32be(), oldestXidDb: r.u32be() };
    case MULTIXACT * 16: {
      const kind = r.u32be();
      if (kind !== SLRU_MEMBERS && kind !== SLRU_OFFSETS) throw bad(`zero page of SLRU ${kind}`);
      return { kind: kind === SLRU_MEMBERS ? "multixact-zero-members-page" : "multixact-zero-offsets-page", page: readSlruPage(r) };
    }
    case MULTIXACT * 16 + 1: {
      const [multiXid, memberOffset] = [r.u32be(), r.u32be()];
      r.u32be();
      return { kind: "multixact-create", multiXid, memberOffset, members: Array.from({ length: readLength(r, 8) }, () => ({ xid: r.u32be(), status: r.u32be() })) };
    }
    case MULTIXACT * 16 + 2:
      return { kind: "multixact-truncate", oldestMultiDb: r.u32be(), startMulti: r.u32be(), endMulti: r.u32be(), startMember: r.u32be(), endMember: r.u32be() };
    case RELMAP * 16: {
      const [dbOid, spcOid] = [r.u32be(), r.u32be()];
      r.skip(4);
      return { kind: "relmap-update", dbOid, spcOid, map: r.bytes(readLength(r, 1)).slice() };
    }
    default:
      throw bad(`unknown variant ${Math.floor(variant / 16)}, ${variant % 16}`);
  }
}

function readFinish(r: ByteReader, sub: number): XactFinish {
  const xid = r.u32be();
  r.skip(1);
  const time = r.i64be();
  r.skip(4);
  const [dbOid, spcOid] = [r.u32be(), r.u32be()];
  const subxids = readU32s(r);
  const droppedRelations = Array.from({ length: readLength(r, 12) }, () => readRelation(r));
  const originLsn: Lsn = r.lsnBe();
  const originId = r.u16be();
  r.skip(12);
  // Without the time at the origin the commit's own is the nearest there is.
  const origin = originId === 0 ? null : { originId, originLsn, timestamp: time };
  return { kind: sub % 2 === 0 ? "xact-commit" : "xact-abort", xid, prepared: sub >= 2, time, subxids, droppedRelations, dropsRelcacheInitFile: false, dbOid, spcOid, gid: null, origin };
}

/** As the record it was: its effects depend on the version. */
function readXlog(r: ByteReader, version: PgMajor): WalEffect | null {
  const info = r.u8();
  r.skip(8);
  return effectOfRecord(encodeRecord({ version, rmid: RMGR.XLOG, info, mainData: r.bytes(readLength(r, 1)) }), version);
}

function readSlruPage(r: ByteReader): number {
  return r.u32be() * SLRU_SEGMENT_BLOCKS + r.u32be();
}

function readRelation(r: ByteReader): RelationRef {
  return { spcOid: r.u32be(), dbOid: r.u32be(), relNumber: r.u32be() };
}

function readOptionU32(r: ByteReader): number | null {
  const flag = r.u8();
  if (flag > 1) throw bad(`option byte ${flag}`);
  return flag === 1 ? r.u32be() : null;
}

function readU32s(r: ByteReader): number[] {
  return Array.from({ length: readLength(r, 4) }, () => r.u32be());
}

function readLength(r: ByteReader, itemSize: number): number {
  const length = r.u64be();
  if (length * BigInt(itemSize) > BigInt(r.remaining)) throw bad(`${length} items of ${itemSize} bytes, with ${r.remaining} bytes left`);
  return Number(length);
}

function bad(what: string): StrataError {
  return new StrataError("corrupt", "bad-metadata-record", `metadata record: ${what}`);
}
