/**
 * pg_multixact.
 *
 * offsets: u32 per multixact id: where its members begin; 2048 to a page. members: groups of 20 bytes: four status bytes, then
 * four u32 transaction ids; 409 groups, 1636 members to a page. Little-endian.
 *
 * A multixact's members end where those of the next id begin. PostgreSQL's minor releases from 2026 on write that next entry
 * together with the multixact and fail to read one without it; older ones do not, and do not mind it.
 *
 * Source: PostgreSQL access/transam/multixact.c (RecordNewMultiXact, GetMultiXactIdMembers).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { SLRU_PAGE_SIZE } from "./segments.ts";

const GROUP_MEMBERS = 4;
const GROUP_SIZE = GROUP_MEMBERS * 5;

export const MULTIXACT_OFFSETS_PER_PAGE = SLRU_PAGE_SIZE / 4;
export const MULTIXACT_MEMBERS_PER_PAGE = Math.floor(SLRU_PAGE_SIZE / GROUP_SIZE) * GROUP_MEMBERS;

/** Entries of one create record: its own offset, and the next id's. */
export interface MultiXactOffsetEntry {
  readonly multiXid: number;
  readonly memberOffset: number;
}

export function multiXactOffsetsPageOf(multiXid: number): number {
  return Math.floor(multiXid / MULTIXACT_OFFSETS_PER_PAGE);
}

export function multiXactMembersPageOf(memberOffset: number): number {
  return Math.floor(memberOffset / MULTIXACT_MEMBERS_PER_PAGE);
}

/** The multixact id after `multiXid`; 0 is not one. */
export function nextMultiXid(multiXid: number): number {
  return multiXid === 0xffff_ffff ? 1 : multiXid + 1;
}

/** Where the members of the id after a multixact begin: behind its own; 0 is not an offset. */
export function nextMemberOffset(memberOffset: number, memberCount: number): number {
  return (memberOffset + memberCount) >>> 0 || 1;
}

export function multiXactOffset(page: Uint8Array, multiXid: number): number {
  return dataViewOf(page).getUint32((multiXid % MULTIXACT_OFFSETS_PER_PAGE) * 4, true);
}

export function setMultiXactOffset(page: Uint8Array, entry: MultiXactOffsetEntry): void {
  dataViewOf(page).setUint32((entry.multiXid % MULTIXACT_OFFSETS_PER_PAGE) * 4, entry.memberOffset, true);
}

export interface MultiXactMemberEntry {
  readonly xid: number;
  readonly status: number;
}

export function multiXactMember(page: Uint8Array, memberOffset: number): MultiXactMemberEntry {
  const { status, xid } = memberPlace(memberOffset);
  return { xid: dataViewOf(page).getUint32(xid, true), status: page[status] };
}

export function setMultiXactMember(page: Uint8Array, memberOffset: number, member: MultiXactMemberEntry): void {
  const { status, xid } = memberPlace(memberOffset);
  page[status] = member.status;
  dataViewOf(page).setUint32(xid, member.xid, true);
}

/** Byte offsets on the page of a member's status and transaction id. */
function memberPlace(memberOffset: number): { status: number; xid: number } {
  const onPage = memberOffset % MULTIXACT_MEMBERS_PER_PAGE;
  const group = Math.floor(onPage / GROUP_MEMBERS) * GROUP_SIZE;
  const inGroup = onPage % GROUP_MEMBERS;
  return { status: group + inGroup, xid: group + GROUP_MEMBERS + inGroup * 4 };
}
