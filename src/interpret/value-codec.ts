/**
 * The byte form of `Value` in layer files: bincode, big-endian, integers of fixed width.
 *
 * | form | bytes |
 * | --- | --- |
 * | image | u32 0 · u64 length · bytes |
 * | PostgreSQL record | u32 1 · u32 0 · u8 willInit · u64 length · bytes |
 * | clear visibility-map flags | u32 1 · u32 1 · option u32 new · option u32 old · u8 flags |
 * | clog committed | u32 1 · u32 2 · u64 n · n × u32 xid · i64 timestamp |
 * | clog aborted | u32 1 · u32 3 · u64 n · n × u32 xid |
 * | multixact offset | u32 1 · u32 4 · u32 multixact · u32 offset |
 * | multixact members | u32 1 · u32 5 · u32 offset · u64 n · n × (u32 xid · u32 status) |
 * | aux file (v1) | u32 1 · u32 6 · u64 length · path · option (u64 length · content) |
 * | truncate visibility map | u32 1 · u32 7 · u64 byte · u64 bit offset |
 * | set commit timestamps | u32 1 · u32 1024 · u64 n · n × u32 xid · i64 timestamp · u16 origin |
 *
 * The last is ours, with a number far from those the peer may give out. An option is u8 0, or u8 1 and the value. Source: the peer's pageserver_api value and record modules.
 */
import { ByteReader, ByteWriter, utf8, utf8ToString } from "../kit/bytes.ts";
import { copyBytes } from "../kit/copy.ts";
import { StrataError } from "../kit/errors.ts";
import type { NeonRecord, Value } from "./value.ts";

const IMAGE_HEADER_SIZE = 12;
export const POSTGRES_HEADER_SIZE = 17;
const RECORD_TYPES = [
  "postgres",
  "clear-visibility-map-flags",
  "clog-set-committed",
  "clog-set-aborted",
  "multixact-offset-create",
  "multixact-members-create",
  "aux-file",
  "truncate-visibility-map",
] as const;
const COMMIT_TS_SET_NUMBER = 1024;
/** What one large value made longer than this is not kept. */
const KEPT_WRITER_BYTES = 64 * 1024;
let neonWriter = new ByteWriter();

/** A new array, owned by the caller. */
export function encodeValue(value: Value): Uint8Array {
  if (value.kind === "neon") return encodeNeonRecord(value.record).finish().slice();
  const bytes = new Uint8Array(encodedValueSize(value));
  encodeValueInto(value, bytes, 0);
  return bytes;
}

/** Writes the value at `offset`, where `encodedValueSize(value)` bytes must have room; returns how many it took. */
export function encodeValueInto(value: Value, target: Uint8Array, offset: number): number {
  if (value.kind === "postgres") {
    const { length } = value.record;
    writeRecordHeader(target, offset, length, value.willInit);
    copyBytes(value.record, 0, target, offset + POSTGRES_HEADER_SIZE, length);
    return POSTGRES_HEADER_SIZE + length;
  }
  if (value.kind === "image") {
    const { length } = value.bytes;
    target.fill(0, offset, offset + IMAGE_HEADER_SIZE);
    writeU32(target, offset + IMAGE_HEADER_SIZE - 4, length);
    copyBytes(value.bytes, 0, target, offset + IMAGE_HEADER_SIZE, length);
    return IMAGE_HEADER_SIZE + length;
  }
  const encoded = encodeNeonRecord(value.record);
  encoded.copyInto(target, offset);
  return encoded.length;
}

/** The 17 bytes before a PostgreSQL record of `length` bytes (no record has 2^32). Positional parameters on purpose: called a record. */
export function writeRecordHeader(target: Uint8Array, offset: number, length: number, willInit: boolean): void {
  for (let at = offset; at < offset + POSTGRES_HEADER_SIZE - 4; at++) target[at] = 0;
  target[offset + 3] = 1;
  target[offset + 8] = willInit ? 1 : 0;
  writeU32(target, offset + POSTGRES_HEADER_SIZE - 4, length);
}

function writeU32(target: Uint8Array, at: number, value: number): void {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
}

/** Bytes of a `clog-set-committed` value of one transaction, and of a `clog-set-aborted` one. */
export const ONE_COMMITTED_SIZE = 28;
export const ONE_ABORTED_SIZE = 20;

/** Where a record has the time of a commit: i64, little-endian. */
export interface LittleEndianTime {
  readonly bytes: Uint8Array;
  readonly at: number;
}

/** Writes the end of one transaction at `offset`, where there is room; `time` null for an abort. Positional parameters on purpose: called a transaction. */
export function writeXactEnd(target: Uint8Array, offset: number, xid: number, time: LittleEndianTime | null): void {
  writeU32(target, offset, 1);
  writeU32(target, offset + 4, RECORD_TYPES.indexOf(time === null ? "clog-set-aborted" : "clog-set-committed"));
  writeU32(target, offset + 8, 0);
  writeU32(target, offset + 12, 1);
  writeU32(target, offset + 16, xid);
  if (time !== null) for (let i = 0; i < 8; i++) target[offset + ONE_ABORTED_SIZE + i] = time.bytes[time.at + 7 - i];
}

/** A value of the kind `neon`, in the one writer for all of them: to be copied out before the next. */
export function encodeNeonRecord(record: NeonRecord): ByteWriter {
  if (neonWriter.length > KEPT_WRITER_BYTES) neonWriter = new ByteWriter();
  neonWriter.clear();
  neonWriter.u32be(1).u32be(record.type === "commit-ts-set" ? COMMIT_TS_SET_NUMBER : RECORD_TYPES.indexOf(record.type));
  writeNeonRecord(neonWriter, record);
  return neonWriter;
}

