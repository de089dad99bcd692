/**
 * Identifiers: tenant and timeline ids are 16 random bytes written as 32 lower-case hex digits; a shard index
 * is two bytes, written `0104` for shard 1 of 4, and `0000` for an unsharded tenant (printed only when sharded).
 */
import { StrataError } from "./errors.ts";

export type TenantId = string & { readonly brand?: "tenant" };
export type TimelineId = string & { readonly brand?: "timeline" };
export type NodeId = number;

/** Shard `number` of `count`; count 0 means unsharded (then number is 0). */
export interface ShardIndex {
  readonly number: number;
  readonly count: number;
}

export const UNSHARDED: ShardIndex = { number: 0, count: 0 };

export interface TenantShardId extends ShardIndex {
  readonly tenantId: TenantId;
}

function parseId(text: string, what: string): string {
  if (!/^[0-9a-fA-F]{32}$/.test(text)) throw new StrataError("fix-input", `bad-${what}-id`, `"${text}" is not a ${what} id of 32 hex digits`);
  return text.toLowerCase();
}

/** @throws StrataError fix-input `bad-tenant-id` */
export function parseTenantId(text: string): TenantId {
  return parseId(text, "tenant");
}

/** @throws StrataError fix-input `bad-timeline-id` */
export function parseTimelineId(text: string): TimelineId {
  return parseId(text, "timeline");
}

/** Arrays have hex of their own in Bun; in Node, where the broker's client runs as well, only from 25 on. A third of the time. */
const HAS_HEX = "fromHex" in Uint8Array;

/** @param id hex digits, an even number; others throw */
export function idToBytes(id: string): Uint8Array {
  return HAS_HEX ? Uint8Array.fromHex(id) : bytesFromHex(id);
}

/** @param bytes at least 16 from `offset` */
export function idFromBytes(bytes: Uint8Array, offset = 0): string {
  const id = bytes.subarray(offset, offset + 16);
  return HAS_HEX ? id.toHex() : Buffer.from(id.buffer, id.byteOffset, id.length).toString("hex");
}

function bytesFromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, "hex"));
  // It stops where the digits do.
  if (bytes.length * 2 !== text.length) throw new StrataError("fix-input", "bad-id", `"${text}" is not an id in hex digits`);
  return bytes;
}

/** `0104` for shard 1 of 4. */
export function shardIndexToString(shard: ShardIndex): string {
  return shard.number.toString(16).padStart(2, "0") + shard.count.toString(16).padStart(2, "0");
}

/** Tenant id, with `-NNCC` when sharded: the peer's TenantShardId text form. */
export function tenantShardIdToString(id: TenantShardId): string {
  return id.count === 0 ? id.tenantId : `${id.tenantId}-${shardIndexToString(id)}`;
}

/** @throws StrataError fix-input `bad-tenant-shard-id` */
export function parseTenantShardId(text: string): TenantShardId {
  const match = /^([0-9a-fA-F]{32})(?:-([0-9a-fA-F]{2})([0-9a-fA-F]{2}))?$/.exec(text);
  if (match === null) throw new StrataError("fix-input", "bad-tenant-shard-id", `"${text}" is not a tenant shard id (32 hex digits, optionally -NNCC)`);
  const number = match[2] === undefined ? 0 : Number.parseInt(match[2], 16);
  const count = match[3] === undefined ? 0 : Number.parseInt(match[3], 16);
  if (number !== 0 && number >= count) throw new StrataError("fix-input", "bad-tenant-shard-id", `shard number ${number} is not below the shard count ${count}`);
  return { tenantId: (match[1] as string).toLowerCase(), number, count };
}
