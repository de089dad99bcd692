/** WAL records put together in memory, for redo kinds no stock server writes. */
import { dataViewOf } from "../../../src/kit/bytes.ts";
import type { PgMajor } from "../../../src/postgres/versions/major.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";

export interface HandMadeBlock {
  readonly blockNumber: number;
  readonly fork?: number;
  readonly willInit?: boolean;
  readonly data?: readonly number[];
}

export interface HandMade {
  readonly version: PgMajor;
  readonly rmid: number;
  readonly info: number;
  readonly xid: number;
  readonly main: readonly number[];
  readonly blocks: readonly HandMadeBlock[];
  readonly heapCommandIds?: boolean;
}

export function u16(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff];
}

export function u32(value: number): number[] {
  return [...u16(value & 0xffff), ...u16(value >>> 16)];
}

export function handMadeRecord(parts: HandMade): WalRecord {
  const record = new WalRecord();
  const bytes: number[] = [];
  parts.blocks.forEach((block, id) => {
    const ref = record.blocks[id];
    ref.inUse = true;
    ref.blockNumber = block.blockNumber;
    ref.fork = block.fork ?? 0;
    ref.willInit = block.willInit ?? false;
    ref.hasData = block.data !== undefined;
    ref.dataOffset = bytes.length;
    ref.dataLength = block.data?.length ?? 0;
    bytes.push(...(block.data ?? []));
  });
  record.blockCount = parts.blocks.length;
  record.mainDataOffset = bytes.length;
  record.mainDataLength = parts.main.length;
  bytes.push(...parts.main);
  record.bytes = Uint8Array.from(bytes);
  record.view = dataViewOf(record.bytes);
  record.version = parts.version;
  record.rmid = parts.rmid;
  record.info = parts.info;
  record.xid = parts.xid;
  record.heapCommandIds = parts.heapCommandIds ?? false;
  return record;
}
