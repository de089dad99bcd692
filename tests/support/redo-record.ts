/**
 * WAL records made by hand, for redo of kinds and damage real servers do not produce.
 */
import { dataViewOf } from "../../src/kit/bytes.ts";
import type { PgMajor } from "../../src/postgres/versions/major.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";

export interface HandmadeBlock {
  readonly block?: number;
  readonly data?: Uint8Array;
  readonly willInit?: boolean;
  /** An image to be applied, of a whole page. */
  readonly image?: Uint8Array;
}

export interface HandmadeRecord {
  readonly rmid: number;
  readonly info: number;
  readonly version?: PgMajor;
  readonly main?: Uint8Array;
  /** By block id; `undefined` leaves an id out. */
  readonly blocks?: readonly (HandmadeBlock | undefined)[];
}

const NOTHING = new Uint8Array(0);

export function makeRecord(fields: HandmadeRecord): WalRecord {
  const record = new WalRecord();
  const parts: Uint8Array[] = [];
  let at = 0;
  const place = (bytes: Uint8Array): number => {
    parts.push(bytes);
    at += bytes.length;
    return at - bytes.length;
  };
  record.rmid = fields.rmid;
  record.info = fields.info;
  record.version = fields.version ?? 17;
  record.blockCount = fields.blocks?.length ?? 0;
  fields.blocks?.forEach((block, id) => {
    if (block === undefined) return;
    const ref = record.blocks[id];
    ref.inUse = true;
    ref.blockNumber = block.block ?? id;
    ref.willInit = block.willInit ?? false;
    ref.hasImage = block.image !== undefined;
    ref.applyImage = ref.hasImage;
    ref.imageOffset = place(block.image ?? NOTHING);
    ref.imageLength = block.image?.length ?? 0;
    ref.hasData = (block.data?.length ?? 0) > 0;
    ref.dataOffset = place(block.data ?? NOTHING);
    ref.dataLength = block.data?.length ?? 0;
  });
  record.mainDataOffset = place(fields.main ?? NOTHING);
  record.mainDataLength = fields.main?.length ?? 0;
  record.bytes = Buffer.concat(parts);
  record.view = dataViewOf(record.bytes);
  record.totalLength = record.bytes.length;
  return record;
}

/** Little-endian fields: `fields("u16", 3, "u32", 9)`. */
export function fields(...pairs: readonly (string | number)[]): Uint8Array {
  const bytes = new Uint8Array(pairs.length * 8);
  const view = dataViewOf(bytes);
  let at = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    const value = Number(pairs[i + 1]);
    switch (pairs[i]) {
      case "u8": view.setUint8(at, value); at += 1; break;
      case "u16": view.setUint16(at, value, true); at += 2; break;
      case "u32": view.setUint32(at, value, true); at += 4; break;
      case "f64": view.setFloat64(at, value, true); at += 8; break;
      default: throw new Error(`unknown field type ${pairs[i]}`);
    }
  }
  return bytes.slice(0, at);
}

/** An index tuple of `size` bytes, filled with `fill` behind its header. */
export function indexTuple(size: number, fill = 0xab): Uint8Array {
  const bytes = new Uint8Array(size).fill(fill);
  bytes.fill(0, 0, 6);
  dataViewOf(bytes).setUint16(6, size, true);
  return bytes;
}
