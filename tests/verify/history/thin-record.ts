/**
 * A record as a server without wal_consistency_checking would have written it: images that only serve that check are taken out, and
 * the checksum is made again. What is stored and replayed is then what it is in production, and a tenth of the size.
 *
 * Source: PostgreSQL access/transam/xloginsert.c (XLogRecordAssemble), access/xlogrecord.h; fields in decode-record.ts.
 */
import { BKPBLOCK_HAS_IMAGE, BKPBLOCK_SAME_REL, BKPIMAGE_14_IS_COMPRESSED, BKPIMAGE_15_COMPRESS_LZ4, BKPIMAGE_15_COMPRESS_PGLZ, BKPIMAGE_15_COMPRESS_ZSTD, BKPIMAGE_HAS_HOLE, RECORD_HEADER_SIZE, XLR_BLOCK_ID_DATA_LONG, XLR_BLOCK_ID_DATA_SHORT, XLR_BLOCK_ID_ORIGIN, XLR_BLOCK_ID_TOPLEVEL_XID } from "../../../src/postgres/wal/constants.ts";
import { decodeRecord, recordCrc } from "../../../src/postgres/wal/decode-record.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";

const XLR_CHECK_CONSISTENCY = 0x02;
const FRAGMENT_BYTES = new Map([[XLR_BLOCK_ID_DATA_SHORT, 2], [XLR_BLOCK_ID_DATA_LONG, 5], [XLR_BLOCK_ID_ORIGIN, 3], [XLR_BLOCK_ID_TOPLEVEL_XID, 5]]);

/** Where the fragment headers of `record` begin, by block id or the id of what else they are; in their order. */
function fragments(record: WalRecord): { readonly id: number; readonly at: number; readonly length: number }[] {
  const { bytes, start } = record;
  const compressed = record.version >= 15 ? BKPIMAGE_15_COMPRESS_LZ4 | BKPIMAGE_15_COMPRESS_PGLZ | BKPIMAGE_15_COMPRESS_ZSTD : BKPIMAGE_14_IS_COMPRESSED;
  const found: { id: number; at: number; length: number }[] = [];
  const end = start + record.totalLength;
  let content = record.mainDataLength + record.blocks.slice(0, record.blockCount).reduce((sum, ref) => sum + (ref.inUse ? (ref.hasImage ? ref.imageLength : 0) + (ref.hasData ? ref.dataLength : 0) : 0), 0);
  content = end - content;
  for (let at = start + RECORD_HEADER_SIZE; at < content; ) {
    const id = bytes[at];
    let length = FRAGMENT_BYTES.get(id) ?? 4;
    if (!FRAGMENT_BYTES.has(id)) {
      const flags = bytes[at + 1];
      const imageInfo = bytes[at + 8];
      if ((flags & BKPBLOCK_HAS_IMAGE) !== 0) length += 5 + ((imageInfo & BKPIMAGE_HAS_HOLE) !== 0 && (imageInfo & compressed) !== 0 ? 2 : 0);
      length += ((flags & BKPBLOCK_SAME_REL) === 0 ? 12 : 0) + 4;
    }
    found.push({ id, at, length });
    at += length;
  }
  return found;
}

/** Decodes `record` without its check images into `into`. False, and nothing done, when it has none. */
export function withoutCheckImages(record: WalRecord, into: WalRecord): boolean {
  const isCheck = (id: number): boolean => id < record.blockCount && record.blocks[id].inUse && record.blocks[id].hasImage && !record.blocks[id].applyImage;
  if (!record.blocks.slice(0, record.blockCount).some((_, id) => isCheck(id))) return false;
  const { bytes, start } = record;
  const pieces: Uint8Array[] = [bytes.slice(start, start + RECORD_HEADER_SIZE)];
  for (const { id, at, length } of fragments(record)) {
    const header = bytes.slice(at, at + length);
    if (!isCheck(id)) pieces.push(header);
    else {
      header[1] &= ~BKPBLOCK_HAS_IMAGE;
      // The image's header lies between the block's own and the relation.
      const tail = (header[1] & BKPBLOCK_SAME_REL) === 0 ? 16 : 4;
      pieces.push(header.subarray(0, 4), header.subarray(length - tail));
    }
  }
  for (let id = 0; id < record.blockCount; id++) {
    const ref = record.blocks[id];
    if (ref.inUse && ref.hasImage && !isCheck(id)) pieces.push(bytes.subarray(ref.imageOffset, ref.imageOffset + ref.imageLength));
    if (ref.inUse && ref.hasData) pieces.push(bytes.subarray(ref.dataOffset, ref.dataOffset + ref.dataLength));
  }
  pieces.push(bytes.subarray(record.mainDataOffset, record.mainDataOffset + record.mainDataLength));
  const thin = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let size = 0;
  for (const piece of pieces) {
    thin.set(piece, size);
    size += piece.length;
  }
  const view = new DataView(thin.buffer);
  view.setUint32(0, thin.length, true);
  thin[16] &= ~XLR_CHECK_CONSISTENCY;
  view.setUint32(20, recordCrc(thin, 0, thin.length), true);
  decodeRecord(thin, record.version, into, { lsn: record.lsn, endLsn: record.endLsn });
  return true;
}
