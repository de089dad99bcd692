/**
 * pg_filenode.map: which file the catalogs that cannot be looked up in pg_class live in.
 *
 * | offset | type | field |
 * | --- | --- | --- |
 * | 0 | u32 | magic 0x592717 |
 * | 4 | u32 | number of mappings |
 * | 8 | n × (u32, u32) | catalog oid, relation number; room for 62 (14, 15) or 64 |
 * | 504, 520 from 16 on | u32 | CRC-32C of the bytes before |
 * | 508 | u32 | padding, 14 and 15 only |
 *
 * Little-endian; 512 bytes in 14 and 15, 524 from 16 on. Source: PostgreSQL utils/cache/relmapper.c (RelMapFile).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { VERSION_CONSTANTS } from "../versions/constants.ts";
import type { PgMajor } from "../versions/major.ts";

const MAGIC = 0x592717;
const MAPPINGS_OFFSET = 8;

export interface RelationMapping {
  readonly catalogOid: number;
  readonly relNumber: number;
}

/** @throws StrataError corrupt `bad-relation-map` */
export function decodeRelationMap(bytes: Uint8Array, version: PgMajor): RelationMapping[] {
  const { relationMapSize, relationMapCapacity } = VERSION_CONSTANTS[version];
  if (bytes.length !== relationMapSize) throw badMap(`${bytes.length} bytes instead of ${relationMapSize}`);
  const view = dataViewOf(bytes);
  const count = view.getUint32(4, true);
  const crcOffset = MAPPINGS_OFFSET + relationMapCapacity * 8;
  if (view.getUint32(0, true) !== MAGIC) throw badMap("wrong magic number");
  if (count > relationMapCapacity) throw badMap(`${count} mappings`);
  if (view.getUint32(crcOffset, true) !== crc32c(bytes, 0, crcOffset)) throw badMap("wrong checksum");
  return Array.from({ length: count }, (_, index) => ({
    catalogOid: view.getUint32(MAPPINGS_OFFSET + index * 8, true),
    relNumber: view.getUint32(MAPPINGS_OFFSET + index * 8 + 4, true),
  }));
}

/** @throws StrataError fix-input `too-many-mappings` */
export function encodeRelationMap(mappings: readonly RelationMapping[], version: PgMajor): Uint8Array {
  const { relationMapSize, relationMapCapacity } = VERSION_CONSTANTS[version];
  if (mappings.length > relationMapCapacity) throw new StrataError("fix-input", "too-many-mappings", `${mappings.length} relation mappings, there is room for ${relationMapCapacity}`);
  const bytes = new Uint8Array(relationMapSize);
  const view = dataViewOf(bytes);
  const crcOffset = MAPPINGS_OFFSET + relationMapCapacity * 8;
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, mappings.length, true);
  mappings.forEach((mapping, index) => {
    view.setUint32(MAPPINGS_OFFSET + index * 8, mapping.catalogOid, true);
    view.setUint32(MAPPINGS_OFFSET + index * 8 + 4, mapping.relNumber, true);
  });
  view.setUint32(crcOffset, crc32c(bytes, 0, crcOffset), true);
  return bytes;
}

function badMap(what: string): StrataError {
  return new StrataError("corrupt", "bad-relation-map", `relation map: ${what}`);
}
