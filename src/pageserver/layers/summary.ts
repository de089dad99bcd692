/**
 * Block 0 of a layer file. Integers are big-endian; the first part is the peer's (which ignores what follows it).
 *
 * | delta | image | size | field |
 * | --- | --- | --- | --- |
 * | 0 | 0 | 2 | magic: 0x5A61 delta, 0x5A60 image |
 * | 2 | 2 | 2 | format version, 3 |
 * | 4 | 4 | 16 | tenant id |
 * | 20 | 20 | 16 | timeline id |
 * | 36 | 36 | 18 + 18 | key range |
 * | 72 | 72 | 8 + 8, 8 | LSN range; an image's LSN |
 * | 88 | 80 | 4 | first block of the index |
 * | 92 | 84 | 4 | root of the index, counted from its first block |
 *
 * Ours, at the end of the block, all zero in a file of the peer's:
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 8168 | 8 | "STRATAC1" |
 * | 8176 | 4 | number of blocks before the checksum trailer |
 * | 8180 | 4 | length of the trailer: 4 × blocks |
 * | 8184 | 4 | CRC-32C of the trailer |
 * | 8188 | 4 | CRC-32C of bytes 0–8187 of this block |
 *
 * The trailer follows the last index block: one CRC-32C (u32) for each block; entry 0 is zero, since block 0 vouches
 * for itself. The layer's entry in index_part repeats the last field, so that neither this block nor the absence of
 * the extension can be forged by a flipped bit.
 *
 * Source: the peer's storage_layer/delta_layer and image_layer modules (Summary).
 */
import { ByteReader, ByteWriter, dataViewOf, utf8 } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { idFromBytes, idToBytes, type TenantId, type TimelineId } from "../../kit/ids.ts";
import { decodeKey, encodeKeyInto, type Key, KEY_SIZE } from "../../keyspace/key.ts";
import type { LayerName } from "./layer-name.ts";

export const BLOCK_SIZE = 8192;
export const DELTA_MAGIC = 0x5a61;
export const IMAGE_MAGIC = 0x5a60;
export const STORAGE_FORMAT_VERSION = 3;

const EXTENSION_OFFSET = 8168;
const EXTENSION_MAGIC = utf8("STRATAC1");
const SELF_CRC_OFFSET = 8188;

export interface Summary {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly name: LayerName;
  readonly indexStartBlock: number;
  /** Relative to `indexStartBlock`. */
  readonly indexRootBlock: number;
  /** Null in layers of the peer's. */
  readonly checksums: ChecksumExtension | null;
}

export interface ChecksumExtension {
  readonly blockCount: number;
  readonly trailerCrc: number;
}

/** A whole block. */
export function encodeSummary(summary: Summary): Uint8Array {
  const w = new ByteWriter(BLOCK_SIZE);
  const { name } = summary;
  w.u16be(name.kind === "delta" ? DELTA_MAGIC : IMAGE_MAGIC).u16be(STORAGE_FORMAT_VERSION);
  w.bytes(idToBytes(summary.tenantId)).bytes(idToBytes(summary.timelineId));
  writeKey(w, name.keyRange.start);
  writeKey(w, name.keyRange.end);
  if (name.kind === "delta") w.lsnBe(name.lsnRange.start).lsnBe(name.lsnRange.end);
  else w.lsnBe(name.lsn);
  w.u32be(summary.indexStartBlock).u32be(summary.indexRootBlock);
  w.zeros(EXTENSION_OFFSET - w.length);
  const { checksums } = summary;
  if (checksums === null) return w.zeros(BLOCK_SIZE - EXTENSION_OFFSET).finish();
  w.bytes(EXTENSION_MAGIC).u32be(checksums.blockCount).u32be(checksums.blockCount * 4).u32be(checksums.trailerCrc);
  w.u32be(crc32c(w.finish()));
  return w.finish();
}

function writeKey(w: ByteWriter, key: Key): void {
  const bytes = new Uint8Array(KEY_SIZE);
  encodeKeyInto(key, dataViewOf(bytes), 0);
  w.bytes(bytes);
}

/** The checksum of block 0 that index_part repeats. */
export function summaryCrc(block: Uint8Array): number {
  return dataViewOf(block).getUint32(SELF_CRC_OFFSET);
}

/**
 * @param block block 0, whole or (in tiny files of the peer's) what there is of it
 * @throws StrataError corrupt `bad-layer-summary`, `layer-checksum-mismatch`
 */
export function decodeSummary(block: Uint8Array, where: string): Summary {
  const checksums = readExtension(block, where);
  const r = new ByteReader(block, `summary of ${where}`);
  const magic = r.u16be();
  if (magic !== DELTA_MAGIC && magic !== IMAGE_MAGIC) throw bad(where, `magic ${magic.toString(16)}`);
  const version = r.u16be();
  if (version !== STORAGE_FORMAT_VERSION) throw bad(where, `format version ${version}`);
  const tenantId = idFromBytes(r.bytes(16));
  const timelineId = idFromBytes(r.bytes(16));
  const keyRange = { start: readKey(r), end: readKey(r) };
  const name: LayerName = magic === DELTA_MAGIC ? { kind: "delta", keyRange, lsnRange: { start: r.lsnBe(), end: r.lsnBe() } } : { kind: "image", keyRange, lsn: r.lsnBe() };
  return { tenantId, timelineId, name, indexStartBlock: r.u32be(), indexRootBlock: r.u32be(), checksums };
}

function readKey(r: ByteReader): Key {
  return decodeKey(dataViewOf(r.bytes(KEY_SIZE)), 0);
}

function readExtension(block: Uint8Array, where: string): ChecksumExtension | null {
  if (block.length < BLOCK_SIZE) return null;
  const view = dataViewOf(block);
  for (let i = 0; i < EXTENSION_MAGIC.length; i++) if (block[EXTENSION_OFFSET + i] !== EXTENSION_MAGIC[i]) return null;
  if (view.getUint32(SELF_CRC_OFFSET) !== crc32c(block, 0, SELF_CRC_OFFSET)) throw checksumMismatch(where, 0);
  return { blockCount: view.getUint32(8176), trailerCrc: view.getUint32(8184) };
}

export function checksumMismatch(where: string, block: number | "trailer"): StrataError {
  return new StrataError("corrupt", "layer-checksum-mismatch", `layer ${where}: checksum of block ${block} does not match`, { details: { layer: where, block } });
}

function bad(where: string, why: string): StrataError {
  return new StrataError("corrupt", "bad-layer-summary", `layer ${where}: ${why}`, { details: { layer: where } });
}
