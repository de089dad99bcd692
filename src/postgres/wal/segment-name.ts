/**
 * Names of WAL segment files: timeline, high and low part of the segment number, 8 hex digits each. The low part counts the
 * segments in 4 GiB. Source: PostgreSQL access/xlog_internal.h (XLogFileName, XLogFromFileName).
 */
import type { Lsn } from "../../kit/lsn.ts";

const U32 = 0x1_0000_0000;

/** The file that holds `lsn`. */
export function walSegmentName(position: { readonly timelineId: number; readonly lsn: Lsn; readonly segmentSize: number }): string {
  const number = Math.floor(position.lsn / position.segmentSize);
  const perXlogId = U32 / position.segmentSize;
  return hex(position.timelineId) + hex(Math.floor(number / perXlogId)) + hex(number % perXlogId);
}

/** Null for anything that is not a segment's name (`.partial` included). */
export function parseWalSegmentName(name: string, segmentSize: number): { readonly timelineId: number; readonly lsn: Lsn } | null {
  if (!/^[0-9A-F]{24}$/.test(name)) return null;
  const high = Number.parseInt(name.slice(8, 16), 16);
  const low = Number.parseInt(name.slice(16), 16);
  const perXlogId = U32 / segmentSize;
  const lsn = (high * perXlogId + low) * segmentSize;
  if (low >= perXlogId || lsn >= 2 ** 53) return null;
  return { timelineId: Number.parseInt(name.slice(0, 8), 16), lsn };
}

function hex(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}
