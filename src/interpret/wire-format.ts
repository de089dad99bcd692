/**
 * Interpreted WAL on its way from safekeeper to pageserver: the peer's protobuf messages.
 *
 * | message | fields |
 * | --- | --- |
 * | InterpretedWalRecords | 1 repeated InterpretedWalRecord · 2 u64 end of the last record of the batch, of any shard |
 * | InterpretedWalRecord | 1 bytes metadata (metadata-codec.ts) · 2 SerializedValueBatch · 3 u64 end of the record · 4 bool flush before · 5 u32 xid |
 * | SerializedValueBatch | 1 bytes values, one after another (value-codec.ts) · 2 repeated ValueMeta · 3 u64 max LSN · 4 u64 number of values |
 * | ValueMeta | 1 enum: 0 serialized, 1 observed · 2 CompactKey · 3 u64 LSN · 4 u64 offset · 5 u64 length · 6 bool will init |
 * | CompactKey | 1 u64 high · 2 u64 low: both unsigned |
 *
 * A compact key is u8 field1 · u16 field2 · u32 field3 · u32 field4 · u8 field5 · u32 field6: a tablespace above 65535 does
 * not fit. A record with a page there goes whole (metadata 1025, ours), and is interpreted by the receiver.
 *
 * Source: the peer libs/wal_decoder/proto/interpreted_wal.proto, src/wire_format.rs; libs/pageserver_api/src/key.rs (to_i128).
 */
import { ByteReader, ByteWriter, concatBytes } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Lsn } from "../kit/lsn.ts";
import { ProtoReader, ProtoWriter } from "../kit/protobuf.ts";
import type { Key } from "../keyspace/key.ts";
import { isRelBlockKey, keyToRelBlock, relBlockKey } from "../keyspace/mapping.ts";
import type { ShardIdentity } from "../keyspace/shard.ts";
import type { PgMajor } from "../postgres/versions/major.ts";
import { decodeRecord } from "../postgres/wal/decode-record.ts";
import { WalRecord } from "../postgres/wal/record.ts";
import { type InterpretedBlock, type InterpretedRecord, interpretRecord, needsCommittedPages } from "./interpret-record.ts";
import { decodeMetadata, encodeMetadata, wholeRecord } from "./metadata-codec.ts";
import { decodeValue, encodeValue } from "./value-codec.ts";
import { valueWillInit } from "./value.ts";

const TO_BE_INTERPRETED = 1025;
const FIELD2_MAX = 0xffff;
const OBSERVED = 1;

export interface EncodeOptions {
  readonly shard: ShardIdentity;
  /** The receiver is one of ours. */
  readonly extended: boolean;
}

/** One record as the message for one shard; null when there is nothing in it for that shard (shard 0 is told of every record). */
export function encodeInterpretedRecord(record: WalRecord, options: EncodeOptions): Uint8Array | null {
  const { shard, extended } = options;
  const interpreted = interpretRecord(record, shard);
  if (extended && interpreted.blocks.some(({ rel }) => rel.spcOid > FIELD2_MAX)) {
    const metadata = new ByteWriter(record.totalLength + 12).u32be(TO_BE_INTERPRETED).u64be(BigInt(record.totalLength)).bytes(wholeRecord(record)).finish();
    return finishRecord(interpreted, metadata, null);
  }
  const metadata = encodeMetadata(record, interpreted.effect, { extended });
  if (metadata === null && interpreted.blocks.length === 0 && shard.number !== 0) return null;
  return finishRecord(interpreted, metadata, encodeBlocks(interpreted));
}

function finishRecord(interpreted: InterpretedRecord, metadata: Uint8Array | null, batch: Uint8Array | null): Uint8Array {
  const writer = new ProtoWriter((metadata?.length ?? 0) + (batch?.length ?? 0) + 48);
  if (metadata !== null) writer.bytes(1, metadata, true);
  // The peer's decoder insists on a batch, empty as it may be.
  writer.bytes(2, batch ?? new Uint8Array(0), true);
  writer.u64(3, interpreted.endLsn).bool(4, needsCommittedPages(interpreted)).u64(5, interpreted.xid);
  return writer.finish();
}

function encodeBlocks({ blocks, endLsn }: InterpretedRecord): Uint8Array {
  const values: Uint8Array[] = [];
  const metas: Uint8Array[] = [];
  let offset = 0;
  for (const { rel, block, value } of blocks) {
    if (rel.spcOid > FIELD2_MAX) continue;
    const key = encodeCompactKey(relBlockKey(rel, block));
    if (value === null) {
      metas.push(new ProtoWriter(48).u64(1, OBSERVED).bytes(2, key, true).u64(3, endLsn).finish());
      continue;
    }
    const bytes = encodeValue(value);
    metas.push(new ProtoWriter(64).bytes(2, key, true).u64(3, endLsn).u64(4, offset, true).u64(5, bytes.length, true).u64(6, valueWillInit(value) ? 1 : 0, true).finish());
    values.push(bytes);
    offset += bytes.length;
  }
  const writer = new ProtoWriter(offset + 80 * metas.length + 32).bytes(1, concatBytes(values));
  for (const meta of metas) writer.bytes(2, meta, true);
  return writer.u64(3, endLsn).u64(4, values.length).finish();
}

function encodeCompactKey(key: Key): Uint8Array {
  const { field1, field2, field3, field4, field5, field6 } = key;
  return new ProtoWriter(24)
    .u64Halves(1, ((field1 & 0x7f) << 24) | ((field2 & FIELD2_MAX) << 8) | (field3 >>> 24), (field3 << 8) | (field4 >>> 24))
    .u64Halves(2, ((field4 & 0xffffff) << 8) | field5, field6)
    .finish();
}