/** Size of `encodeValue(value)`, without making it for the two hot kinds. */
export function encodedValueSize(value: Value): number {
  if (value.kind === "image") return IMAGE_HEADER_SIZE + value.bytes.length;
  if (value.kind === "postgres") return POSTGRES_HEADER_SIZE + value.record.length;
  return encodeNeonRecord(value.record).length;
}

function writeNeonRecord(w: ByteWriter, record: NeonRecord): void {
  switch (record.type) {
    case "clear-visibility-map-flags":
      writeOptionU32(w, record.newHeapBlock);
      writeOptionU32(w, record.oldHeapBlock);
      w.u8(record.flags);
      return;
    case "clog-set-committed":
      writeXids(w, record.xids);
      w.i64be(record.timestamp);
      return;
    case "clog-set-aborted":
      return writeXids(w, record.xids);
    case "multixact-offset-create":
      w.u32be(record.multiXid).u32be(record.memberOffset);
      return;
    case "multixact-members-create":
      w.u32be(record.memberOffset).u64be(BigInt(record.members.length));
      for (const member of record.members) w.u32be(member.xid).u32be(member.status);
      return;
    case "aux-file":
      writeBlob(w, utf8(record.path));
      w.u8(record.content === null ? 0 : 1);
      if (record.content !== null) writeBlob(w, record.content);
      return;
    case "truncate-visibility-map":
      w.u64be(BigInt(record.truncByte)).u64be(BigInt(record.truncOffset));
      return;
    case "commit-ts-set":
      writeXids(w, record.xids);
      w.i64be(record.timestamp).u16be(record.originId);
  }
}

function writeOptionU32(w: ByteWriter, value: number | null): void {
  w.u8(value === null ? 0 : 1);
  if (value !== null) w.u32be(value);
}

function writeXids(w: ByteWriter, xids: readonly number[]): void {
  w.u32be(0).u32be(xids.length);
  for (const xid of xids) w.u32be(xid);
}

function writeBlob(w: ByteWriter, bytes: Uint8Array): void {
  w.u64be(BigInt(bytes.length)).bytes(bytes);
}

/** Images and records are views into `bytes`. @throws StrataError corrupt `bad-value` or `truncated` */
export function decodeValue(bytes: Uint8Array): Value {
  const reader = new ByteReader(bytes, "stored value");
  const value = readValue(reader);
  if (reader.remaining !== 0) throw bad(`${reader.remaining} bytes after its end`);
  return value;
}

function readValue(r: ByteReader): Value {
  const kind = r.u32be();
  if (kind === 0) return { kind: "image", bytes: r.bytes(readLength(r, 1)) };
  if (kind !== 1) throw bad(`unknown kind ${kind}`);
  const number = r.u32be();
  const type = number === COMMIT_TS_SET_NUMBER ? "commit-ts-set" : RECORD_TYPES[number];
  if (type === undefined) throw bad(`unknown record type ${number}`);
  if (type !== "postgres") return { kind: "neon", record: readNeonRecord(r, type) };
  const willInit = readFlag(r);
  return { kind: "postgres", willInit, record: r.bytes(readLength(r, 1)) };
}

function readNeonRecord(r: ByteReader, type: NeonRecord["type"]): NeonRecord {
  switch (type) {
    case "clear-visibility-map-flags":
      return { type, newHeapBlock: readOptionU32(r), oldHeapBlock: readOptionU32(r), flags: r.u8() };
    case "clog-set-committed":
      return { type, xids: readXids(r), timestamp: r.i64be() };
    case "clog-set-aborted":
      return { type, xids: readXids(r) };
    case "multixact-offset-create":
      return { type, multiXid: r.u32be(), memberOffset: r.u32be() };
    case "multixact-members-create": {
      const memberOffset = r.u32be();
      const count = readLength(r, 8);
      return { type, memberOffset, members: Array.from({ length: count }, () => ({ xid: r.u32be(), status: r.u32be() })) };
    }
    case "aux-file": {
      const path = utf8ToString(r.bytes(readLength(r, 1)));
      return { type, path, content: readFlag(r) ? r.bytes(readLength(r, 1)) : null };
    }
    case "truncate-visibility-map":
      return { type, truncByte: Number(r.u64be()), truncOffset: Number(r.u64be()) };
    case "commit-ts-set":
      return { type, xids: readXids(r), timestamp: r.i64be(), originId: r.u16be() };
  }
}

function readFlag(r: ByteReader): boolean {
  const flag = r.u8();
  if (flag > 1) throw bad(`flag byte ${flag}`);
  return flag === 1;
}

function readOptionU32(r: ByteReader): number | null {
  return readFlag(r) ? r.u32be() : null;
}

function readXids(r: ByteReader): number[] {
  return Array.from({ length: readLength(r, 4) }, () => r.u32be());
}

/** A count of items of `itemSize` bytes that the input can really hold. */
function readLength(r: ByteReader, itemSize: number): number {
  const length = r.u64be();
  if (length * BigInt(itemSize) > BigInt(r.remaining)) throw bad(`${length} items of ${itemSize} bytes, with ${r.remaining} bytes left`);
  return Number(length);
}

function bad(what: string): StrataError {
  return new StrataError("corrupt", "bad-value", `stored value: ${what}`);
}
