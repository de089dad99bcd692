/**
 * Encodes WAL records: the other side of decode-record.ts, which has the field table. For records this project writes itself
 * (starter checkpoints, generated load) and for tests.
 *
 * Source: PostgreSQL access/transam/xloginsert.c (XLogRecordAssemble).
 */
import { ByteWriter, dataViewOf } from "../../kit/bytes.ts";
import { invariant } from "../../kit/errors.ts";
import { type Lsn, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import {
  BKPBLOCK_HAS_DATA,
  BKPBLOCK_HAS_IMAGE,
  BKPBLOCK_SAME_REL,
  BKPBLOCK_WILL_INIT,
  BKPIMAGE_14_APPLY,
  BKPIMAGE_15_APPLY,
  BKPIMAGE_HAS_HOLE,
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
  XLR_BLOCK_ID_DATA_LONG,
  XLR_BLOCK_ID_DATA_SHORT,
  XLR_BLOCK_ID_ORIGIN,
  XLR_BLOCK_ID_TOPLEVEL_XID,
} from "./constants.ts";
import type { PgMajor } from "../versions/major.ts";
import { recordCrc } from "./decode-record.ts";

export interface BlockSpec {
  readonly id: number;
  readonly spcOid: number;
  readonly dbOid: number;
  readonly relNumber: number;
  readonly fork: number;
  readonly blockNumber: number;
  readonly willInit?: boolean;
  readonly data?: Uint8Array;
  /** A whole page; the hole is left out of what is written, nothing is compressed. */
  readonly image?: { readonly page: Uint8Array; readonly holeOffset: number; readonly holeLength: number; readonly apply: boolean };
}

export interface RecordSpec {
  readonly version: PgMajor;
  readonly rmid: number;
  readonly info: number;
  readonly xid?: number;
  readonly origin?: number;
  readonly toplevelXid?: number;
  readonly mainData?: Uint8Array;
  /** In ascending id. */
  readonly blocks?: readonly BlockSpec[];
}

/** The record without prev link and checksum: `sealRecord` adds them. */
export function encodeRecord(spec: RecordSpec): Uint8Array {
  const mainData = spec.mainData ?? new Uint8Array(0);
  const blocks = spec.blocks ?? [];
  const writer = new ByteWriter(RECORD_HEADER_SIZE + 64 + mainData.length);
  writer.u32le(0).u32le(spec.xid ?? 0).zeros(8).u8(spec.info).u8(spec.rmid).zeros(6);
  blocks.forEach((block, index) => {
    encodeBlockHeader(writer, block, { version: spec.version, previous: index > 0 ? blocks[index - 1] : null });
  });
  if (spec.origin !== undefined) writer.u8(XLR_BLOCK_ID_ORIGIN).u16le(spec.origin);
  if (spec.toplevelXid !== undefined) writer.u8(XLR_BLOCK_ID_TOPLEVEL_XID).u32le(spec.toplevelXid);
  if (mainData.length > 255) writer.u8(XLR_BLOCK_ID_DATA_LONG).u32le(mainData.length);
  else if (mainData.length > 0) writer.u8(XLR_BLOCK_ID_DATA_SHORT).u8(mainData.length);
  for (const block of blocks) {
    if (block.image !== undefined) {
      const { page, holeOffset, holeLength } = block.image;
      writer.bytes(page.subarray(0, holeOffset)).bytes(page.subarray(holeOffset + holeLength));
    }
    if (block.data !== undefined) writer.bytes(block.data);
  }
  writer.bytes(mainData);
  writer.patchU32le(0, writer.length);
  return writer.finish();
}

function encodeBlockHeader(writer: ByteWriter, block: BlockSpec, context: { version: PgMajor; previous: BlockSpec | null }): void {
  const { previous } = context;
  const sameRelation =
    previous !== null && previous.relNumber === block.relNumber && previous.dbOid === block.dbOid && previous.spcOid === block.spcOid;
  const dataLength = block.data?.length ?? 0;
  invariant(dataLength <= 0xffff, "block data is at most 65535 bytes");
  const flags =
    block.fork |
    (block.image !== undefined ? BKPBLOCK_HAS_IMAGE : 0) |
    (dataLength > 0 ? BKPBLOCK_HAS_DATA : 0) |
    (block.willInit === true ? BKPBLOCK_WILL_INIT : 0) |
    (sameRelation ? BKPBLOCK_SAME_REL : 0);
  writer.u8(block.id).u8(flags).u16le(dataLength);
  if (block.image !== undefined) {
    const { holeOffset, holeLength, apply } = block.image;
    const applyFlag = context.version === 14 ? BKPIMAGE_14_APPLY : BKPIMAGE_15_APPLY;
    const imageFlags = (holeLength > 0 ? BKPIMAGE_HAS_HOLE : 0) | (apply ? applyFlag : 0);
    writer.u16le(PAGE_SIZE - holeLength).u16le(holeOffset).u8(imageFlags);
  }
  if (!sameRelation) writer.u32le(block.spcOid).u32le(block.dbOid).u32le(block.relNumber);
  writer.u32le(block.blockNumber);
}

/** Sets the link to the record before and the checksum, in place. */
export function sealRecord(record: Uint8Array, previousLsn: Lsn): void {
  const view = dataViewOf(record);
  view.setUint32(8, lsnLow(previousLsn), true);
  view.setUint32(12, lsnHigh(previousLsn), true);
  view.setUint32(20, recordCrc(record, 0, record.length), true);
}