/** @param records from `encodeInterpretedRecord` */
export function encodeInterpretedBatch(records: readonly Uint8Array[], nextRecordLsn: Lsn): Uint8Array {
  const writer = new ProtoWriter(records.reduce((sum, record) => sum + record.length + 6, 16));
  for (const record of records) writer.bytes(1, record, true);
  return writer.u64(2, nextRecordLsn).finish();
}

/** A record without its start, which is not sent: it is the end of the one before. */
export type ReceivedRecord = Omit<InterpretedRecord, "startLsn">;

export interface ReceivedBatch {
  readonly records: readonly ReceivedRecord[];
  /** All records of this shard that end at or below it have been sent. */
  readonly nextRecordLsn: Lsn;
}

export interface DecodeOptions {
  readonly version: PgMajor;
  readonly shard: ShardIdentity;
}

/** Values are views into `bytes`. @throws StrataError corrupt, fix-input `bad-protobuf` */
export function decodeInterpretedBatch(bytes: Uint8Array, options: DecodeOptions): ReceivedBatch {
  const reader = new ProtoReader(bytes, "interpreted WAL records");
  const records: ReceivedRecord[] = [];
  let nextRecordLsn: Lsn = 0;
  while (reader.next()) {
    if (reader.field === 1) records.push(decodeInterpretedRecord(reader.bytes(), options));
    else if (reader.field === 2) nextRecordLsn = reader.u64();
    else reader.skip();
  }
  for (let index = 1; index < records.length; index++) {
    if (records[index].endLsn <= records[index - 1].endLsn) throw bad("records out of order");
  }
  return { records, nextRecordLsn: Math.max(nextRecordLsn, records.at(-1)?.endLsn ?? 0) };
}

function decodeInterpretedRecord(bytes: Uint8Array, options: DecodeOptions): ReceivedRecord {
  const reader = new ProtoReader(bytes, "interpreted WAL record");
  let metadata: Uint8Array | null = null;
  let batch: Uint8Array | null = null;
  let endLsn: Lsn = 0;
  let xid = 0;
  while (reader.next()) {
    if (reader.field === 1) metadata = reader.bytes();
    else if (reader.field === 2) batch = reader.bytes();
    else if (reader.field === 3) endLsn = reader.u64();
    else if (reader.field === 5) xid = reader.u32();
    else reader.skip();
  }
  if (endLsn === 0 || batch === null) throw bad("a record without its end or its values");
  if (metadata !== null && isToBeInterpreted(metadata)) return interpretWhole(metadata, endLsn, options);
  return { endLsn, xid, effect: metadata === null ? null : decodeMetadata(metadata, options.version), blocks: decodeBlocks(batch) };
}

function isToBeInterpreted(metadata: Uint8Array): boolean {
  return metadata.length >= 12 && new ByteReader(metadata, "metadata record").u32be() === TO_BE_INTERPRETED;
}

function interpretWhole(metadata: Uint8Array, endLsn: Lsn, options: DecodeOptions): ReceivedRecord {
  const record = new WalRecord();
  decodeRecord(metadata.subarray(12), options.version, record, { checkCrc: false });
  record.endLsn = endLsn;
  return interpretRecord(record, options.shard);
}

function decodeBlocks(batch: Uint8Array): InterpretedBlock[] {
  const reader = new ProtoReader(batch, "serialized values");
  let raw: Uint8Array = new Uint8Array(0);
  const metas: Uint8Array[] = [];
  while (reader.next()) {
    if (reader.field === 1) raw = reader.bytes();
    else if (reader.field === 2) metas.push(reader.bytes());
    else reader.skip();
  }
  return metas.map((meta) => decodeBlock(meta, raw));
}

function decodeBlock(bytes: Uint8Array, raw: Uint8Array): InterpretedBlock {
  const reader = new ProtoReader(bytes, "value of an interpreted record");
  let observed = false;
  let key: Key | null = null;
  let offset = 0;
  let length = 0;
  while (reader.next()) {
    if (reader.field === 1) observed = reader.u32() === OBSERVED;
    else if (reader.field === 2) key = decodeCompactKey(reader.bytes());
    else if (reader.field === 4) offset = reader.u64();
    else if (reader.field === 5) length = reader.u64();
    else reader.skip();
  }
  if (key === null || !isRelBlockKey(key)) throw bad("a value without the key of a relation's page");
  const { rel, block } = keyToRelBlock(key);
  if (observed) return { rel, block, value: null };
  if (offset + length > raw.length) throw bad(`a value at ${offset} of ${length} bytes, ${raw.length} are here`);
  return { rel, block, value: decodeValue(raw.subarray(offset, offset + length)) };
}

function decodeCompactKey(bytes: Uint8Array): Key {
  const reader = new ProtoReader(bytes, "compact key");
  let high: readonly [number, number] = [0, 0];
  let low: readonly [number, number] = [0, 0];
  while (reader.next()) {
    if (reader.field === 1) high = reader.u64Halves();
    else if (reader.field === 2) low = reader.u64Halves();
    else reader.skip();
  }
  return {
    field1: (high[0] >>> 24) & 0x7f,
    field2: (high[0] >>> 8) & FIELD2_MAX,
    field3: ((high[0] << 24) | (high[1] >>> 8)) >>> 0,
    field4: ((high[1] << 24) | (low[0] >>> 8)) >>> 0,
    field5: low[0] & 0xff,
    field6: low[1] >>> 0,
  };
}

function bad(what: string): StrataError {
  return new StrataError("corrupt", "bad-interpreted-wal", `interpreted WAL: ${what}`);
}
